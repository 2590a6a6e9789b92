//! What a uevent shows of its device without any look at the host.

use std::path::Path;

use super::UeventForm;
use super::received::ReceivedUevent;

/// Judges events by their messages alone.
pub trait JudgeUevents {
    /// Whether an event must be reported.
    fn concerns(&mut self, facts: &UeventFacts<'_>) -> bool;

    /// Whether a message of udevd's means that a link may have moved that matters.
    fn may_move_links(&self, facts: &UeventFacts<'_>) -> bool;
}

/// The properties by which a message is judged, read in one pass. Values that are not UTF-8 are
/// empty, except for the path: then there are no facts.
#[derive(Debug, Clone, Copy)]
pub struct UeventFacts<'a> {
    pub form: UeventForm,
    pub message: ReceivedUevent<'a>,
    /// The path in sysfs without `/sys`; always below `/devices/`.
    pub devpath: &'a str,
    pub action: &'a str,
    pub subsystem: &'a str,
    pub devtype: &'a str,
    /// Empty if no driver is bound.
    pub driver: &'a str,
    /// The node's path below `/dev`; empty if the device has no node.
    pub node: &'a str,
    /// Major and minor number; empty if the device has no node.
    pub number: (&'a str, &'a str),
    /// DEVLINKS of udevd's form.
    pub links: &'a str,
    pub seqnum: u64,
}

impl<'a> UeventFacts<'a> {
    /// The facts of a message; `None` if it is not about a device. (Modules, drivers and caches
    /// send uevents, too.)
    pub fn of(form: UeventForm, message: ReceivedUevent<'a>) -> Option<Self> {
        let mut facts = Self {
            form,
            message,
            devpath: "",
            action: "",
            subsystem: "",
            devtype: "",
            driver: "",
            node: "",
            number: ("", ""),
            links: "",
            seqnum: 0,
        };
        for (key, value) in message.properties() {
            facts.take(key, std::str::from_utf8(value).unwrap_or_default());
        }
        let below = facts.devpath.strip_prefix("/devices/")?;
        let is_plain = below.split('/').all(|name| !matches!(name, "" | "." | ".."));
        is_plain.then_some(facts)
    }

    fn take(&mut self, key: &[u8], value: &'a str) {
        match key {
            b"DEVPATH" => self.devpath = value,
            b"ACTION" => self.action = value,
            b"SUBSYSTEM" => self.subsystem = value,
            b"DEVTYPE" => self.devtype = value,
            b"DRIVER" => self.driver = value,
            // The kernel names nodes relative to /dev, udevd absolutely.
            b"DEVNAME" => self.node = value.strip_prefix("/dev/").unwrap_or(value),
            b"MAJOR" => self.number.0 = value,
            b"MINOR" => self.number.1 = value,
            b"DEVLINKS" => self.links = value,
            b"SEQNUM" => self.seqnum = value.trim().parse().unwrap_or_default(),
            _ => {}
        }
    }

    /// The kernel's name of the device: the last component of its path.
    pub fn name(&self) -> &'a str {
        self.devpath.rsplit('/').next().unwrap_or_default()
    }

    /// Whether the device's node, or one of its links, is at a path for which this is true. It gets
    /// absolute paths.
    pub fn has_path(&self, is_it: impl Fn(&Path) -> bool) -> bool {
        let is_node = || !self.node.is_empty() && is_it(&Path::new("/dev").join(self.node));
        let mut links = self.links.split_whitespace();
        is_node() || links.any(|link| is_it(Path::new(link)))
    }

    /// Whether the device's node is at this path.
    pub fn is_node_at(&self, path: &Path) -> bool {
        !self.node.is_empty()
            && path
                .strip_prefix("/dev")
                .is_ok_and(|below| below == Path::new(self.node))
    }
}
