//! Which of the nodes of a root `path=` and `link=` are for: a USB adapter has its tty and the raw node that libusb
//! wants, a camera a button and an infrared sensor beside its picture.
//!
//! Must not know what is inside a container already (`reconcile`).

use super::device::{DevNum, Device};
use super::request::Request;
use super::selector::{Found, Selector};

/// How far a node is from what people mean by the device; the least is named. Among equals the lowest number is.
pub type Distance = (u8, DevNum);

/// Nodes that a device has beside the one that it is bought for.
const COMPANIONS: [&str; 5] = ["media", "input", "hidraw", "bsg", "scsi_generic"];

/// Nodes that are the whole of one device, and stand beside the picture or the tty of another: a camera's microphone, a
/// modem's control channel. Which of a device's drivers comes first is chance.
const SECONDS: [&str; 2] = ["sound", "usbmisc"];

/// The pins of a serial adapter (ftdi_sio, cp210x), there some time before its tty.
const PINS: &str = "gpio";

/// How far the device's node is from being the one that its root is named for; `None` when it never is.
///
/// The raw node of a USB device (/dev/bus/usb/…) is never named for the device unless the request says that it means
/// this very node: programs find it by its place, and it is there before the drivers' nodes are, so that who waits for
/// `/dev/board` would open the wrong thing. With the pins of a serial adapter it is the same.
pub fn distance(request: &Request, device: &Device) -> Option<Distance> {
    let num = device.node.as_ref()?.num;
    if is_raw_usb(device) {
        return means_nodes(request).then_some((3, num));
    }
    let subsystem = device.subsystem.as_deref().unwrap_or_default();
    let rank = match subsystem {
        PINS => return (means_nodes(request) || means_itself(request, device)).then_some((3, num)),
        _ if COMPANIONS.contains(&subsystem) => 2,
        _ if SECONDS.contains(&subsystem) => 1,
        _ => 0,
    };
    Some((rank, num))
}

/// Whether the device, which the container gets, is what the request names, and not something below it.
fn means_itself(request: &Request, device: &Device) -> bool {
    request.selector.parents() == 0 && request.selector.names_itself(device) != Found::No
}

fn is_raw_usb(device: &Device) -> bool {
    device.subsystem.as_deref() == Some("usb") && device.devtype.as_deref() == Some("usb_device")
}

/// Whether the request picks nodes, not devices that have nodes: `only=`, or a selector that is about a path of /dev.
fn means_nodes(request: &Request) -> bool {
    let is_of_nodes = |selector: &Selector| {
        matches!(
            selector,
            Selector::DevNode(_) | Selector::Glob(_) | Selector::Regex(_) | Selector::Node(_)
        )
    };
    let mut terms = request.selector.terms().iter();
    let picks_nodes = terms.any(|term| !term.negated && is_of_nodes(&term.selector));
    !request.options.only.is_empty() || (request.selector.parents() == 0 && picks_nodes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::recorded;

    /// The node that this request's root is named for.
    fn named(request: &str, devices: &[Device]) -> Option<String> {
        let request: Request = request.parse().unwrap();
        let admitted = devices
            .iter()
            .filter(|device| request.options.admits(&[device]) != Found::No);
        let nearest = admitted
            .filter_map(|device| Some((distance(&request, device)?, device)))
            .min_by_key(|(distance, _)| *distance);
        nearest.and_then(|(_, device)| Some(device.node.as_ref()?.path.display().to_string()))
    }

    #[test]
    fn an_adapter_is_named_for_its_tty_and_never_for_its_raw_node() {
        let tree = recorded::hub_with_two_adapters();
        let adapter: Vec<Device> = tree
            .iter()
            .filter(|device| device.syspath.as_str().contains("1-1.1"))
            .cloned()
            .collect();
        assert_eq!(
            named("usb:0403:6001;path=/dev/board", &adapter).as_deref(),
            Some("/dev/ttyUSB0")
        );
        assert_eq!(named("usb:0403:6001;path=/dev/board", &adapter[..1]), None);
    }

    #[test]
    fn the_raw_node_has_a_name_when_it_is_meant() {
        let tree = recorded::hub_with_two_adapters();
        for request in [
            "usb:0403:6001:A;only=subsystem:usb;path=/dev/probe",
            "devnode:/dev/bus/usb/001/003;path=/dev/probe",
            "glob:/dev/bus/usb/001/*;path=/dev/probe",
        ] {
            let raw: Vec<Device> = tree
                .iter()
                .filter(|device| device.syspath.name() == "1-1.1")
                .cloned()
                .collect();
            assert_eq!(
                named(request, &raw).as_deref(),
                Some("/dev/bus/usb/001/003"),
                "{request}"
            );
        }
        assert_eq!(
            named("parent-of:devnode:/dev/ttyUSB0;path=/dev/x", &tree[..1]),
            None
        );
    }

    #[test]
    fn an_adapters_pins_are_named_only_when_they_are_meant() {
        let pins: Vec<Device> = recorded::hub_with_two_adapters()
            .into_iter()
            .filter(|device| device.subsystem.as_deref() == Some("tty"))
            .take(1)
            .map(|mut device| {
                device.subsystem = Some(PINS.into());
                device
            })
            .collect();
        let name = pins[0].node.as_ref().unwrap().path.display().to_string();
        for (request, is_named) in [
            ("usb:0403:6001;link=/dev/board", false),
            ("parent-of:usb:0403:6001;link=/dev/board", false),
            ("usb:0403:6001;only=subsystem:gpio;link=/dev/pins", true),
            ("subsystem:gpio;link=/dev/pins", true),
        ] {
            assert_eq!(named(request, &pins), is_named.then(|| name.clone()), "{request}");
        }
    }

    #[test]
    fn whichever_driver_is_first_a_camera_is_named_for_its_picture_and_a_headset_for_its_sound() {
        let node = |subsystem: &str| {
            let mut device = recorded::composite_device()
                .into_iter()
                .find(|device| device.node.is_some() && !is_raw_usb(device))
                .unwrap();
            device.subsystem = Some(subsystem.into());
            distance(&"usb:2341:8036;link=/dev/x".parse().unwrap(), &device)
                .unwrap()
                .0
        };
        assert!(node("video4linux") < node("sound") && node("sound") < node("input"));
        assert!(node("tty") < node("usbmisc"));
    }

    #[test]
    fn a_composite_device_is_named_for_its_modem_and_not_for_its_keys() {
        let tree = recorded::composite_device();
        assert_eq!(
            named("usb:2341:8036;link=/dev/board", &tree).as_deref(),
            Some("/dev/ttyACM0")
        );
        assert_eq!(
            named("usb:2341:8036;only=subsystem:hidraw;link=/dev/keys", &tree).as_deref(),
            Some("/dev/hidraw0")
        );
    }

    #[test]
    fn a_disk_is_named_before_its_partitions() {
        let tree = recorded::disk_with_partitions();
        assert_eq!(
            named("pci:0000:00:17.0;path=/dev/data", &tree).as_deref(),
            Some("/dev/sda")
        );
    }
}
