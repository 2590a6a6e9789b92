//! Network interfaces and Bluetooth adapters, which never have a device node, with their parents.
//! The monitor does not list them; `explain` and `match` need them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::model::device::{Device, SysPath};

const CLASSES: [&str; 2] = ["net", "bluetooth"];

/// The devices of this host that are not in `known`. A device that cannot be read is left out.
pub(crate) fn devices(known: &[Device]) -> Vec<Device> {
    devices_of(Path::new("/sys"), known)
}

fn devices_of(sysfs: &Path, known: &[Device]) -> Vec<Device> {
    let mut found = BTreeMap::new();
    let root = sysfs.join("devices");
    for class in CLASSES {
        let entries = fs::read_dir(sysfs.join("class").join(class))
            .into_iter()
            .flatten();
        for entry in entries.flatten() {
            let Ok(place) = fs::canonicalize(entry.path()) else {
                continue;
            };
            for dir in place
                .ancestors()
                .take_while(|dir| *dir != root && dir.starts_with(&root))
            {
                if let Some(device) = read(sysfs, dir) {
                    found.entry(device.syspath.clone()).or_insert(device);
                }
            }
        }
    }
    known.iter().for_each(|device| {
        found.remove(&device.syspath);
    });
    found.into_values().collect()
}

fn read(sysfs: &Path, dir: &Path) -> Option<Device> {
    let uevent = fs::read_to_string(dir.join("uevent")).ok()?;
    let link = |name: &str| {
        let target = fs::read_link(dir.join(name)).ok()?;
        Some(target.file_name()?.to_str()?.to_owned())
    };
    let path = Path::new("/sys").join(dir.strip_prefix(sysfs).ok()?);
    let mut device = Device::new(SysPath::new(path.to_str()?));
    device.subsystem = link("subsystem");
    device.driver = link("driver");
    let properties = uevent.lines().filter_map(|line| line.split_once('='));
    device.properties = properties
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    Some(device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// Case README 27.
    #[test]
    fn a_can_interface_is_found_with_its_usb_interface() {
        let scratch = tempfile::tempdir().unwrap();
        let sysfs = scratch.path().canonicalize().unwrap();
        let usb = sysfs.join("devices/usb1/1-1/1-1:1.0");
        let can = usb.join("net/can0");
        fs::create_dir_all(&can).unwrap();
        fs::create_dir_all(sysfs.join("class/net")).unwrap();
        fs::write(can.join("uevent"), "INTERFACE=can0\n").unwrap();
        fs::write(usb.join("uevent"), "DEVTYPE=usb_interface\n").unwrap();
        symlink("../../../../../../class/net", can.join("subsystem")).unwrap();
        symlink("../../../bus/usb/drivers/gs_usb", usb.join("driver")).unwrap();
        symlink(
            "../../devices/usb1/1-1/1-1:1.0/net/can0",
            sysfs.join("class/net/can0"),
        )
        .unwrap();
        let found = devices_of(&sysfs, &[]);
        let paths: Vec<&str> = found.iter().map(|device| device.syspath.as_str()).collect();
        assert_eq!(
            paths,
            [
                "/sys/devices/usb1/1-1/1-1:1.0",
                "/sys/devices/usb1/1-1/1-1:1.0/net/can0"
            ]
        );
        assert_eq!(found[0].driver.as_deref(), Some("gs_usb"));
        assert_eq!(found[1].subsystem.as_deref(), Some("net"));
        assert_eq!(devices_of(&sysfs, &found), []);
    }
}
