//! What a monitor must read of each device, so that all that was asked can be decided.
//!
//! Must not know how it is read (`host::monitor`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::model::device::same_data::{BACKING_FILE, SLAVES};
use crate::model::request::Request;
use crate::model::request::selector::Selector;
use crate::model::request::symlink::SymlinkRule;

/// The attribute that holds a USB device's descriptors. It is no text, and may be long: its snapshot has only their
/// classes (`usb_classes`).
pub const DESCRIPTORS: &str = "descriptors";

/// The attribute that holds a HID device's report descriptor: its snapshot has only its usages (`hid_usages`).
pub const REPORT_DESCRIPTOR: &str = "report_descriptor";

/// The directory that holds an input device's bitmaps: its snapshot has only what they come to (`input_capabilities`).
pub const CAPABILITIES: &str = "capabilities";

/// The facts that the requests look at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FactsNeeded {
    /// sysfs attributes by name, and the only DEVTYPE that each is wanted of; `None`: of every device.
    pub attributes: BTreeMap<String, Option<String>>,
    /// Paths of `/dev` and `/sys` whose links are to be followed on the host; where they lead is a device's
    /// alias.
    ///
    /// Those of `/sys` may hold `..`: who follows them must stay beneath `/sys`.
    pub paths: BTreeSet<PathBuf>,
    /// Nodes that udev does not know of.
    pub nodes: BTreeSet<PathBuf>,
    /// Whether udev's properties, tags or links of all devices are needed. Those of the devices that are
    /// selected are read in any case.
    pub udev: bool,
}

impl FactsNeeded {
    /// All that these requests and rules look at.
    pub fn of(requests: &[Request], rules: &[SymlinkRule]) -> Self {
        let mut wanted = Self::default();
        for request in requests {
            for term in request.selectors().flat_map(|selector| selector.terms()) {
                wanted.add_selector(&term.selector);
                // A link that is the whole selector is followed on the host (`paths`), and udev's facts are read for the one
                // device that it points to. Beside other terms, the link must be known for each device that these match.
                let is_followed =
                    matches!(term.selector, Selector::DevNode(_)) && request.selector.terms().len() == 1;
                wanted.udev |= term.selector.needs_udev() && !is_followed;
            }
            for selector in &request.options.only {
                wanted.add_selector(selector);
                wanted.udev |= selector.needs_udev();
            }
        }
        if !rules.is_empty() {
            wanted.add_attribute("idVendor", Some("usb_device"));
            wanted.add_attribute("idProduct", Some("usb_device"));
            wanted.add_attribute("bInterfaceNumber", Some("usb_interface"));
        }
        wanted
    }

