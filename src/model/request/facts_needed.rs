//! Which facts of each device a monitor must read to evaluate all requests and rules.
//!
//! Must not know how they are read (`host::monitor`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::model::device::same_data::{BACKING_FILE, SLAVES};
use crate::model::request::Request;
use crate::model::request::entry::RequestEntry;
use crate::model::request::selector::Selector;
use crate::model::request::symlink::SymlinkRule;
use crate::model::uevent::unneeded::Unneeded;

/// The attribute with a USB device's descriptors. It is binary and may be long, so its snapshot
/// contains only the classes (`usb_classes`).
pub const DESCRIPTORS: &str = "descriptors";

/// The attribute with a HID device's report descriptor; its snapshot contains only the usages
/// (`hid_usages`).
pub const REPORT_DESCRIPTOR: &str = "report_descriptor";

/// The directory with an input device's bitmaps; its snapshot contains only the capabilities
/// (`input_capabilities`).
pub const CAPABILITIES: &str = "capabilities";

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FactsNeeded {
    /// Names of sysfs attributes, each with the only DEVTYPE for which it is read; `None`: for
    /// every device.
    pub attributes: BTreeMap<String, Option<String>>,
    /// Paths below `/dev` and `/sys` whose links are followed on the host: each is an alias of the
    /// device that it leads to.
    ///
    /// Those of `/sys` may contain `..`: they must be followed beneath `/sys`.
    pub followed_paths: BTreeSet<PathBuf>,
    /// Nodes that udev does not know.
    pub static_nodes: BTreeSet<PathBuf>,
    /// Whether udev's properties, tags and links are read for all devices. For selected devices
    /// they are always read.
    pub udev_of_all: bool,
    /// Whether events of devices that never have a node are needed (`uevent::nodeless`): a selector
    /// can match such a device, or may not match it.
    pub nodeless_events: bool,
    /// Whether events of loop, device-mapper, md and other virtual block devices are not needed: no
    /// request can select such a device, and no decision depends on one. The functions below do not
    /// know all decisions, so only the watcher sets this.
    pub no_virtual_blocks: bool,
}

impl FactsNeeded {
    /// The facts needed by a container's requests, its rules for links and the selectors of the
    /// policy.
    pub fn of_container<'r, 's>(
        entries: impl IntoIterator<Item = &'r RequestEntry>,
        rules: &[SymlinkRule],
        policy: impl IntoIterator<Item = &'s Selector>,
    ) -> Self {
        let mut needed = Self::of(entries.into_iter().map(|entry| &entry.request), rules);
        needed.merge(&Self::of_policy(policy));
        needed
    }

