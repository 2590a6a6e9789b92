//! The host's devices as a tree for display: buses, hubs, devices and nodes with their holders,
//! sorted naturally (2 before 10).
//!
//! Must not know how a tree is drawn.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::Serialize;

use crate::model::device::{DevNode, Device, SysPath, usb_hub};
use crate::model::oci::engine::printable;

/// The sysfs attributes that the tree shows, for
/// [`crate::model::request::facts_needed::FactsNeeded`].
pub const ATTRIBUTES: [&str; 6] = [
    "manufacturer",
    "product",
    "serial",
    "idVendor",
    "idProduct",
    "name",
];

/// A container that has a device attached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// The name of the container, for display.
    pub container: String,
    /// The path of the node in the container.
    pub path: PathBuf,
}

/// The holders of each device.
pub type Holders = BTreeMap<SysPath, Vec<Holder>>;

/// A line of the tree, with the lines below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Branch {
    /// The kernel's name; for a bus, the directory below `/sys/devices`.
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syspath: Option<SysPath>,
    /// Maker and model, as far as known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// `VID:PID` of a USB device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The serial number of a USB device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Of which hub it is the other half, such as `USB 3 half of 1-1.4`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub half: Option<String>,
    /// The driver of this device, or else of the nearest device between it and the line above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<DevNode>,
    /// The containers that have the device attached.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub holders: Vec<Holder>,
    /// How many nodes of this bus are hidden.
    #[serde(skip_serializing_if = "is_zero")]
    pub hidden: usize,
    /// The lines below this one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub branches: Vec<Branch>,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// The tree of these devices, with a bus at each root. Shows each device with a node, each USB
/// device, and the devices above them. Of the kernel's virtual devices (`/sys/devices/virtual`),
/// shows only those with a holder, unless `all` is true.
pub fn tree(devices: &[Device], holders: &Holders, all: bool) -> Vec<Branch> {
    let known: BTreeMap<&SysPath, &Device> = devices.iter().map(|device| (&device.syspath, device)).collect();
    let shown = shown(&known, holders, all);
    let mut below: BTreeMap<Option<SysPath>, Vec<&Device>> = BTreeMap::new();
    for path in &shown {
        let parent = path.ancestors().find(|above| shown.contains(above));
        below.entry(parent).or_default().extend(known.get(path).copied());
    }
    let mut buses: BTreeMap<&str, Branch> = BTreeMap::new();
    for device in devices {
        let bus = buses
            .entry(bus(&device.syspath))
            .or_insert_with_key(|name| Branch::bus(name));
        bus.hidden += usize::from(device.node.is_some() && !shown.contains(&device.syspath));
    }
    for device in below.get(&None).into_iter().flatten() {
        if let Some(bus) = buses.get_mut(bus(&device.syspath)) {
            bus.branches.push(branch(device, None, &known, &below, holders));
        }
    }
    let mut buses: Vec<Branch> = buses
        .into_values()
        .filter(|bus| bus.hidden > 0 || !bus.branches.is_empty())
        .collect();
    for bus in &mut buses {
        sort(&mut bus.branches);
    }
    sort(&mut buses);
    buses
}

/// The devices that get their own line.
fn shown(known: &BTreeMap<&SysPath, &Device>, holders: &Holders, all: bool) -> BTreeSet<SysPath> {
    let mut shown: BTreeSet<SysPath> = known
        .values()
        .filter(|device| {
            let path = &device.syspath;
            let is_usb = device.devtype.as_deref() == Some("usb_device");
            let is_wanted = all || holders.contains_key(path) || bus(path) != "virtual";
            is_usb || (device.node.is_some() && is_wanted)
        })
        .map(|device| device.syspath.clone())
        .collect();
    // Show the innermost controller; bridges between controllers add no information.
    let controllers: Vec<SysPath> = shown
        .iter()
        .filter_map(|path| {
            let of_pci = |above: &SysPath| {
                known
                    .get(above)
                    .is_some_and(|device| device.subsystem.as_deref() == Some("pci"))
            };
            path.ancestors().find(of_pci)
        })
        .collect();
    shown.extend(controllers);
    shown
}

