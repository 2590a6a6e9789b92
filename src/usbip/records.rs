//! The records of remote devices: which device is attached to which port, and for which container.
//!
//! ```text
//! <state-dir>/usbip/port-<N>.json    0600; written before the device is attached, and after it is
//!                                    verified
//! ```
//! A record is valid only while the kernel shows the same device at the port: other tools use
//! ports, too. Must not know how a device is attached.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::protocol::Speed;
use super::vhci::{LocalDevice, Slot, State, attribute, raw_node};
use crate::host::state::atomic_file::{Durability, replace};
use crate::host::state::flock;
use crate::model::device::SysPath;
use crate::model::device::inventory::Inventory;
use crate::model::remote::address::{RemoteDevice, UsbIdPattern};
use crate::model::remote::reservation::{Reservation, ReservedDevice};

/// The directory of records within the state directory.
pub(super) const DIRECTORY: &str = "usbip";
/// The version of the record's format.
const VERSION: u32 = 1;

/// A record could not be written or removed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source} (the state directory must be writable for root)", path.display())]
pub struct RecordError {
    /// The operation, as a gerund.
    pub action: &'static str,
    pub path: PathBuf,
    pub source: io::Error,
}

/// A device that was attached, or is about to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    pub port: u32,
    /// The requested address of the device.
    pub requested: RemoteDevice,
    /// Its address with its bus id.
    pub remote: RemoteDevice,
    /// Bus and number at the server, in one number.
    pub devid: u32,
    /// The kernel's number for the speed.
    pub speed: u32,
    /// The speed according to the server, if the kernel was given another one.
    #[serde(default)]
    pub reported_speed: Option<u32>,
    /// The path of the device in sysfs, known before the device exists.
    #[serde(default)]
    pub place: Option<PathBuf>,
    /// The container that it is reserved for; `None` if an operator attached it for all.
    #[serde(default)]
    pub container: Option<String>,
    /// The local TCP port of the connection. A new connection from this port makes a server release
    /// the device if the server has not noticed that the old connection is gone.
    #[serde(default)]
    pub local_port: u16,
    /// The id of this attempt: distinguishes two attachments of the same device to the same port.
    #[serde(default)]
    pub attempt: String,
    /// The device as created by the kernel; `None` until it is verified and authorized.
    pub local: Option<Local>,
}

/// A remote device as created by this host's kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Local {
    /// The name in sysfs, such as `3-1`.
    pub name: String,
    /// The number on its bus.
    pub devnum: u32,
    /// Vendor and product, in the format of lsusb(8).
    pub ids: String,
    /// Its serial number, if it has one.
    pub serial: Option<String>,
}

impl Local {
    /// The device, with the serial number that was read while the server could not block the
    /// reader.
    pub fn new(device: &LocalDevice, serial: Option<String>) -> Self {
        Self {
            name: device.name.clone(),
            devnum: device.devnum,
            ids: device.ids.to_string(),
            serial,
        }
    }

    /// Whether this is the same device: a bus does not reuse numbers at once.
    fn is(&self, device: &LocalDevice) -> bool {
        (&self.name, self.devnum, &self.ids) == (&device.name, device.devnum, &device.ids.to_string())
    }
}

impl Record {
    /// The record of a device that is about to be attached.
    pub fn new(port: u32, requested: RemoteDevice, remote: RemoteDevice, devid: u32, speed: u32) -> Self {
        Self {
            version: VERSION,
            port,
            requested,
            remote,
            devid,
            speed,
            reported_speed: None,
            place: None,
            container: None,
            local_port: 0,
            attempt: String::new(),
            local: None,
        }
    }

    /// How the attachment differs from an ordinary one, for messages.
    pub fn note(&self) -> Option<String> {
        let of = |number| Speed::new(number).map(|speed| speed.to_string());
        Some(format!(
            "its server reports {} speed; attached with {} speed, which every kernel takes",
            of(self.reported_speed?)?,
            of(self.speed)?
        ))
    }

    /// The container or operator that it is attached for, for messages.
    pub fn holder(&self) -> String {
        match &self.container {
            Some(id) => format!("container {id}"),
            None => "`oci-hotplug usbip attach`".into(),
        }
    }

    /// Whether the device at the port is the one of this record. The kernel shows which device it
    /// is only while the state is [`State::Used`].
    pub fn is_of(&self, slot: &Slot, device: Option<&LocalDevice>) -> bool {
        if slot.port != self.port {
            return false;
        }
        let is_told = (slot.devid, slot.speed) == (self.devid, self.speed);
        let is_same = match (&self.local, device) {
            (Some(local), Some(device)) => local.is(device),
            // The device is appearing.
            (None, _) => true,
            // The device is disappearing, or (unless used) another one is appearing.
            (Some(_), None) => slot.state == State::Used,
        };
        match slot.state {
            State::Free | State::NotReady => false,
            State::Used => is_told && is_same,
            State::Starting | State::Broken => is_same,
        }
    }

