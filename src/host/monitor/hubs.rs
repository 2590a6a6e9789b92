//! Which hub is the other half of a USB 3 hub, as sysfs has it.
//!
//! The kernel links each port to its `peer`, the port of the other speed behind the same socket
//! (drivers/usb/core/port.c). It knows peers by the firmware's location of both, or by equal port
//! numbers. Where it knows none, both halves may still have the same Container ID.

use std::fs;
use std::path::Path;

use super::message::parse_uevent;
use super::sysfs::{Attributes, SysFs, place_of_link};
use crate::model::device::usb_hub::{container_id, is_hub};
use crate::model::device::{Device, SysPath};

/// Hubs below hubs below a root hub: USB allows five (USB 2.0, 4.1.1).
const MAX_DEPTH: usize = 5;

impl SysFs {
    /// The other half of a hub; `None` for every other device and for root hubs.
    ///
    /// The kernel creates the links after the hub's own `add` event (usb_new_device in
    /// drivers/usb/core/hub.c), so this is `None` at first.
    pub(super) fn companion(&self, device: &Device) -> Option<SysPath> {
        let is_one = device.devtype.as_deref() == Some("usb_device")
            && device.properties.get("TYPE").is_some_and(|kind| is_hub(kind));
        let place = device.syspath.as_str().strip_prefix("/sys/devices/")?;
        if !is_one || device.syspath.name().starts_with("usb") {
            return None;
        }
        let companion = match self.has_file(&format!("{place}/port/peer")) {
            true => self.real_place(&format!("{place}/port/peer/device"))?,
            false => self.hub_with_same_container_id(place)?,
        };
        (companion != place && self.is_hub(&companion))
            .then(|| SysPath::new(format!("/sys/devices/{companion}")))
    }

    /// The same for the device at a path.
    pub(super) fn companion_at(&self, syspath: &SysPath) -> Option<SysPath> {
        let place = syspath.as_str().strip_prefix("/sys/devices/")?;
        self.read(place, &Attributes::new())?.companion
    }

    /// The only other hub of the same controller with the Container ID of this one. Vendors copy
    /// ids, so there must be exactly two such hubs, on two buses, and the kernel must not know
    /// another half of either.
    fn hub_with_same_container_id(&self, place: &str) -> Option<String> {
        let id = self.container_id(place)?;
        let root_hub = Path::new(place)
            .ancestors()
            .find(|above| is_named(above, "usb"))?;
        let controller = root_hub.parent()?.to_str()?;
        let mut hubs = Vec::new();
        for bus in self.names_at(controller) {
            let root_hub = format!("{controller}/{bus}");
            if is_named(Path::new(&bus), "usb") {
                self.add_hubs(&root_hub, MAX_DEPTH, &mut hubs);
            }
        }
        hubs.retain(|hub| self.container_id(hub) == Some(id));
        let is_below = |hub: &str| Path::new(hub).starts_with(root_hub);
        match <[String; 2]>::try_from(hubs).ok()? {
            [own, other] | [other, own] if own == place && !is_below(&other) => {
                (!self.has_file(&format!("{other}/port/peer"))).then_some(other)
            }
            _ => None,
        }
    }

    /// Appends the hubs below a hub.
    fn add_hubs(&self, hub: &str, depth: usize, hubs: &mut Vec<String>) {
        for name in self.names_at(hub) {
            // Devices are named `1-4.2`, interfaces `1-4.2:1.0`, endpoints `ep_00`.
            let is_device = name.starts_with(|first: char| first.is_ascii_digit()) && !name.contains(':');
            let place = format!("{hub}/{name}");
            if is_device && depth > 0 && self.is_hub(&place) {
                self.add_hubs(&place, depth - 1, hubs);
                hubs.push(place);
            }
        }
    }

    fn is_hub(&self, place: &str) -> bool {
        let uevent = self.file(&format!("{place}/uevent")).unwrap_or_default();
        parse_uevent(&uevent).get("TYPE").is_some_and(|kind| is_hub(kind))
    }

    fn container_id(&self, place: &str) -> Option<[u8; 16]> {
        container_id(&self.whole_file(&format!("{place}/bos_descriptors"))?)
    }

    /// The device at the end of a path of links, by its place.
    fn real_place(&self, path: &str) -> Option<String> {
        let devices = fs::canonicalize(self.devices_path()).ok()?;
        let real = fs::canonicalize(devices.join(path)).ok()?;
        let below = Path::new("devices").join(real.strip_prefix(&devices).ok()?);
        place_of_link(&below).map(str::to_owned)
    }
}