/// The directory below `/sys/devices` that contains a device.
fn bus(path: &SysPath) -> &str {
    let below = path.as_str().strip_prefix("/sys/devices/").unwrap_or_default();
    below.split('/').next().unwrap_or_default()
}

impl Branch {
    fn bus(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            syspath: None,
            description: String::new(),
            id: None,
            serial: None,
            half: None,
            driver: None,
            node: None,
            holders: Vec::new(),
            hidden: 0,
            branches: Vec::new(),
        }
    }
}

fn branch(
    device: &Device,
    above: Option<&SysPath>,
    known: &BTreeMap<&SysPath, &Device>,
    below: &BTreeMap<Option<SysPath>, Vec<&Device>>,
    holders: &Holders,
) -> Branch {
    let path = &device.syspath;
    let between = std::iter::once(path.clone()).chain(path.ancestors().take_while(|up| Some(up) != above));
    let driver = between.filter_map(|up| known.get(&up)?.driver.clone()).next();
    let is_usb = device.devtype.as_deref() == Some("usb_device");
    let usb = |name: &str| device.attribute(name).filter(|_| is_usb).map(printable);
    let id = usb("idVendor").zip(usb("idProduct"));
    let mut branches: Vec<Branch> = below
        .get(&Some(path.clone()))
        .into_iter()
        .flatten()
        .map(|child| branch(child, Some(path), known, below, holders))
        .collect();
    sort(&mut branches);
    Branch {
        name: printable(path.name()),
        syspath: Some(path.clone()),
        description: description(device, known),
        id: id.map(|(vendor, product)| format!("{vendor}:{product}")),
        // The "serial number" of a root hub is the address of its controller, which the line above
        // shows.
        serial: usb("serial")
            .filter(|serial| !serial.is_empty() && above.is_none_or(|above| serial != above.name())),
        half: device
            .companion
            .as_ref()
            .map(|other| format!("{} of {}", usb_hub::half(device), printable(other.name()))),
        // Every USB device has the driver `usb`; the lines below show the drivers of its functions.
        driver: driver
            .filter(|driver| !is_usb || driver != "usb")
            .map(|driver| printable(&driver)),
        node: device.node.clone(),
        holders: holders.get(path).cloned().unwrap_or_default(),
        hidden: 0,
        branches,
    }
}

/// The vendor id of the root hubs (usb.ids).
const LINUX_FOUNDATION: &str = "1d6b";

/// Vendor and model: from the USB device itself, else from udev's database, else the name that the
/// kernel gives to an input or media device.
fn description(device: &Device, known: &BTreeMap<&SysPath, &Device>) -> String {
    let attribute = |name: &str| device.attribute(name).unwrap_or_default();
    let property = |key: &str| device.properties.get(key).map(String::as_str).unwrap_or_default();
    let its_own = || match attribute("idVendor") {
        // The "manufacturer" of a root hub is the kernel with its version.
        LINUX_FOUNDATION => printable(attribute("product")),
        _ => join(attribute("manufacturer"), attribute("product")),
    };
    let database = || {
        join(
            property("ID_VENDOR_FROM_DATABASE"),
            property("ID_MODEL_FROM_DATABASE"),
        )
    };
    let is_disk = device.subsystem.as_deref() == Some("block");
    let disk = || {
        let what = property(if device.devtype.as_deref() == Some("partition") {
            "ID_FS_LABEL"
        } else {
            "ID_MODEL"
        });
        if is_disk {
            printable(&what.replace('_', " "))
        } else {
            String::new()
        }
    };
    let input = || {
        let parent = device
            .syspath
            .parent()
            .and_then(|above| known.get(&above).copied());
        let named = [Some(device), parent].into_iter().flatten();
        let mut names = named.filter_map(|device| device.attribute("name"));
        names.next().map(printable).unwrap_or_default()
    };
    match device.devtype.as_deref() {
        Some("usb_device") => first([its_own(), database()]),
        _ if device.subsystem.as_deref() == Some("pci") => database(),
        _ => first([disk(), input()]),
    }
}

fn first<const N: usize>(texts: [String; N]) -> String {
    texts
        .into_iter()
        .find(|text| !text.is_empty())
        .unwrap_or_default()
}