    /// Whether an operator's address means this device.
    pub fn is_named(&self, named: &RemoteDevice) -> bool {
        if *named == self.requested || *named == self.remote {
            return true;
        }
        let (Some((ids, _)), Some(local)) = (named.device.identity(), &self.local) else {
            return false;
        };
        let is_there = named
            .device
            .busid()
            .is_none_or(|busid| self.remote.device.busid() == Some(busid));
        let is_one = local
            .ids
            .parse::<UsbIdPattern>()
            .is_ok_and(|own| own.is_covered_by(ids));
        let is_it = named.device.matches_serial(local.serial.as_deref());
        named.server == self.remote.server && is_there && is_one && is_it
    }
}

/// The part of a record that a reservation needs. (Parsing all of it would add 20 KiB to a
/// watcher.)
#[derive(Deserialize)]
struct ReservationRecord {
    remote: String,
    place: Option<SysPath>,
    container: Option<String>,
    local: Option<LocalRecord>,
}

/// The part of [`Local`] that a reservation needs.
#[derive(Deserialize)]
struct LocalRecord {
    name: String,
    devnum: u32,
}

impl ReservationRecord {
    fn read(path: &Path) -> Option<Reservation> {
        let record: Self = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        let (local, syspath) = (record.local, record.place?);
        Some(Reservation {
            remote: record.remote,
            // The kernel answers this attribute without a request to the device.
            is_verified: local.is_some()
                || attribute(syspath.as_path(), "authorized").as_deref() == Some("1"),
            num: local.and_then(|local| raw_node(&local.name, local.devnum)),
            syspath,
            container: record.container,
        })
    }
}

/// The remote devices that this host has attached or is attaching.
pub fn reservations(state_dir: &Path) -> Vec<Reservation> {
    let entries = fs::read_dir(state_dir.join(DIRECTORY)).into_iter().flatten();
    let paths = entries.flatten().map(|entry| entry.path());
    // The other files are locks, and records that are being written.
    let records = paths.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    records
        .filter_map(|path| ReservationRecord::read(&path))
        .collect()
}

/// The devices that requests of a container for local devices must not select, because they are
/// reserved.
pub fn reserved_devices(state_dir: &Path, container: &str, inventory: &Inventory) -> Vec<ReservedDevice> {
    let reservations = reservations(state_dir);
    let reserved = reservations.iter();
    let reserved = reserved.filter_map(|reservation| reservation.against(container, inventory));
    reserved.collect()
}

#[derive(Debug)]
pub struct Records {
    dir: PathBuf,
}

impl Records {
    /// The records in a directory, which [`Records::make`] creates.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Creates the directory.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn make(&self) -> Result<(), RecordError> {
        flock::create_dir(&self.dir).map_err(|source| failed("create", &self.dir, source))
    }

    /// All readable records. Records in another version's format are ignored.
    pub fn all(&self) -> Vec<Record> {
        let mut records: Vec<Record> = fs::read_dir(&self.dir)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| read(&entry.path()))
            .collect();
        records.sort_by_key(|record| record.port);
        records
    }

    /// The record of a port, if there is a readable one.
    pub fn at(&self, port: u32) -> Option<Record> {
        read(&self.path(port))
    }

    /// Writes a record, replacing the previous one of its port.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, record: &Record) -> Result<(), RecordError> {
        let path = self.path(record.port);
        serde_json::to_vec(record)
            .map_err(io::Error::from)
            .and_then(|content| replace(&path, &content, 0o600, Durability::Volatile))
            .map_err(|source| failed("write", &path, source))
    }

    /// Removes the record of a port.
    pub fn remove(&self, port: u32) {
        let _ = fs::remove_file(self.path(port));
    }

    fn path(&self, port: u32) -> PathBuf {
        self.dir.join(format!("port-{port}.json"))
    }
}

