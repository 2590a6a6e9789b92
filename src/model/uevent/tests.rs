//! Both forms of a uevent, compared with recorded messages.

use super::udev_header::{murmur2, tag_bloom};
use super::*;
use crate::model::device::{DevKind, DevNode, DevNum, SysPath};
use proptest::prelude::*;

fn disk() -> Device {
    let mut device = Device::new(SysPath::new("/sys/devices/virtual/block/loop0"));
    device.subsystem = Some("block".into());
    device.devtype = Some("disk".into());
    let num = DevNum {
        kind: DevKind::Block,
        major: 7,
        minor: 0,
    };
    device.node = Some(DevNode {
        path: "/dev/loop0".into(),
        num,
    });
    device.tags = BTreeSet::from(["systemd".to_owned()]);
    device.links = BTreeSet::from(["/dev/disk/by-diskseq/1".into(), "/dev/disk/a".into()]);
    for (key, value) in [
        ("USEC_INITIALIZED", "1252137986"),
        ("DISKSEQ", "1"),
        ("ACTION", "stale"),
        ("ID_PATH", "x"),
    ] {
        device.properties.insert(key.into(), value.into());
    }
    device
}

/// Reads a message the way its receivers do.
fn properties(body: &[u8]) -> BTreeMap<String, String> {
    let text = std::str::from_utf8(body).unwrap();
    text.split_terminator('\0')
        .filter_map(|entry| entry.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn hashes_are_those_in_messages_recorded_from_udevd_252() {
    assert_eq!(murmur2(b"block"), 0xf003_1db7);
    assert_eq!(murmur2(b"disk"), 0x7bcb_c5ee);
    assert_eq!(murmur2(b"mem"), 0xc365_cd83);
    assert_eq!(murmur2(b"tty"), 0x8afa_90c8);
    assert_eq!(murmur2(b""), 0);
    assert_eq!(tag_bloom("systemd"), 0x0200_0400_1080_0000);
}

#[test]
fn the_header_is_the_one_recorded_from_udevd_252() {
    let message = udev_message(UeventAction::Change, &disk(), None, 833);
    let recorded = b"libudev\0\xfe\xed\xca\xfe";
    assert_eq!(&message[..12], recorded);
    let word = |at: usize| u32::from_ne_bytes(message[at..at + 4].try_into().unwrap());
    assert_eq!(
        (word(12), word(16), word(20)),
        (40, 40, message.len() as u32 - 40)
    );
    let hashes = b"\xf0\x03\x1d\xb7{\xcb\xc5\xee\x02\x00\x04\x00\x10\x80\x00\x00";
    assert_eq!(&message[24..40], hashes);
}

#[test]
fn udevs_form_puts_the_standard_properties_right_and_keeps_the_rest() {
    let message = udev_message(UeventAction::Add, &disk(), Some(Path::new("/dev/disk0")), 0);
    let found = properties(&message[40..]);
    for (key, value) in [
        ("ACTION", "add"),
        ("DEVPATH", "/devices/virtual/block/loop0"),
        ("SUBSYSTEM", "block"),
        ("DEVTYPE", "disk"),
        ("DEVNAME", "/dev/disk0"),
        ("MAJOR", "7"),
        ("MINOR", "0"),
        ("SEQNUM", "1"),
        ("DEVLINKS", "/dev/disk/a /dev/disk/by-diskseq/1"),
        ("TAGS", ":systemd:"),
        ("CURRENT_TAGS", ":systemd:"),
        ("USEC_INITIALIZED", "1252137986"),
        ("DISKSEQ", "1"),
    ] {
        assert_eq!(found.get(key).map(String::as_str), Some(value), "{key}");
    }
}

#[test]
fn a_device_without_node_devtype_or_tags_has_zeros_and_no_such_properties() {
    let mut device = Device::new(SysPath::new("/sys/devices/x/1-1:1.0"));
    device.subsystem = Some("mem".into());
    let message = udev_message(UeventAction::Remove, &device, Some(Path::new("/dev/x")), 5);
    assert_eq!(&message[24..40], b"\xc3\x65\xcd\x83\0\0\0\0\0\0\0\0\0\0\0\0");
    let found = properties(&message[40..]);
    assert!(
        ["DEVNAME", "MAJOR", "DEVTYPE", "TAGS", "DEVLINKS"]
            .iter()
            .all(|key| !found.contains_key(*key))
    );
}

#[test]
fn the_kernels_form_begins_with_action_and_path_and_has_no_property_of_udev() {
    let message = kernel_message(UeventAction::Remove, &disk(), None, Some(9));
    assert!(message.starts_with(b"remove@/devices/virtual/block/loop0\0"));
    let found = properties(&message);
    assert_eq!(found.get("DEVNAME").map(String::as_str), Some("loop0"));
    assert_eq!(found.get("SEQNUM").map(String::as_str), Some("9"));
    assert_eq!(found.get("DISKSEQ").map(String::as_str), Some("1"));
    assert!(
        ["TAGS", "DEVLINKS", "USEC_INITIALIZED", "ID_PATH"]
            .iter()
            .all(|key| !found.contains_key(*key))
    );
}

#[test]
fn the_kernels_form_fits_the_kernels_buffer_with_the_essentials_in_it() {
    let mut device = disk();
    for number in 0..100 {
        device.properties.insert(format!("A{number}"), "x".repeat(50));
    }
    let message = kernel_message(UeventAction::Add, &device, None, None);
    assert!(
        message.len() + KERNEL_OVERHEAD <= KERNEL_BUFFER,
        "{} bytes",
        message.len()
    );
    assert!(properties(&message).contains_key("SUBSYSTEM"));
}

#[test]
fn the_kernels_form_has_a_property_as_long_as_there_is_room_for_it() {
    let with = |length: usize| {
        let mut device = disk();
        device.properties = BTreeMap::from([("LONG".to_owned(), "x".repeat(length))]);
        kernel_message(UeventAction::Add, &device, None, None)
    };
    // Beside the netlink header, and SEQNUM= with 20 digits and a NUL.
    let most = 2048 - 16 - 28;
    let room = most - with(0).len();
    assert_eq!(with(room).len(), most);
    assert!(!properties(&with(room + 1)).contains_key("LONG"));
}

/// As libudev's socket filters look for a tag.
#[test]
fn the_header_has_every_bit_of_every_tag() {
    let mut device = disk();
    device.tags = (0..40).map(|number| format!("tag{number}")).collect();
    let message = udev_message(UeventAction::Add, &device, None, 1);
    let bloom = u64::from_be_bytes(message[32..40].try_into().unwrap());
    let mut expected = 0;
    for tag in &device.tags {
        let hash = murmur2(tag.as_bytes());
        let bits: BTreeSet<u32> = [0, 6, 12, 18].iter().map(|shift| hash >> shift & 63).collect();
        let named: u64 = bits.iter().map(|bit| 1 << bit).sum();
        assert_eq!(tag_bloom(tag), named, "{tag}");
        expected |= named;
    }
    assert_eq!(bloom, expected);
}

proptest! {
    #[test]
    fn every_property_comes_back_as_it_was_or_not_at_all(
        given in proptest::collection::btree_map("[A-Z_=\0]{0,6}", "[a-z=\0 ]{0,8}", 0..12),
        link in "/dev/[a-z\0]{1,5}",
    ) {
        let mut device = disk();
        device.properties = given.clone();
        device.links = BTreeSet::from([PathBuf::from(link)]);
        let message = udev_message(UeventAction::Add, &device, None, 1);
        prop_assert!(message.ends_with(b"\0"));
        for entry in std::str::from_utf8(&message[40..]).unwrap().split_terminator('\0') {
            let (key, value) = entry.split_once('=').expect("each entry is KEY=VALUE");
            prop_assert!(ours(key) || given.get(key).map(String::as_str) == Some(value), "{}", entry);
        }
    }
}
