//! The paths of the virtual USB host controllers (vhci_hcd) in sysfs. Every device that is attached
//! over USB/IP is below them.

use std::path::{Path, PathBuf};

use crate::model::device::SysPath;

/// The directory of the controllers.
pub(crate) const PLATFORM: &str = "/sys/devices/platform";

/// The path of a controller without its number: the prefix of the paths of all attached devices.
pub(crate) const CONTROLLERS: &str = "/sys/devices/platform/vhci_hcd.";

/// The name of a controller without its number.
const NAME: &str = "vhci_hcd.";

/// The directory of a controller. The first controller has the control files for all.
pub(crate) fn controller(platform: &Path, number: u32) -> PathBuf {
    platform.join(format!("{NAME}{number}"))
}

/// Whether a device is one of the controllers or below one of them.
pub(crate) fn includes(syspath: &SysPath) -> bool {
    syspath.as_str().starts_with(CONTROLLERS)
}

/// Whether a directory of sysfs has the name of a controller.
pub(crate) fn is_controller(name: &str) -> bool {
    name.starts_with(NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_paths_belong_to_the_same_controllers() {
        let first = controller(Path::new(PLATFORM), 0);
        assert_eq!(first, Path::new("/sys/devices/platform/vhci_hcd.0"));
        assert!(includes(&SysPath::new(first.to_str().unwrap())));
        assert!(!includes(&SysPath::new("/sys/devices/platform/serial8250")));
        assert!(is_controller("vhci_hcd.7") && !is_controller("xhci_hcd.0"));
    }
}