/// Whether a directory has a name such as `usb3`.
fn is_named(directory: &Path, name: &str) -> bool {
    let own = directory.file_name().and_then(|own| own.to_str());
    let number = own.and_then(|own| own.strip_prefix(name));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use tempfile::TempDir;

    const CONTROLLER: &str = "pci0000:00/0000:00:14.0";

    /// A controller with the root hubs usb1 and usb2, and hubs below them.
    struct Buses(TempDir);

    impl Buses {
        fn new() -> Self {
            let buses = Self(TempDir::new().unwrap());
            for bus in ["usb1", "usb2"] {
                buses.device(&format!("{CONTROLLER}/{bus}"), "9/0/1");
            }
            buses
        }

        fn device(&self, place: &str, kind: &str) -> Device {
            let directory = self.0.path().join("devices").join(place);
            fs::create_dir_all(&directory).unwrap();
            let uevent = format!("DEVTYPE=usb_device\nTYPE={kind}\n");
            fs::write(directory.join("uevent"), uevent).unwrap();
            self.sysfs().read(place, &Attributes::new()).unwrap()
        }

        /// A hub at a port of a root hub, with its link to the port.
        fn hub(&self, bus: u8, port: u8, id: u8) -> Device {
            let place = format!("{CONTROLLER}/usb{bus}/{bus}-{port}");
            self.device(&place, "9/0/1");
            let directory = self.0.path().join("devices").join(&place);
            let port_place = format!("{bus}-0:1.0/usb{bus}-port{port}");
            let port_directory = directory.join("..").join(&port_place);
            fs::create_dir_all(&port_directory).unwrap();
            symlink(format!("../{port_place}"), directory.join("port")).unwrap();
            symlink(format!("../../{bus}-{port}"), port_directory.join("device")).unwrap();
            let mut bos = vec![5, 0x0f, 25, 0, 1, 20, 0x10, 4, 0];
            bos.extend([id; 16]);
            fs::write(directory.join("bos_descriptors"), bos).unwrap();
            self.sysfs().read(&place, &Attributes::new()).unwrap()
        }

        fn make_peers(&self, one: (u8, u8), other: (u8, u8)) {
            for ((bus, port), (peer_bus, peer_port)) in [(one, other), (other, one)] {
                let port = self.port(bus, port);
                fs::create_dir_all(&port).unwrap();
                let peer = format!("../../../usb{peer_bus}/{peer_bus}-0:1.0/usb{peer_bus}-port{peer_port}");
                symlink(peer, port.join("peer")).unwrap();
            }
        }

        fn port(&self, bus: u8, port: u8) -> std::path::PathBuf {
            let place = format!("devices/{CONTROLLER}/usb{bus}/{bus}-0:1.0/usb{bus}-port{port}");
            self.0.path().join(place)
        }

        fn sysfs(&self) -> SysFs {
            SysFs::open(self.0.path()).unwrap()
        }

        /// The name of the companion.
        fn companion(&self, device: &Device) -> Option<String> {
            Some(self.sysfs().companion(device)?.name().to_owned())
        }
    }

    #[test]
    fn the_hub_at_the_peered_port_is_the_other_half_of_each() {
        let buses = Buses::new();
        let (high, super_speed) = (buses.hub(1, 3, 0), buses.hub(2, 5, 0));
        buses.make_peers((1, 3), (2, 5));
        assert_eq!(buses.companion(&high).as_deref(), Some("2-5"));
        assert_eq!(buses.companion(&super_speed).as_deref(), Some("1-3"));
        let listed = buses
            .sysfs()
            .read(&format!("{CONTROLLER}/usb1/1-3"), &Attributes::new());
        let companion = listed.unwrap().companion;
        assert_eq!(
            companion.unwrap().as_str(),
            format!("/sys/devices/{CONTROLLER}/usb2/2-5")
        );
    }

    #[test]
    fn an_empty_peer_another_device_there_and_a_root_hub_are_no_companions() {
        let buses = Buses::new();
        let high = buses.hub(1, 3, 1);
        buses.make_peers((1, 3), (2, 3));
        assert_eq!(buses.companion(&high), None, "nothing at the other port");
        // The peer is empty, so a hub with the same id elsewhere is another hub.
        buses.hub(2, 4, 1);
        assert_eq!(buses.companion(&high), None);
        let disk = buses.device(&format!("{CONTROLLER}/usb2/2-3"), "0/0/0");
        symlink("../../2-3", buses.port(2, 3).join("device")).unwrap();
        assert_eq!(buses.companion(&high), None, "a disk");
        assert_eq!(buses.companion(&disk), None);
        let root_hub = buses
            .sysfs()
            .read(&format!("{CONTROLLER}/usb1"), &Attributes::new());
        assert_eq!(root_hub.unwrap().companion, None);
    }

    #[test]
    fn without_peers_the_container_id_decides_if_it_is_the_only_one_of_its_kind() {
        let buses = Buses::new();
        let (high, super_speed) = (buses.hub(1, 3, 7), buses.hub(2, 4, 7));
        assert_eq!(buses.companion(&high).as_deref(), Some("2-4"));
        assert_eq!(buses.companion(&super_speed).as_deref(), Some("1-3"));
        // A vendor that copies ids: two hubs of one model.
        let second = buses.hub(1, 5, 7);
        for hub in [&high, &super_speed, &second] {
            assert_eq!(buses.companion(hub), None, "{}", hub.syspath);
        }
    }

    #[test]
    fn a_container_id_does_not_count_on_one_bus_if_zero_or_beside_a_peer() {
        let buses = Buses::new();
        let same_bus = [buses.hub(1, 1, 7), buses.hub(1, 2, 7)];
        let zero = [buses.hub(1, 3, 0), buses.hub(2, 3, 0)];
        let peered = [buses.hub(1, 4, 9), buses.hub(2, 5, 9)];
        buses.make_peers((2, 5), (1, 6));
        for hub in [same_bus, zero, peered].iter().flatten() {
            assert_eq!(buses.companion(hub), None, "{}", hub.syspath);
        }
    }
}
