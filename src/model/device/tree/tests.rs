//! Which devices a tree shows, in which order, and how it describes them.

use std::cmp::Ordering;

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