fn read(path: &Path) -> Option<Record> {
    let record: Record = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    (record.version == VERSION).then_some(record)
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> RecordError {
    RecordError {
        action,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::remote::address::UsbIds;

    fn record() -> Record {
        let [requested, remote] = ["lab/0403:6001", "lab/busid:1-1"].map(|text| text.parse().unwrap());
        let mut record = Record::new(0, requested, remote, 0x10002, 2);
        record.local = Some(Local::new(&device(), Some("FT001".into())));
        record
    }

    fn device() -> LocalDevice {
        LocalDevice {
            dir: "/sys/devices/platform/vhci_hcd.0/usb3/3-1".into(),
            name: "3-1".into(),
            devnum: 7,
            ids: UsbIds {
                vendor: 0x0403,
                product: 0x6001,
            },
        }
    }

    fn slot() -> Slot {
        Slot {
            port: 0,
            is_super: false,
            state: State::Used,
            speed: 2,
            devid: 0x10002,
        }
    }

    #[test]
    fn a_record_matches_its_device_and_no_device_that_took_its_port() {
        let record = record();
        assert!(record.is_of(&slot(), Some(&device())));
        assert!(record.is_of(&slot(), None), "it is disappearing");
        let others = [
            Slot {
                state: State::Free,
                ..slot()
            },
            Slot {
                devid: 0x10003,
                ..slot()
            },
            Slot { speed: 3, ..slot() },
            Slot { port: 1, ..slot() },
        ];
        for other in others {
            assert!(!record.is_of(&other, Some(&device())), "{other:?}");
        }
        let starting = Slot {
            state: State::Starting,
            speed: 0,
            devid: 0,
            ..slot()
        };
        assert!(
            !record.is_of(&starting, None),
            "another device: this one had been up"
        );
        let unfinished = Record {
            local: None,
            ..record.clone()
        };
        assert!(unfinished.is_of(&starting, None), "it has no address yet");
        let attached_again = LocalDevice {
            devnum: 8,
            ..device()
        };
        assert!(!record.is_of(&slot(), Some(&attached_again)));
    }

    #[test]
    fn a_device_is_up_if_its_port_is_used_or_it_was_authorized_and_still_exists() {
        let unfinished = Record {
            local: None,
            ..record()
        };
        for (state, record, device, is_up) in [
            (State::Used, None, Some(device()), true),
            (State::Starting, Some(record()), Some(device()), true),
            (State::Starting, Some(record()), None, false),
            (State::Starting, Some(unfinished), Some(device()), false),
            (State::Starting, None, Some(device()), false),
            (State::Broken, Some(record()), Some(device()), false),
        ] {
            let slot = Slot { state, ..slot() };
            let attached = crate::usbip::Attached { slot, device, record };
            assert_eq!(attached.is_up(), is_up, "{attached:?}");
        }
    }

    #[test]
    fn a_device_is_named_by_its_requested_address_and_by_its_ids() {
        for (text, is_named) in [
            ("lab/0403:6001", true),
            ("lab/0403:6001:FT001", true),
            ("lab/busid:1-1", true),
            ("lab/0403:6001:FT002", false),
            ("lab/busid:1-2", false),
            ("other/0403:6001", false),
        ] {
            assert_eq!(record().is_named(&text.parse().unwrap()), is_named, "{text}");
        }
    }

    #[test]
    fn a_reservation_is_in_force_before_the_kernel_creates_the_device() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("3-1");
        fs::create_dir(&place).unwrap();
        let records = Records::new(dir.path().join(DIRECTORY));
        records.make().unwrap();
        let mut record = record();
        (record.container, record.place) = (Some("c1".into()), Some(place.clone()));
        let up = record.local.take();
        let told = |record: &Record| {
            records.write(record).unwrap();
            let [reservation] = <[Reservation; 1]>::try_from(reservations(dir.path())).unwrap();
            assert_eq!(reservation.syspath.as_path(), place);
            assert_eq!(reservation.container.as_deref(), Some("c1"));
            (reservation.is_verified, reservation.num.map(|num| num.minor))
        };
        assert_eq!(told(&record), (false, None), "the kernel has not created it yet");
        fs::write(place.join("authorized"), "0\n").unwrap();
        assert_eq!(told(&record), (false, None), "it is being verified");
        fs::write(place.join("authorized"), "1\n").unwrap();
        assert_eq!(told(&record), (true, None), "drivers may have it");
        record.local = up;
        assert_eq!(told(&record), (true, Some(2 * 128 + 6)));
    }

    #[test]
    fn records_are_kept_by_port_and_foreign_files_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::new(dir.path().join("usbip"));
        assert_eq!(records.all(), []);
        records.make().unwrap();
        records.write(&record()).unwrap();
        fs::write(dir.path().join("usbip/port-9.json"), r#"{"version":2,"port":9}"#).unwrap();
        assert_eq!(records.all(), [record()]);
        assert_eq!((records.at(0), records.at(9)), (Some(record()), None));
        records.remove(0);
        assert_eq!(records.all(), []);
    }
}