    /// The facts needed by these requests and rules for links.
    pub fn of<'r>(requests: impl IntoIterator<Item = &'r Request>, rules: &[SymlinkRule]) -> Self {
        let mut needed = Self::default();
        for request in requests {
            // A device without a node counts as a parent.
            needed.nodeless_events |= request.selectors().any(|selector| selector.parents() > 0);
            for term in request.selectors().flat_map(|selector| selector.terms()) {
                needed.add_selector(&term.selector);
                // If a link is the whole selector, it is followed on the host (`followed_paths`),
                // and udev's facts are read for the single device that it points to. If there are
                // other terms, the links of each device that these match must be known.
                let is_followed =
                    matches!(term.selector, Selector::DevNode(_)) && request.selector.terms().len() == 1;
                needed.udev_of_all |= term.selector.needs_udev() && !is_followed;
            }
            for selector in &request.options.only {
                needed.add_selector(selector);
                needed.udev_of_all |= selector.needs_udev();
            }
        }
        if !rules.is_empty() {
            needed.add_attribute("idVendor", Some("usb_device"));
            needed.add_attribute("idProduct", Some("usb_device"));
            needed.add_attribute("bInterfaceNumber", Some("usb_interface"));
        }
        needed
    }

    /// The facts needed by the policy: those in its rules, the descriptors by which the kernel
    /// recognizes hubs, keyboards and mice before udev does, and what block devices are made of.
    /// Does not require udev's facts of all devices: the policy judges only selected devices, and
    /// their facts are read on demand.
    fn of_policy<'a>(selectors: impl IntoIterator<Item = &'a Selector>) -> Self {
        let mut needed = Self::default();
        for selector in selectors {
            needed.add_selector(selector);
        }
        needed.add_attribute(DESCRIPTORS, Some("usb_device"));
        needed.add_attribute(REPORT_DESCRIPTOR, None);
        needed.add_attribute(CAPABILITIES, None);
        needed.add_attribute(BACKING_FILE, Some("disk"));
        needed.add_attribute(SLAVES, Some("disk"));
        needed
    }

    /// Adds the facts needed by other requests. An attribute that is needed for two kinds of
    /// devices is read for every device.
    pub fn merge(&mut self, other: &Self) {
        for (name, devtype) in &other.attributes {
            self.add_attribute(name, devtype.as_deref());
        }
        self.followed_paths.extend(other.followed_paths.iter().cloned());
        self.static_nodes.extend(other.static_nodes.iter().cloned());
        self.udev_of_all |= other.udev_of_all;
        self.nodeless_events |= other.nodeless_events;
        self.no_virtual_blocks &= other.no_virtual_blocks;
    }

    /// The events that are not needed.
    pub(crate) fn unneeded_events(&self) -> Unneeded {
        Unneeded {
            nodeless: !self.nodeless_events,
            virtual_blocks: self.no_virtual_blocks,
        }
    }

    fn add_selector(&mut self, selector: &Selector) {
        self.nodeless_events |= selector.can_match_nodeless();
        match selector {
            Selector::Usb { serial, .. } => {
                // Reading a serial number waits for the lock of the device, which may take time.
                let serial = serial.as_ref().map(|_| "serial");
                for attribute in ["idVendor", "idProduct"].into_iter().chain(serial) {
                    self.add_attribute(attribute, Some("usb_device"));
                }
            }
            Selector::Attr { name, .. } => self.add_attribute(name, None),
            Selector::DevNode(path) | Selector::SysPath(path) => {
                self.followed_paths.insert(path.clone());
            }
            Selector::Node(path) => {
                self.static_nodes.insert(path.clone());
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

    fn needed(requests: &str) -> FactsNeeded {
        FactsNeeded::of(&parse_requests(requests).unwrap(), &[])
    }

    fn attribute(name: &str, devtype: Option<&str>) -> (String, Option<String>) {
        (name.to_owned(), devtype.map(str::to_owned))
    }

    #[test]
    fn usb_ids_are_read_only_for_usb_devices() {
        let ids_alone = needed("usb:0403:6001");
        let facts = needed("usb:0403:6001:A");
        let of_devices = Some("usb_device");
        assert!(!ids_alone.attributes.contains_key("serial"));
        assert_eq!(
            facts.attributes,
            BTreeMap::from([
                attribute("idProduct", of_devices),
                attribute("idVendor", of_devices),
                attribute("serial", of_devices)
            ])
        );
        assert!(!facts.udev_of_all && facts.followed_paths.is_empty() && facts.static_nodes.is_empty());
    }

    #[test]
    fn a_named_attribute_is_read_for_every_device_in_any_order_of_requests() {
        let every = attribute("serial", None);
        assert_eq!(
            needed("attr:serial=A,usb:0403:6001:A").attributes.get(&every.0),
            Some(&every.1)
        );
        assert_eq!(
            needed("usb:0403:6001:A,attr:serial=A").attributes.get(&every.0),
            Some(&every.1)
        );
    }

    #[test]
    fn negated_terms_and_only_options_count_too() {
        let facts = needed("port:1-1&!devnode:/dev/a;only=node:/dev/b;only=attr:power/control=on");
        assert_eq!(facts.followed_paths, BTreeSet::from([PathBuf::from("/dev/a")]));
        assert_eq!(facts.static_nodes, BTreeSet::from([PathBuf::from("/dev/b")]));
        assert!(facts.udev_of_all && facts.attributes.contains_key("power/control"));
    }

    #[test]
    fn udevs_facts_of_all_devices_are_read_only_if_necessary() {
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
            assert_eq!(needed(requests).udev_of_all, needs, "{requests}");
        }
    }

    #[test]
    fn a_container_needs_the_facts_of_its_requests_and_of_the_policy() {
        use crate::model::request::entry::Origin;
        let request = "attr:serial=A;link=/dev/a".parse().unwrap();
        let entry = RequestEntry::new(Origin::Annotation, request);
        let rule: Selector = "attr:power/control=on".parse().unwrap();
        let facts = FactsNeeded::of_container([&entry], &[], [&rule]);
        assert!(facts.attributes.contains_key("serial") && facts.attributes.contains_key("power/control"));
    }

    #[test]
    fn events_of_devices_without_a_node_are_needed_if_a_selector_can_match_one() {
        for (request, is_needed) in [
            ("usb:0403:6001", false),
            ("syspath:/sys/devices/pci0000:00/0000:00:14.0/usb1/1-1.4", false),
            ("syspath:/sys/devices/pci0000:00/0000:00:14.0/usb1", false),
            ("syspath:/sys/class/tty/ttyUSB0", false),
            ("syspath:/sys/devices/virtual/x/eth0", true),
            ("syspath:/sys/devices/virtual/x/usb", true),
            ("syspath:/sys/devices/virtual/x/usba", true),
            ("syspath:/sys/devices/virtual/x/a-1", true),
            ("syspath:/sys/devices/virtual/x/1-a", true),
            ("syspath:/sys/devices/virtual/x/1-", true),
            ("syspath:/sys/class/net/eth0", true),
            ("attr:address=*", true),
            ("parent-of:subsystem:tty", true),
        ] {
            let unneeded = needed(request).unneeded_events();
            assert_eq!(!unneeded.nodeless, is_needed, "{request}");
        }
    }

    #[test]
    fn a_policy_needs_facts_about_hubs_inputs_and_stacked_disks_and_those_in_its_rules() {
        let rules: Vec<Selector> = ["attr:power/control=on", "node:/dev/b", "tag:seat"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        let facts = FactsNeeded::of_policy(&rules);
        let names: Vec<&str> = facts.attributes.keys().map(String::as_str).collect();
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
        assert_eq!(facts.static_nodes, BTreeSet::from([PathBuf::from("/dev/b")]));
        assert!(
            !facts.udev_of_all,
            "udev's facts are read of each selected device"
        );
    }

    #[test]
    fn merged_facts_include_udevs_if_either_side_needs_them() {
        for (one, other) in [
            ("tag:seat", "usb:0403"),
            ("usb:0403", "tag:seat"),
            ("tag:a", "tag:b"),
        ] {
            let mut both = needed(one);
            both.merge(&needed(other));
            assert!(both.udev_of_all, "{one} {other}");
        }
    }

    #[test]
    fn events_of_devices_without_nodes_are_needed_where_a_selector_can_match_them() {
        for (requests, needs) in [
            (
                "usb:0403:6001:A, port:1-1, pci:0000:02:00.0, driver:ftdi_sio",
                false,
            ),
            (
                "devnode:/dev/ttyUSB0, glob:/dev/tty*, regex:ttyUSB.*, node:/dev/x",
                false,
            ),
            (
                "syspath:/sys/bus/usb/devices/1-1.4, syspath:/sys/class/tty/ttyUSB0",
                false,
            ),
            ("syspath:/sys/devices/pci0000:00/0000:00:14.0/usb1/1-1", false),
            ("subsystem:tty", false),
            ("subsystem:net", true),
            ("parent-of:subsystem:macvtap", true),
            ("subsystem:tty&!subsystem:bdi", true),
            ("port:1-1;only=subsystem:queues", true),
            ("syspath:/sys/class/net/eth0", true),
            ("syspath:/sys/devices/virtual/net/macvtap0", true),
            ("syspath:/sys/devices/pci0/usb1/1-1/1-1:1.0/net/usb0", true),
            ("syspath:/sys/class/tty/ttyUSB0/../../net/a", true),
            ("tag:seat", true),
            ("property:ID_BUS=usb", true),
            ("attr:address=*", true),
        ] {
            assert_eq!(needed(requests).nodeless_events, needs, "{requests}");
        }
        let rules = ["attr:address=*".parse().unwrap()];
        assert!(FactsNeeded::of_policy(&rules).nodeless_events);
        let mut both = needed("port:1-1");
        both.merge(&needed("tag:seat"));
        assert!(both.nodeless_events);
    }

    #[test]
    fn events_of_virtual_block_devices_are_left_out_only_if_both_sides_can_do_without() {
        let facts = |no_virtual_blocks| FactsNeeded {
            no_virtual_blocks,
            ..FactsNeeded::default()
        };
        for (left, right) in [(true, true), (true, false), (false, true), (false, false)] {
            let mut both = facts(left);
            both.merge(&facts(right));
            assert_eq!(both.no_virtual_blocks, left && right);
            assert_eq!(both.unneeded_events().virtual_blocks, left && right);
        }
        let of_container = FactsNeeded::of_container([], &[], []);
        assert!(!of_container.no_virtual_blocks, "only the watcher knows");
    }

    #[test]
    fn merged_facts_include_those_of_both_sides() {
        let rules = ["usb:0403:6001:00=/dev/gps".parse().unwrap()];
        let (left, right) = (
            needed("attr:idVendor=0403,syspath:/sys/a"),
            FactsNeeded::of([], &rules),
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
        assert!(!both.udev_of_all && both.followed_paths.contains(&PathBuf::from("/sys/a")));
    }
}
