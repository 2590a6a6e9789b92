//! The replies of a USB/IP server, which may be anybody's.

use oci_hotplug::usbip::protocol::{MAX_DEVICES, read_devlist, read_import};

use super::is_fit_for_a_log;

/// The bytes of a reply's header, of the number of devices, of a device and of an interface
/// (Documentation/usb/usbip_protocol.rst).
const HEADER: usize = 8;
const COUNT: usize = 4;
const DEVICE: usize = 312;
const INTERFACE: usize = 4;

/// A reply is read to its last byte and no further, because the kernel takes over there; what it
/// names is harmless as text.
pub fn hold(input: &[u8]) {
    let mut rest = input;
    match read_devlist(&mut rest) {
        Ok(devices) => {
            assert!(devices.len() <= MAX_DEVICES as usize);
            let interfaces: usize = devices.iter().map(|device| device.interfaces.len()).sum();
            let length = HEADER + COUNT + DEVICE * devices.len() + INTERFACE * interfaces;
            assert_eq!(input.len() - rest.len(), length);
            for device in &devices {
                assert!(!device.path.chars().any(char::is_control), "{:?}", device.path);
                assert_eq!(device.busid.as_str().parse(), Ok(device.busid.clone()));
            }
        }
        Err(error) => is_fit_for_a_log(&error),
    }
    let mut rest = input;
    let requested = "1-1.4".parse().expect("a bus id");
    match read_import(&mut rest, &requested) {
        Ok(device) => {
            assert_eq!(device.busid, requested);
            assert_eq!(input.len() - rest.len(), HEADER + DEVICE);
        }
        Err(error) => is_fit_for_a_log(&error),
    }
}
