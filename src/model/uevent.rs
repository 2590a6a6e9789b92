//! The text of a uevent: how the kernel and how udevd tell of a device, as bytes for a netlink
//! socket.
//!
//! Must not know who sends the message, to whom, or in which namespace (`host::announcer`).
//! Formats: lib/kobject_uevent.c of the kernel; systemd's
//! src/libsystemd/sd-device/device-monitor.c, whose header is not documented elsewhere but has been
//! stable since udev 147.

pub mod nodeless;
pub mod received;
pub mod socket_filter;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use crate::model::device::Device;

/// What an event reports of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UeventAction {
    /// The device came.
    Add,
    /// Something about the device is different.
    Change,
    /// The device went.
    Remove,
}

impl fmt::Display for UeventAction {
    /// The word that the kernel uses (`kobject_actions` in lib/kobject_uevent.c).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Add => "add",
            Self::Change => "change",
            Self::Remove => "remove",
        })
    }
}

/// Whose voice the message has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UeventForm {
    /// The kernel's, on multicast group 1.
    Kernel,
    /// udevd's, on multicast group 2; what libudev's monitors listen to.
    Udev,
}

/// The magic of udevd's header, big endian in the message (UDEV_MONITOR_MAGIC).
const MAGIC: u32 = 0xfeed_cafe;

/// Bytes of udevd's header; the properties follow it (`monitor_netlink_header`).
const HEADER: u32 = 40;

/// What the kernel takes at most, text and the SEQNUM that it appends included (UEVENT_BUFFER_SIZE,
/// linux/kobject.h).
const KERNEL_BUFFER: usize = 2048;

/// Room for the netlink header (16 bytes) and the `SEQNUM=` that the kernel appends to what it is
/// given.
const KERNEL_OVERHEAD: usize = 16 + "SEQNUM=18446744073709551615\0".len();

/// How the names of properties begin that only udevd sets.
const UDEV_ONLY: [&str; 7] = [
    "CURRENT_TAGS",
    "DEVLINKS",
    "SYNTH_UUID",
    "TAGS",
    "UDEV_DATABASE_VERSION",
    "USEC_INITIALIZED",
    "ID_",
];

/// The kernel's message: `add@/devices/…`, then properties, each ended by a NUL.
///
/// `node` is the path of the device's node in the container where it differs from the host's; as
/// the kernel does, it is given without `/dev/`. Properties that only udevd sets are left out, and
/// so are those for which the kernel's buffer of 2048 bytes has no room, the essential ones coming
/// first. `seqnum` is left out when it is `None`: what is sent through the kernel gets the kernel's
/// own number.
pub fn kernel_message(
    action: UeventAction,
    device: &Device,
    node: Option<&Path>,
    seqnum: Option<u64>,
) -> Vec<u8> {
    let mut essential = essential_properties(action, device, seqnum);
    if let Some(path) = node_path(device, node) {
        let path = path.strip_prefix("/dev/").unwrap_or(path);
        essential.insert("DEVNAME".to_owned(), path.to_string_lossy().into_owned());
    }
    let mut message = Vec::with_capacity(512);
    push_entry(&mut message, &[action.to_string().as_str(), "@", devpath(device)]);
    push_properties(&mut message, &essential);
    for (key, value) in &device.properties {
        let room = message.len() + key.len() + value.len() + 2 + KERNEL_OVERHEAD <= KERNEL_BUFFER;
        let udevs = UDEV_ONLY.iter().any(|name| key.starts_with(name)) || key.starts_with('.');
        if room && !udevs && !ours(key) {
            push_property(&mut message, key, value);
        }
    }
    message
}

/// udevd's message: a header of 40 bytes, by which libudev's socket filters choose, then the
/// properties.
///
/// `node` is the path of the device's node in the container where it differs from the host's.
/// libudev drops messages whose SEQNUM is 0 (sd-device, `device_new_from_nulstr`), so a `seqnum` of
/// 0 is sent as 1.
pub fn udev_message(action: UeventAction, device: &Device, node: Option<&Path>, seqnum: u64) -> Vec<u8> {
    let mut properties: BTreeMap<String, String> = device
        .properties
        .iter()
        .filter(|(key, _)| !ours(key))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    properties.extend(essential_properties(action, device, Some(seqnum.max(1))));
    if let Some(path) = node_path(device, node) {
        properties.insert("DEVNAME".to_owned(), path.to_string_lossy().into_owned());
    }
    insert_links(&mut properties, &device.links);
    insert_tags(&mut properties, &device.tags);

    let mut body = Vec::with_capacity(1024);
    push_properties(&mut body, &properties);
    let mut message = header(device, body.len() as u32);
    message.extend_from_slice(&body);
    message
}