/// Vendor and model, without repeating the vendor.
fn join(maker: &str, model: &str) -> String {
    let (maker, model) = (printable(maker), printable(model));
    if model.starts_with(&maker) || maker.is_empty() {
        model
    } else {
        format!("{maker} {model}").trim_end().to_owned()
    }
}

/// Natural order: `1-1.2` before `1-1.10`; virtual devices at the end.
fn sort(branches: &mut [Branch]) {
    let is_last = |branch: &Branch| branch.syspath.is_none() && branch.name == "virtual";
    branches.sort_by(|a, b| {
        is_last(a)
            .cmp(&is_last(b))
            .then_with(|| natural(&a.name, &b.name))
    });
}

/// Compares numbers by their value and everything else by characters.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let (number_a, rest_a) = number(a);
        let (number_b, rest_b) = number(b);
        let order = match (number_a, number_b) {
            (Some(a), Some(b)) => a.cmp(&b),
            _ => a.chars().next().cmp(&b.chars().next()),
        };
        if order != Ordering::Equal || a.is_empty() {
            return order;
        }
        (a, b) = match (number_a, number_b) {
            (Some(_), Some(_)) => (rest_a, rest_b),
            _ => (without_first(a), without_first(b)),
        };
    }
}

/// The number at the beginning of a text, and the rest. Eighteen digits fit.
fn number(text: &str) -> (Option<u64>, &str) {
    let digits = text.bytes().take(18).take_while(u8::is_ascii_digit).count();
    (text[..digits].parse().ok(), &text[digits..])
}

