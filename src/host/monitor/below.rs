//! The devices without a node below a device, as sysfs has them: the listing of all devices leaves
//! them out, and events report only those that come later.

use super::sysfs::{Attributes, SysFs, place_of};
use crate::model::device::{Device, SysPath};
use crate::model::uevent::nodeless;

/// Directories below a device are not followed further than this: a disk behind five hubs is at
/// depth 20.
const MAX_DEPTH: usize = 24;

/// Directories that every device has and that no device is in, and those of network interfaces,
/// whose events are never received.
const WITHOUT_DEVICES: [&str; 3] = ["power", "statistics", "queues"];

impl SysFs {
    /// The devices without a node at or below a path, parents first, with the kernel's facts.
    /// Devices whose events are never received are left out. A device that vanishes meanwhile is,
    /// too.
    pub(super) fn nodeless_below(&self, root: &SysPath, attributes: &Attributes) -> Vec<Device> {
        let mut found = Vec::new();
        if let Some(place) = place_of(root) {
            self.add_nodeless(place, MAX_DEPTH, attributes, &mut found);
        }
        found
    }

    fn add_nodeless(&self, place: &str, depth: usize, attributes: &Attributes, found: &mut Vec<Device>) {
        let entries = self.entries_at(place);
        // Not every directory is a device, and only devices with a subsystem have events
        // (drivers/base/core.c, dev_uevent_filter).
        if entries.iter().any(|(name, _)| name == "subsystem") {
            found.extend(self.read(place, attributes).filter(is_reported));
        }
        if depth == 0 {
            return;
        }
        for (name, is_directory) in entries {
            if is_directory && !WITHOUT_DEVICES.contains(&name.as_str()) {
                self.add_nodeless(&format!("{place}/{name}"), depth - 1, attributes, found);
            }
        }
    }
}

fn is_reported(device: &Device) -> bool {
    let subsystem = device.subsystem.as_deref().unwrap_or_default();
    let devpath = device.syspath.as_str().trim_start_matches("/sys");
    device.node.is_none() && !nodeless::is_never_received(subsystem, devpath)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use tempfile::TempDir;

    fn device(sysfs: &TempDir, place: &str, subsystem: &str, uevent: &str) {
        let directory = sysfs.path().join("devices").join(place);
        fs::create_dir_all(directory.join("power")).unwrap();
        fs::write(directory.join("uevent"), uevent).unwrap();
        symlink(format!("/class/{subsystem}"), directory.join("subsystem")).unwrap();
    }

    #[test]
    fn devices_without_a_node_are_found_at_any_depth_and_parents_first() {
        let sysfs = TempDir::new().unwrap();
        device(
            &sysfs,
            "usb1/1-1",
            "usb",
            "MAJOR=189\nMINOR=1\nDEVNAME=bus/usb/001/002\n",
        );
        device(&sysfs, "usb1/1-1/1-1:1.0", "usb", "DEVTYPE=usb_interface\n");
        device(&sysfs, "usb1/1-1/1-1:1.0/sound/card1", "sound", "");
        let control = "MAJOR=116\nMINOR=2\nDEVNAME=snd/controlC1\n";
        device(&sysfs, "usb1/1-1/1-1:1.0/sound/card1/controlC1", "sound", control);
        device(&sysfs, "usb1/1-1/1-1:1.1/net/usb0", "net", "INTERFACE=usb0\n");
        device(&sysfs, "usb1/1-1/1-1:1.1/net/usb0/queues/rx-0", "queues", "");
        device(&sysfs, "usb1/1-10/1-10:1.0", "usb", "");
        let up = sysfs.path().join("devices/usb1/1-1/1-1:1.0/sound/card1/device");
        symlink("../..", up).unwrap();
        let found = SysFs::open(sysfs.path())
            .unwrap()
            .nodeless_below(&SysPath::new("/sys/devices/usb1/1-1"), &Attributes::new());
        let names: Vec<&str> = found.iter().map(|device| device.syspath.name()).collect();
        assert_eq!(names, ["1-1:1.0", "card1", "usb0"]);
        assert_eq!(found[1].subsystem.as_deref(), Some("sound"));
    }
}