/// The header: prefix, magic, own size, where the properties are (host's byte order), then the
/// hashes (big endian).
fn header(device: &Device, properties_length: u32) -> Vec<u8> {
    let subsystem = device.subsystem.as_deref().unwrap_or_default();
    let devtype = device
        .devtype
        .as_deref()
        .map_or(0, |name| murmur2(name.as_bytes()));
    let bloom = device.tags.iter().fold(0, |bloom, tag| bloom | tag_bloom(tag));
    let mut header = Vec::with_capacity(HEADER as usize);
    header.extend_from_slice(b"libudev\0");
    header.extend_from_slice(&MAGIC.to_be_bytes());
    header.extend_from_slice(&HEADER.to_ne_bytes());
    header.extend_from_slice(&HEADER.to_ne_bytes());
    header.extend_from_slice(&properties_length.to_ne_bytes());
    header.extend_from_slice(&murmur2(subsystem.as_bytes()).to_be_bytes());
    header.extend_from_slice(&devtype.to_be_bytes());
    header.extend_from_slice(&bloom.to_be_bytes());
    header
}

/// Properties that we say ourselves, whatever the snapshot's properties say.
fn ours(key: &str) -> bool {
    matches!(
        key,
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
    )
}

/// What every uevent of the device says, without the node's path, which the two forms write
/// differently.
fn essential_properties(
    action: UeventAction,
    device: &Device,
    seqnum: Option<u64>,
) -> BTreeMap<String, String> {
    let mut properties = BTreeMap::new();
    let mut set = |key: &str, value: String| properties.insert(key.to_owned(), value);
    set("ACTION", action.to_string());
    set("DEVPATH", devpath(device).to_owned());
    if let Some(subsystem) = &device.subsystem {
        set("SUBSYSTEM", subsystem.clone());
    }
    if let Some(devtype) = &device.devtype {
        set("DEVTYPE", devtype.clone());
    }
    if let Some(node) = &device.node {
        set("MAJOR", node.num.major.to_string());
        set("MINOR", node.num.minor.to_string());
    }
    if let Some(seqnum) = seqnum {
        set("SEQNUM", seqnum.to_string());
    }
    properties
}

/// DEVLINKS: the links, separated by spaces (udev replaces white space in link names, so none holds
/// a space).
fn insert_links(properties: &mut BTreeMap<String, String>, links: &BTreeSet<PathBuf>) {
    if !links.is_empty() {
        let links: Vec<_> = links.iter().map(|link| link.to_string_lossy()).collect();
        properties.insert("DEVLINKS".to_owned(), links.join(" "));
    }
}

/// TAGS and CURRENT_TAGS: `:a:b:`.
fn insert_tags(properties: &mut BTreeMap<String, String>, tags: &BTreeSet<String>) {
    if !tags.is_empty() {
        let text = tags.iter().fold(String::from(":"), |text, tag| text + tag + ":");
        properties.insert("CURRENT_TAGS".to_owned(), text.clone());
        properties.insert("TAGS".to_owned(), text);
    }
}

/// DEVPATH: the place in sysfs without `/sys`.
fn devpath(device: &Device) -> &str {
    let path = device.syspath.as_str();
    path.strip_prefix("/sys").unwrap_or(path)
}

/// Where the container has the node; nothing for a device without one.
fn node_path<'a>(device: &'a Device, node: Option<&'a Path>) -> Option<&'a Path> {
    device.node.as_ref().map(|own| node.unwrap_or(&own.path))
}

fn push_properties(message: &mut Vec<u8>, properties: &BTreeMap<String, String>) {
    for (key, value) in properties {
        push_property(message, key, value);
    }
}

/// Appends `KEY=VALUE` and a NUL. A property that would break the framing (a NUL in it, or `=` in
/// its key) is left out.
fn push_property(message: &mut Vec<u8>, key: &str, value: &str) {
    if !key.is_empty() && !key.contains('=') {
        push_entry(message, &[key, "=", value]);
    }
}

fn push_entry(message: &mut Vec<u8>, parts: &[&str]) {
    if parts.iter().all(|part| !part.contains('\0')) {
        parts
            .iter()
            .for_each(|part| message.extend_from_slice(part.as_bytes()));
        message.push(0);
    }
}

/// MurmurHash2 (32 bit, seed 0) in the host's byte order: how libudev hashes subsystem, devtype and
/// tags.
fn murmur2(text: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = text.len() as u32;
    let mut words = text.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_ne_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        hash = rest
            .iter()
            .enumerate()
            .fold(hash, |hash, (i, byte)| hash ^ (u32::from(*byte) << (8 * i)));
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// The bits of one tag in the 64-bit Bloom filter: four groups of six bits of its hash name four
/// bits.
fn tag_bloom(tag: &str) -> u64 {
    let hash = murmur2(tag.as_bytes());
    [0, 6, 12, 18]
        .iter()
        .fold(0, |bloom, shift| bloom | 1 << ((hash >> shift) & 63))
}

#[cfg(test)]
mod tests {
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
    fn the_kernels_form_begins_with_action_and_place_and_holds_nothing_of_udevs() {
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
}
