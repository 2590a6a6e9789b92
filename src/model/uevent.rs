//! The text of a uevent: how the kernel and how udevd tell of a device, as bytes for a netlink
//! socket.
//!
//! Must not know who sends the message, to whom, or in which namespace (`host::announcer`).
//! Formats: lib/kobject_uevent.c of the kernel; systemd's
//! src/libsystemd/sd-device/device-monitor.c, whose header is not documented elsewhere but has been
//! stable since udev 147.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use udev_header::header;

use crate::model::device::Device;

pub mod facts;
pub(crate) mod nodeless;
pub mod received;
pub(crate) mod socket_filter;
mod udev_header;
pub(crate) mod unneeded;

/// What an event reports of a device (`kobject_actions` in lib/kobject_uevent.c).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UeventAction {
    /// The device came.
    Add,
    /// Something about the device is different.
    Change,
    /// The device went.
    Remove,
    /// The device has another path in sysfs now.
    Move,
    Online,
    Offline,
    /// A driver was bound to the device.
    Bind,
    /// Its driver was unbound.
    Unbind,
}

impl UeventAction {
    const ALL: [Self; 8] = [
        Self::Add,
        Self::Change,
        Self::Remove,
        Self::Move,
        Self::Online,
        Self::Offline,
        Self::Bind,
        Self::Unbind,
    ];

    /// The word that the kernel uses.
    fn word(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Change => "change",
            Self::Remove => "remove",
            Self::Move => "move",
            Self::Online => "online",
            Self::Offline => "offline",
            Self::Bind => "bind",
            Self::Unbind => "unbind",
        }
    }

    /// The action with this word.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.word() == word)
    }
}

impl fmt::Display for UeventAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
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

#[cfg(test)]
mod tests;