fn without_first(text: &str) -> &str {
    let mut letters = text.chars();
    letters.next();
    letters.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::device::recorded;
    use proptest::prelude::*;

    /// The tree as text: one indented line per device, with node and holders.
    fn text(branches: &[Branch], depth: usize) -> String {
        let mut all = String::new();
        for branch in branches {
            let node = branch
                .node
                .as_ref()
                .map(|node| format!(" {}", node.path.display()));
            let holders: String = branch
                .holders
                .iter()
                .map(|holder| format!(" <{}>", holder.container))
                .collect();
            let line = format!(
                "{}{}{}{holders}\n",
                "  ".repeat(depth),
                branch.name,
                node.unwrap_or_default()
            );
            all.push_str(&line);
            all.push_str(&text(&branch.branches, depth + 1));
        }
        all
    }

    #[test]
    fn adapters_are_below_their_hub_and_show_their_holders() {
        let mut devices = recorded::hub_with_two_adapters();
        devices.push(recorded::virtual_device("tty", "tty7", "/dev/tty7", 4, 7));
        let tty = recorded::with_node(&devices, "/dev/ttyUSB1").syspath.clone();
        let holder = Holder {
            container: "lab".into(),
            path: "/dev/board".into(),
        };
        let shown = tree(&devices, &[(tty, vec![holder])].into(), false);
        assert_eq!(
            text(&shown, 0),
            "\
pci0000:00
  0000:00:14.0
    usb1 /dev/bus/usb/001/001
      1-1 /dev/bus/usb/001/002
        1-1.1 /dev/bus/usb/001/003
          ttyUSB0 /dev/ttyUSB0
        1-1.2 /dev/bus/usb/001/004
          ttyUSB1 /dev/ttyUSB1 <lab>
    usb2 /dev/bus/usb/002/001
virtual
"
        );
        assert_eq!(shown[1].hidden, 1);
        let hub = &shown[0].branches[0].branches[0].branches[0];
        let adapter = &hub.branches[0];
        assert_eq!(adapter.id.as_deref(), Some("0403:6001"));
        assert_eq!(adapter.branches[0].driver.as_deref(), Some("ftdi_sio"));
    }

    #[test]
    fn each_half_of_a_usb3_hub_names_the_other() {
        let shown = tree(&recorded::usb3_hub(), &Holders::new(), false);
        let halves = shown[0].branches[0].branches.iter().map(|bus| &bus.branches[0]);
        let halves: Vec<Option<&str>> = halves.map(|hub| hub.half.as_deref()).collect();
        assert_eq!(halves, [Some("USB 2 half of 2-1"), Some("USB 3 half of 1-1")]);
        let adapter = &shown[0].branches[0].branches[0].branches[0].branches[0];
        assert_eq!((adapter.name.as_str(), adapter.half.as_deref()), ("1-1.1", None));
    }

    #[test]
    fn all_shows_virtual_devices_too() {
        let devices = [recorded::virtual_device("tty", "tty7", "/dev/tty7", 4, 7)];
        let shown = tree(&devices, &Holders::new(), true);
        assert_eq!(text(&shown, 0), "virtual\n  tty7 /dev/tty7\n");
        assert_eq!(shown[0].hidden, 0);
    }

    #[test]
    fn a_description_names_maker_and_model_without_repeating_the_maker() {
        assert_eq!(join("FTDI", "FT232R USB UART"), "FTDI FT232R USB UART");
        assert_eq!(join("FTDI", "FTDI cable"), "FTDI cable");
        assert_eq!(join("", "cable"), "cable");
        assert_eq!(join("FTDI", ""), "FTDI");
        assert_eq!(join("\u{1b}[2J", "x"), "[2J x");
    }

    /// A device with a few facts.
    fn device(path: &str, subsystem: &str, facts: &[(&str, &str)]) -> Device {
        let mut device = Device::new(SysPath::new(path));
        device.subsystem = Some(subsystem.to_owned());
        for (name, value) in facts {
            match *name {
                "devtype" => device.devtype = Some((*value).to_owned()),
                "driver" => device.driver = Some((*value).to_owned()),
                property if property.starts_with("ID_") => {
                    device.properties.insert(property.to_owned(), (*value).to_owned());
                }
                attribute => {
                    device
                        .attributes
                        .insert(attribute.to_owned(), (*value).to_owned());
                }
            }
        }
        device
    }

    #[test]
    fn a_description_comes_from_the_device_else_from_the_database_or_the_kernel() {
        let usb = ("devtype", "usb_device");
        let database = [
            ("ID_VENDOR_FROM_DATABASE", "Future Technology"),
            ("ID_MODEL_FROM_DATABASE", "FT232"),
        ];
        let itself = [("manufacturer", "FTDI"), ("product", "Cable")];
        let root_hub = [
            ("idVendor", "1d6b"),
            ("manufacturer", "Linux 6.1 xhci-hcd"),
            ("product", "xHCI"),
        ];
        let model = ("ID_MODEL", "Ultra_USB");
        let label = ("ID_FS_LABEL", "MY_DATA");
        let partition = ("devtype", "partition");
        for (subsystem, facts, expected) in [
            ("usb", [&[usb], &itself[..], &database].concat(), "FTDI Cable"),
            ("usb", [&[usb], &database[..]].concat(), "Future Technology FT232"),
            ("usb", [&[usb], &root_hub[..]].concat(), "xHCI"),
            // Neither a USB device nor on PCI.
            ("usb", [&itself[..], &database].concat(), ""),
            (
                "pci",
                [&database[..], &[("name", "no")]].concat(),
                "Future Technology FT232",
            ),
            ("tty", database.to_vec(), ""),
            ("block", vec![("devtype", "disk"), model, label], "Ultra USB"),
            ("block", vec![partition, model, label], "MY DATA"),
            ("sound", vec![partition, model, label], ""),
            ("input", vec![("name", "Power Button")], "Power Button"),
        ] {
            let device = device("/sys/devices/x", subsystem, &facts);
            assert_eq!(
                description(&device, &BTreeMap::new()),
                expected,
                "{subsystem} {facts:?}"
            );
        }
        // An event node has the name of its parent.
        let parent = device("/sys/devices/x/input1", "input", &[("name", "Keyboard")]);
        let event = device("/sys/devices/x/input1/event1", "input", &[]);
        let known = [(&parent.syspath, &parent), (&event.syspath, &event)].into();
        assert_eq!(description(&event, &known), "Keyboard");
    }

    #[test]
    fn serial_number_and_driver_are_shown_unless_the_line_above_implies_them() {
        let hub = "/sys/devices/pci0000:00/0000:00:14.0/usb1";
        let usb = |path: &str, serial: &str, driver: &str| {
            let facts = [("devtype", "usb_device"), ("serial", serial), ("driver", driver)];
            device(path, "usb", &facts)
        };
        let devices = [
            device(
                "/sys/devices/pci0000:00/0000:00:14.0",
                "pci",
                &[("driver", "xhci_hcd")],
            ),
            usb(hub, "0000:00:14.0", "usb"),
            usb(&format!("{hub}/1-1"), "A", "usb"),
            usb(&format!("{hub}/1-2"), "", "usbip-host"),
            Device {
                node: recorded::virtual_device("tty", "x", "/dev/x", 4, 7).node,
                ..device(
                    &format!("{hub}/1-3/tty/x"),
                    "tty",
                    &[("driver", "usb"), ("serial", "B")],
                )
            },
        ];
        let shown = tree(&devices, &Holders::new(), false);
        let controller = &shown[0].branches[0];
        assert_eq!(controller.driver.as_deref(), Some("xhci_hcd"));
        let root_hub = &controller.branches[0];
        let told = |branch: &Branch| {
            let text = |value: &Option<String>| value.clone().unwrap_or_default();
            [text(&branch.serial), text(&branch.driver)]
        };
        assert_eq!(
            told(root_hub),
            ["", ""],
            "the serial number is the controller's address"
        );
        let below: Vec<_> = root_hub.branches.iter().map(told).collect();
        assert_eq!(below, [["A", ""], ["", "usbip-host"], ["", "usb"]]);
        // Without a line above, both are shown.
        assert_eq!(
            told(&tree(&devices[1..2], &Holders::new(), false)[0].branches[0])[0],
            "0000:00:14.0"
        );
    }

    #[test]
    fn buses_are_sorted_with_virtual_devices_last_and_empty_buses_are_omitted() {
        let node = |bus: &str, name: &str| Device {
            node: recorded::virtual_device("tty", name, &format!("/dev/{name}"), 4, 7).node,
            ..device(&format!("/sys/devices/{bus}/{name}"), "tty", &[])
        };
        let devices = [
            node("xen", "hvc0"),
            node("virtual", "tty10"),
            node("virtual", "tty9"),
            node("platform", "virtual"),
            node("platform", "ttyS0"),
            node("platform", "ttyAMA0"),
            device("/sys/devices/system/cpu0", "cpu", &[]),
        ];
        assert_eq!(
            text(&tree(&devices, &Holders::new(), true), 0),
            "\
platform
  ttyAMA0 /dev/ttyAMA0
  ttyS0 /dev/ttyS0
  virtual /dev/virtual
xen
  hvc0 /dev/hvc0
virtual
  tty9 /dev/tty9
  tty10 /dev/tty10
"
        );
    }

    #[test]
    fn json_has_the_number_of_hidden_nodes_if_there_are_any() {
        let mut devices = recorded::hub_with_two_adapters();
        devices.push(recorded::virtual_device("tty", "tty7", "/dev/tty7", 4, 7));
        let shown = serde_json::to_value(tree(&devices, &Holders::new(), false)).unwrap();
        assert_eq!(shown[0].get("hidden"), None);
        assert_eq!(shown[1]["hidden"], 1);
    }

    #[test]
    fn ports_are_sorted_naturally() {
        let mut names = ["1-1.10", "1-1.2", "1-1", "usb10", "usb2", "sda1", "sda"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["1-1", "1-1.2", "1-1.10", "sda", "sda1", "usb2", "usb10"]);
        assert_eq!(natural("tty07b", "tty7a"), Ordering::Greater, "07 is 7");
    }

    proptest! {
        #[test]
        fn the_order_is_total(a in "[a-c0-2.:-]{0,6}", b in "[a-c0-2.:-]{0,6}", c in "[a-c0-2.:-]{0,6}") {
            prop_assert_eq!(natural(&a, &b), natural(&b, &a).reverse());
            if natural(&a, &b) != Ordering::Greater && natural(&b, &c) != Ordering::Greater {
                prop_assert_ne!(natural(&a, &c), Ordering::Greater);
            }
        }
    }
}