    /// All that a policy looks at: what its rules name, which USB, HID and input devices are hubs, keyboards or mice, which
    /// the kernel tells before udev does, and what block devices are made of. udev's facts are read of each device of
    /// which they are missing: judged are only the few that are selected.
    pub fn of_policy<'a>(selectors: impl IntoIterator<Item = &'a Selector>) -> Self {
        let mut wanted = Self::default();
        for selector in selectors {
            wanted.add_selector(selector);
        }
        wanted.add_attribute(DESCRIPTORS, Some("usb_device"));
        wanted.add_attribute(REPORT_DESCRIPTOR, None);
        wanted.add_attribute(CAPABILITIES, None);
        wanted.add_attribute(BACKING_FILE, Some("disk"));
        wanted.add_attribute(SLAVES, Some("disk"));
        wanted
    }

    /// Adds what others want. An attribute that is wanted of two kinds of devices is wanted of every device.
    pub fn merge(&mut self, other: &FactsNeeded) {
        for (name, devtype) in &other.attributes {
            self.add_attribute(name, devtype.as_deref());
        }
        self.paths.extend(other.paths.iter().cloned());
        self.nodes.extend(other.nodes.iter().cloned());
        self.udev |= other.udev;
    }

    fn add_selector(&mut self, selector: &Selector) {
        match selector {
            Selector::Usb { serial, .. } => {
                // The kernel shows a serial number only to who gets hold of the device, which may take a while.
                let serial = serial.as_ref().map(|_| "serial");
                for attribute in ["idVendor", "idProduct"].into_iter().chain(serial) {
                    self.add_attribute(attribute, Some("usb_device"));
                }
            }
            Selector::Attr { name, .. } => self.add_attribute(name, None),
            Selector::DevNode(path) | Selector::SysPath(path) => {
                self.paths.insert(path.clone());
            }
            Selector::Node(path) => {
                self.nodes.insert(path.clone());
            }
            _ => {}
        }
    }

    fn add_attribute(&mut self, name: &str, devtype: Option<&str>) {
        self.attributes
            .entry(name.to_owned())
            .and_modify(|known| {
                if known.as_deref() != devtype {
                    *known = None;
                }
            })
            .or_insert_with(|| devtype.map(str::to_owned));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::request::parse_requests;

    fn wanted(requests: &str) -> FactsNeeded {
        FactsNeeded::of(&parse_requests(requests).unwrap(), &[])
    }

    fn attribute(name: &str, devtype: Option<&str>) -> (String, Option<String>) {
        (name.to_owned(), devtype.map(str::to_owned))
    }

    #[test]
    fn usb_ids_are_read_of_usb_devices_only() {
        let ids_alone = wanted("usb:0403:6001");
        let wanted = wanted("usb:0403:6001:A");
        let of_devices = Some("usb_device");
        assert!(!ids_alone.attributes.contains_key("serial"));
        assert_eq!(
            wanted.attributes,
            BTreeMap::from([
                attribute("idProduct", of_devices),
                attribute("idVendor", of_devices),
                attribute("serial", of_devices)
            ])
        );
        assert!(!wanted.udev && wanted.paths.is_empty() && wanted.nodes.is_empty());
    }

    #[test]
    fn an_attribute_that_is_named_is_read_of_every_device_whatever_the_order() {
        let every = attribute("serial", None);
        assert_eq!(
            wanted("attr:serial=A,usb:0403:6001:A").attributes.get(&every.0),
            Some(&every.1)
        );
        assert_eq!(
            wanted("usb:0403:6001:A,attr:serial=A").attributes.get(&every.0),
            Some(&every.1)
        );
    }

    #[test]
    fn negated_terms_and_only_count_too() {
        let wanted = wanted("port:1-1&!devnode:/dev/a;only=node:/dev/b;only=attr:power/control=on");
        assert_eq!(wanted.paths, BTreeSet::from([PathBuf::from("/dev/a")]));
        assert_eq!(wanted.nodes, BTreeSet::from([PathBuf::from("/dev/b")]));
        assert!(wanted.udev && wanted.attributes.contains_key("power/control"));
    }

    #[test]
    fn udevs_facts_of_all_devices_are_read_only_where_nothing_less_will_do() {
        for (requests, needs) in [
            (
                "usb:0403:6001, devnode:/dev/serial/by-id/x, syspath:/sys/class/tty/ttyUSB0",
                false,
            ),
            ("port:1-1&!devnode:/dev/a", true),
            ("subsystem:tty&devnode:/dev/a", true),
            ("port:1-1;only=devnode:/dev/a", true),
            ("tag:seat", true),
            ("property:ID_BUS=usb", true),
            ("glob:/dev/ttyUSB*", true),
        ] {
            assert_eq!(wanted(requests).udev, needs, "{requests}");
        }
    }

    #[test]
    fn a_policy_wants_what_tells_hubs_inputs_and_stacked_disks_and_what_its_rules_name() {
        let rules: Vec<Selector> = ["attr:power/control=on", "node:/dev/b", "tag:seat"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        let wanted = FactsNeeded::of_policy(&rules);
        let names: Vec<&str> = wanted.attributes.keys().map(String::as_str).collect();
        let mut expected = [
            DESCRIPTORS,
            REPORT_DESCRIPTOR,
            CAPABILITIES,
            BACKING_FILE,
            SLAVES,
            "power/control",
        ];
        expected.sort_unstable();
        assert_eq!(names, expected);
        assert_eq!(wanted.nodes, BTreeSet::from([PathBuf::from("/dev/b")]));
        assert!(!wanted.udev, "udev's facts are read of each selected device");
    }

    #[test]
    fn who_wants_udevs_facts_gets_them_whoever_else_does_not() {
        for (one, other) in [
            ("tag:seat", "usb:0403"),
            ("usb:0403", "tag:seat"),
            ("tag:a", "tag:b"),
        ] {
            let mut both = wanted(one);
            both.merge(&wanted(other));
            assert!(both.udev, "{one} {other}");
        }
    }

    #[test]
    fn merging_is_wanting_both() {
        let rules = ["usb:0403:6001:00=/dev/gps".parse().unwrap()];
        let (left, right) = (
            wanted("attr:idVendor=0403,syspath:/sys/a"),
            FactsNeeded::of(&[], &rules),
        );
        let mut both = left.clone();
        both.merge(&right);
        let mut other_way = right.clone();
        other_way.merge(&left);
        assert_eq!(both, other_way);
        assert_eq!(both.attributes.get("idVendor"), Some(&None));
        assert_eq!(
            both.attributes.get("bInterfaceNumber"),
            Some(&Some("usb_interface".to_owned()))
        );
        assert!(!both.udev && both.paths.contains(&PathBuf::from("/sys/a")));
    }
}
