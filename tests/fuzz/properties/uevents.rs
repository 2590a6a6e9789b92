//! Uevents: the kernel's text as it is received, and both formats as they are announced to a
//! container.

use std::collections::BTreeMap;

use oci_hotplug::host::monitor::message::{Message, Properties, from_uevent, parse_uevent, take_udev_facts};
use oci_hotplug::model::device::event::DeviceEvent;
use oci_hotplug::model::device::inventory::Inventory;
use oci_hotplug::model::device::{Device, SysPath, UdevState};
use oci_hotplug::model::uevent::facts::UeventFacts;
use oci_hotplug::model::uevent::received::ReceivedUevent;
use oci_hotplug::model::uevent::{UeventAction, UeventForm, kernel_message, udev_message};

/// The kernel's buffer for one uevent (linux/kobject.h, UEVENT_BUFFER_SIZE).
const KERNEL_BUFFER: usize = 2048;

/// A message is about a device below /sys/devices or about none; the announcement of that
/// device to a container has the same facts, and no property in it can pretend to be another.
pub fn hold(input: &[u8]) {
    let properties: Properties = String::from_utf8_lossy(input)
        .split('\0')
        .filter_map(|entry| entry.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    for form in [UeventForm::Kernel, UeventForm::Udev] {
        is_read_whole(form, input);
    }
    let mut inventory = Inventory::default();
    for udev_state in [UdevState::Pending, UdevState::Processed] {
        let Some(mut message) = Message::from_properties(properties.clone(), udev_state) else {
            continue;
        };
        if udev_state == UdevState::Processed {
            take_udev_facts(&mut message.device);
        }
        is_below_devices(&message.device.syspath);
        is_told_faithfully(&message.device);
        let event = message.into_event();
        let is_removal = matches!(event, DeviceEvent::Removed { .. });
        inventory.apply(event);
        assert!(inventory.iter().count() <= usize::from(!is_removal));
    }
    // The same bytes as a file `uevent` of sysfs.
    let mut device = from_uevent(
        SysPath::new("/sys/devices/a"),
        Some("block".into()),
        parse_uevent(input),
    );
    take_udev_facts(&mut device);
    is_told_faithfully(&device);
}

/// A message is dropped, or each of its entries is a property.
fn is_read_whole(form: UeventForm, input: &[u8]) {
    let Some(message) = ReceivedUevent::parse(form, input) else {
        return;
    };
    assert!(message.properties().count() >= 4);
    if let Some(facts) = UeventFacts::of(form, message) {
        is_below_devices(&SysPath::new(format!("/sys{}", facts.devpath)));
    }
    for key in ["ACTION", "DEVPATH", "SUBSYSTEM", "SEQNUM"] {
        assert!(message.property(key).is_some(), "{key}");
    }
    assert!(
        message
            .properties()
            .all(|(key, value)| !key.contains(&b'=') && !value.contains(&b'\n'))
    );
}

fn is_below_devices(path: &SysPath) {
    let below = path
        .as_str()
        .strip_prefix("/sys/devices/")
        .expect("a device's place");
    assert!(
        below.split('/').all(|name| !matches!(name, "" | "." | "..")),
        "{path}"
    );
}

fn is_told_faithfully(device: &Device) {
    let devpath = device
        .syspath
        .as_str()
        .strip_prefix("/sys")
        .expect("a place in sysfs");
    if devpath.contains('\0') {
        return;
    }
    let kernels = kernel_message(UeventAction::Add, device, None, None);
    if devpath.len() < 512 && device.properties.iter().all(|(_, value)| value.len() < 256) {
        assert!(kernels.len() <= KERNEL_BUFFER, "{} bytes", kernels.len());
    }
    assert!(kernels.starts_with(format!("add@{devpath}\0").as_bytes()));
    let told = entries(&kernels[devpath.len() + "add@".len() + 1..]);
    assert_eq!(told.get("DEVPATH").map(String::as_str), Some(devpath));
    assert!(!told.keys().any(|key| key.starts_with("ID_") || key == "TAGS"));
    is_numbered(device, &told);

    let udevs = udev_message(UeventAction::Remove, device, None, 0);
    let word = |at: usize| u32::from_ne_bytes(udevs[at..at + 4].try_into().expect("four bytes"));
    assert_eq!((&udevs[..8], word(12), word(16)), (&b"libudev\0"[..], 40, 40));
    assert_eq!(word(20) as usize, udevs.len() - 40);
    let told = entries(&udevs[40..]);
    assert_eq!(told.get("ACTION").map(String::as_str), Some("remove"));
    assert_eq!(told.get("DEVPATH").map(String::as_str), Some(devpath));
    assert_eq!(told.get("SEQNUM").map(String::as_str), Some("1"));
    is_numbered(device, &told);
    for (key, value) in &told {
        let is_ours = matches!(
            key.as_str(),
            "ACTION"
                | "CURRENT_TAGS"
                | "DEVLINKS"
                | "DEVNAME"
                | "DEVPATH"
                | "DEVTYPE"
                | "MAJOR"
                | "MINOR"
                | "SEQNUM"
                | "SUBSYSTEM"
                | "TAGS"
        );
        assert!(
            is_ours || device.properties.get(key) == Some(value),
            "{key}={value}"
        );
    }
}

/// The number is the device's, or none: never one that another property brought in.
fn is_numbered(device: &Device, told: &BTreeMap<String, String>) {
    let number = |key: &str| told.get(key).map(|text| text.parse::<u32>().expect("a number"));
    let node = device.node.as_ref();
    assert_eq!(number("MAJOR"), node.map(|node| node.num.major));
    assert_eq!(number("MINOR"), node.map(|node| node.num.minor));
}

/// Reads a message's properties the way its receivers do.
fn entries(body: &[u8]) -> BTreeMap<String, String> {
    let text = std::str::from_utf8(body).expect("a device's facts are text");
    assert!(text.is_empty() || text.ends_with('\0'));
    let mut entries = BTreeMap::new();
    for entry in text.split_terminator('\0') {
        let (key, value) = entry.split_once('=').expect("KEY=VALUE");
        let twice = entries.insert(key.to_owned(), value.to_owned());
        assert_eq!(twice, None, "{key} stands there twice");
    }
    entries
}
