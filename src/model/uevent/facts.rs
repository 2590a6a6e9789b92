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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::device::Device;
    use crate::model::device::recorded::loop_over;
    use crate::model::uevent::{UeventAction, kernel_message, udev_message};

    fn disk() -> Device {
        let mut device = loop_over(1, "/srv/x");
        device.driver = Some("sd".into());
        device.properties.insert("DRIVER".into(), "sd".into());
        device.links.insert("/dev/disk/a".into());
        device
    }

    fn with_facts<T>(form: UeventForm, of: &Device, look: impl FnOnce(UeventFacts<'_>) -> T) -> T {
        let message = match form {
            UeventForm::Kernel => kernel_message(UeventAction::Change, of, None, Some(9)),
            UeventForm::Udev => udev_message(UeventAction::Change, of, None, 9),
        };
        let message = ReceivedUevent::parse(form, &message).unwrap();
        look(UeventFacts::of(form, message).unwrap())
    }

    #[test]
    fn the_facts_are_the_same_in_both_forms_but_for_the_links() {
        for (form, links) in [(UeventForm::Kernel, ""), (UeventForm::Udev, "/dev/disk/a")] {
            with_facts(form, &disk(), |facts| {
                assert_eq!(facts.devpath, "/devices/virtual/block/loop1");
                assert_eq!((facts.name(), facts.action), ("loop1", "change"));
                assert_eq!(
                    (facts.subsystem, facts.devtype, facts.driver),
                    ("block", "disk", "sd")
                );
                assert_eq!((facts.node, facts.number, facts.seqnum), ("loop1", ("7", "1"), 9));
                assert_eq!(facts.links, links);
            });
        }
    }

    #[test]
    fn a_path_is_that_of_the_node_or_of_a_link() {
        let is = |text: &'static str| move |path: &Path| path == Path::new(text);
        for form in [UeventForm::Kernel, UeventForm::Udev] {
            with_facts(form, &disk(), |facts| {
                assert!(facts.has_path(is("/dev/loop1")) && !facts.has_path(is("/dev/loop0")));
                assert_eq!(facts.has_path(is("/dev/disk/a")), form == UeventForm::Udev);
                assert!(facts.is_node_at(Path::new("/dev/loop1")));
                for other in ["/dev/loop0", "/dev", "/opt/loop1", "loop1"] {
                    assert!(!facts.is_node_at(Path::new(other)), "{other}");
                }
            });
        }
        let mut nodeless = disk();
        nodeless.node = None;
        with_facts(UeventForm::Kernel, &nodeless, |facts| {
            assert!(!facts.has_path(|_| true) && !facts.is_node_at(Path::new("/dev")));
        });
    }
}
