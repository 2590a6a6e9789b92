//! Every production of the selector grammar, every message, and matching on recorded devices.

use std::path::PathBuf;

use crate::model::any_text::any_text;

use proptest::prelude::*;

use super::*;
use crate::model::device::inventory::Inventory;
use crate::model::device::recorded;
use crate::model::device::{DevKind, DevNode, DevNum, Device, SysPath, UdevState};
use crate::model::oci::ProcessUser;
use crate::model::plan::Planner;
use crate::model::request::entry::{Origin, RequestEntry};

fn selector(text: &str) -> DeviceSelector {
    text.parse()
        .unwrap_or_else(|error| panic!("{text:?} should be a selector: {error}"))
}

/// The kernel names of the devices that a selector names, in the tree's order.
fn matching<'d>(devices: &'d [Device], text: &str) -> Vec<&'d str> {
    let (selector, inventory) = (selector(text), Inventory::new(devices.to_vec()));
    let found = devices.iter().filter(|device| {
        let known = inventory.get(&device.syspath).unwrap();
        selector.names(known, || inventory.chain(known)) == Match::Yes
    });
    found.map(|device| device.syspath.name()).collect()
}

/// The kernel names of the nodes that a container with this request gets.
fn nodes<'d>(devices: &'d [Device], text: &str) -> Vec<&'d str> {
    let inventory = Inventory::new(devices.to_vec());
    let entry = RequestEntry::new(Origin::Root, text.parse().unwrap());
    let mut planner = Planner::new(vec![entry], Vec::new(), ProcessUser::default());
    planner.find_roots(&inventory);
    let candidates = planner.candidates(&inventory);
    let selected: Vec<&SysPath> = candidates
        .iter()
        .map(|candidate| &candidate.device.syspath)
        .collect();
    let nodes = devices
        .iter()
        .filter(|device| selected.contains(&&device.syspath));
    nodes.map(|device| device.syspath.name()).collect()
}

/// Whether a selector matches a device without parents.
fn alone(device: &Device, text: &str) -> Match {
    selector(text).names(device, || Chain::new(&[device], []))
}

#[test]
fn the_maximal_number_of_terms_is_accepted() {
    let joined = |count: usize| vec!["subsystem:tty"; count].join("&");
    assert_eq!(selector(&joined(MAX_TERMS)).terms().len(), MAX_TERMS);
    for count in [MAX_TERMS + 1, MAX_TERMS + 2] {
        assert_eq!(
            joined(count).parse::<DeviceSelector>(),
            Err(SelectorError::TooManyTerms)
        );
    }
}

#[test]
fn usb_ids_without_a_kind_get_their_own_message() {
    let fault = |text: &str| text.parse::<DeviceSelector>().unwrap_err();
    assert!(matches!(fault("0403:6001"), SelectorError::BareUsbIds { .. }));
    for text in ["0403:zzzz", "zzzz:6001", "0403:6001:"] {
        assert!(
            matches!(fault(text), SelectorError::UnknownKind { .. }),
            "{text}: {:?}",
            fault(text)
        );
    }
}

#[test]
fn only_a_device_with_a_node_waits_for_its_links() {
    let mut device = Device::new(SysPath::new("/sys/devices/hub"));
    for text in ["devnode:/dev/x", "glob:/dev/x*", "regex:x"] {
        assert_eq!(alone(&device, text), Match::No, "{text}");
    }
    device.node = Some(DevNode {
        path: "/dev/y".into(),
        num: DevNum {
            kind: DevKind::Char,
            major: 9,
            minor: 0,
        },
    });
    for text in ["devnode:/dev/x", "glob:/dev/x*", "regex:x"] {
        assert_eq!(
            alone(&device, text),
            Match::Unknown(device.syspath.clone()),
            "{text}"
        );
    }
}

#[test]
fn with_parent_of_a_negated_term_is_about_the_device_that_leads_to_the_parent() {
    let mut secret = Device::new(SysPath::new("/sys/devices/hub/tty"));
    secret.tags.insert("secret".into());
    secret.udev_state = UdevState::Processed;
    let leaves = |text: &str| selector(text).leaves(|| Chain::new(&[&secret], []));
    assert_eq!(leaves("subsystem:tty&!tag:secret"), Match::No);
    assert_eq!(leaves("parent-of:subsystem:tty&!tag:secret"), Match::Yes);
    assert_eq!(leaves("subsystem:tty"), Match::Yes);
}

#[test]
fn every_kind_survives_parsing_and_formatting() {
    for (text, canonical) in [
        ("usb:0403", "usb:0403"),
        ("usb:ABCD:EF01", "usb:abcd:ef01"),
        ("usb:0403:6001:A b:c-._", "usb:0403:6001:A b:c-._"),
        (r"usb:0403:6001:a\,b\;c\&d\\e", r"usb:0403:6001:a\,b\;c\&d\\e"),
        (
            "devnode:/dev/serial/by-id/usb-x",
            "devnode:/dev/serial/by-id/usb-x",
        ),
        (
            r"devnode:/dev/disk/by-label/My\\x20Disk",
            r"devnode:/dev/disk/by-label/My\\x20Disk",
        ),
        (
            "syspath:/sys/devices/virtual/tty/tty0/",
            "syspath:/sys/devices/virtual/tty/tty0",
        ),
        ("glob:ttyUSB[0-9]*", "glob:ttyUSB[0-9]*"),
        ("glob:/dev/snd/**", "glob:/dev/snd/**"),
        (r"regex:^tty(USB|ACM)\\d+$", r"regex:^tty(USB|ACM)\\d+$"),
        (r"regex:a{1\,2}", r"regex:a{1\,2}"),
        ("subsystem:sound", "subsystem:sound"),
        ("driver:ftdi_sio", "driver:ftdi_sio"),
        ("tag:uaccess", "tag:uaccess"),
        ("property:ID_BUS=usb", "property:ID_BUS=usb"),
        ("property:ID_MODEL=", "property:ID_MODEL="),
        ("property:K=a=b", "property:K=a=b"),
        ("attr:power/control=auto", "attr:power/control=auto"),
        ("port:1-1.4.2", "port:1-1.4.2"),
        ("port:usb12", "port:usb12"),
        ("pci:02:00.0", "pci:0000:02:00.0"),
        ("pci:00AB:0C:1F.7", "pci:00ab:0c:1f.7"),
        ("pci:00010000:e1:00.0", "pci:10000:e1:00.0"),
        ("node:/dev/fuse", "node:/dev/fuse"),
        ("usbip:LAB:3240/0403:6001:A/B:1", "usbip:lab/0403:6001:A/B:1"),
        (
            "usbip:[FD00::1]:3241/busid:1-1.4",
            "usbip:[fd00::1]:3241/busid:1-1.4",
        ),
        (r"usbip:lab/0403:6001:a\,b", r"usbip:lab/0403:6001:a\,b"),
        ("usbip:lab", "usbip:lab"),
        ("parent-of:parent-of:usb:0403", "parent-of:parent-of:usb:0403"),
        (" usb:0403 & !driver:x & tag:y ", "usb:0403&!driver:x&tag:y"),
        (r"driver:x\ ", r"driver:x\ "),
    ] {
        assert_eq!(selector(text).to_string(), canonical);
        assert_eq!(selector(canonical), selector(text), "{text:?}");
    }
}

#[test]
fn parents_and_terms_are_distinguished() {
    let selector = selector("parent-of:parent-of:usb:0403&!tag:x");
    assert_eq!(selector.parents(), 2);
    let usb = Selector::Usb {
        vendor: "0403".to_owned(),
        product: None,
        serial: None,
    };
    let not_x = Selector::Tag("x".to_owned());
    let terms = [(false, usb), (true, not_x)].map(|(negated, selector)| Term { negated, selector });
    assert_eq!(selector.terms(), terms);
}

#[test]
fn patterns_are_equal_if_their_texts_are() {
    assert_eq!(selector("regex:a|b"), selector("regex:a|b"));
    assert_ne!(selector("regex:a|b"), selector("regex:b|a"));
    assert_ne!(selector("glob:a*"), selector("glob:/dev/a*"));
}

#[test]
fn every_error_has_its_message() {
    let known =
        "usb, devnode, syspath, glob, regex, subsystem, driver, tag, property, attr, port, pci, node, usbip";
    let long = "x".repeat(1001);
    let unknown = |kind: &str, hint: &str| format!("unknown selector \"{kind}\"{hint}; known are {known}");
    let usb_id = |which, example| format!("{which} id must be 4 hex digits, such as {example}");
    let path = |kind: &str, fault: &str| format!("{kind} path {fault}");
    let below_dev = "must be absolute and below /dev, such as /dev/ttyUSB0";
    let below_sys = "must be absolute and below /sys, such as /sys/bus/usb/devices/1-1.4";
    let port = "port must be BUS-PORT[.PORT...], such as 1-1.4, or a root hub, such as usb1";
    let pci = "pci address must be [DOMAIN:]BUS:DEVICE.FUNCTION in hex, such as 0000:02:00.0";
    let property = "property: must be KEY=GLOB, such as property:ID_BUS=usb";
    let attr = "attr: must be NAME=GLOB, such as attr:idVendor=0403";
    let attribute = "an attribute must be a file in the device's own directory, such as idVendor or power/control, \
                     without \".\" and \"..\"";
    let serial = "serial number is empty: write one, such as usb:0403:6001:FT001, or leave the colon out";
    let nothing_named = "no device is named: write KIND:VALUE, such as usb:0403:6001";
    let empty_term =
        "a selector is missing beside \"&\" or \"!\": write KIND:VALUE there, such as driver:ftdi_sio";
    let bare_path =
        "a path needs its kind: devnode:/dev/... for a device node, syspath:/sys/... for a place in sysfs";
    let remote = "usbip: must stand alone, without parent-of:, \"&\", only= and or=";
    let cases: Vec<(String, String)> = [
        ("parent-of:usbip:lab/0403:6001", remote.to_owned()),
        ("usb:0403&!usbip:lab/0403:6001", remote.to_owned()),
        ("usbip:fd00::1/0403:6001", "usbip: an IPv6 address needs brackets: write [fd00::1]".to_owned()),
        ("usbip:lab/403:6001", "usbip: vendor id must be 4 hex digits, such as 0403, or * for any".to_owned()),
        ("", nothing_named.to_owned()),
        ("parent-of:", nothing_named.to_owned()),
        ("usb:0403&", empty_term.to_owned()),
        ("&usb:0403", empty_term.to_owned()),
        ("usb:0403&!", empty_term.to_owned()),
        ("ttyUSB0", "\"ttyUSB0\" has no kind: write KIND:VALUE, such as usb:0403:6001".to_owned()),
        ("/dev/ttyUSB0", bare_path.to_owned()),
        ("/dev/ttyUSB0:rwm", bare_path.to_owned()),
        ("0403:6001", "USB ids need their kind: write usb:0403:6001".to_owned()),
        ("ubs:0403", unknown("ubs", " (did you mean \"usb\"?)")),
        ("USB:0403", unknown("USB", " (did you mean \"usb\"?)")),
        ("subsytem:tty", unknown("subsytem", " (did you mean \"subsystem\"?)")),
        ("vid:0403", unknown("vid", "")),
        (
            "class:gps",
            "class: must stand alone as a request, without parent-of:, \"&\", only= and or=".to_owned(),
        ),
        (r"u\sb:0403", unknown(r"u\sb", " (did you mean \"usb\"?)")),
        (
            "usb:0403&parent-of:tag:x",
            "parent-of: must be at the beginning of the request: it applies to all that follows".to_owned(),
        ),
        (
            "!usb:0403",
            "the first selector must not have a \"!\": first select devices, then exclude some with \"&!\""
                .to_owned(),
        ),
        (
            "usb:0403;required",
            "\";\" is not allowed here: write \"\\;\" where it is part of the value".to_owned(),
        ),
        (
            "usb:0403,tag:x",
            "\",\" is not allowed here: write \"\\,\" where it is part of the value".to_owned(),
        ),
        (
            "driver:x\\",
            "nothing follows the last \"\\\": write \"\\\\\" for a backslash".to_owned(),
        ),
        (
            r"regex:ttyUSB\d",
            r#""\d" in a regex is read as "d": write "\\d" for the regex's own backslash"#.to_owned(),
        ),
        (
            r"glob:tty\*",
            r#""\*" in a glob is read as "*": write "[*]" for the character itself"#.to_owned(),
        ),
        (
            r"devnode:/dev/disk/by-label/My\x20Disk",
            r#""\x" in a path is read as "x": write "\\x" for the backslash in a link's name"#.to_owned(),
        ),
        ("usb:", usb_id("vendor", "0403")),
        ("usb:12345:6001", usb_id("vendor", "0403")),
        ("usb:0x40", usb_id("vendor", "0403")),
        ("usb:+123", usb_id("vendor", "0403")),
        ("usb:0403:", usb_id("product", "6001")),
        ("usb:0403:60 1", usb_id("product", "6001")),
        ("usb:0403:6001:", serial.to_owned()),
        (r"usb:0403:6001:\ ", serial.to_owned()),
        ("driver:", "driver: is empty: write a value, such as driver:ftdi_sio".to_owned()),
        ("subsystem:", "subsystem: is empty: write a value, such as subsystem:tty".to_owned()),
        ("tag:", "tag: is empty: write a value, such as tag:uaccess".to_owned()),
        ("glob:", "glob: is empty: write a value, such as glob:ttyUSB*".to_owned()),
        ("regex:", "regex: is empty: write a value, such as regex:^ttyUSB[0-9]+$".to_owned()),
        ("devnode:ttyUSB0", path("devnode", below_dev)),
        ("devnode:/dev/", path("devnode", below_dev)),
        ("devnode:/dev/x/", path("devnode", "must not end in \"/\"")),
        ("devnode:/dev/../x", path("devnode", "must not have empty, \".\" or \"..\" components")),
        ("node:/proc/x", path("node", below_dev)),
        ("node:/dev/a\0", "a value must not have control characters".to_owned()),
        ("driver:a\u{1b}[2J", "a value must not have control characters".to_owned()),
        ("usb:0403:6001:A\nB", "a value must not have control characters".to_owned()),
        ("syspath:/dev/x", path("syspath", below_sys)),
        ("syspath:sys/x", path("syspath", below_sys)),
        ("property:ID_BUS", property.to_owned()),
        ("property:=usb", property.to_owned()),
        (r"property:A\=B=c", "a property's key must not have a \"=\"".to_owned()),
        ("attr:idVendor", attr.to_owned()),
        ("attr:=0403", attr.to_owned()),
        ("attr:../idVendor=0403", attribute.to_owned()),
        ("attr:/idVendor=0403", attribute.to_owned()),
        ("attr:a//b=0403", attribute.to_owned()),
        ("port:1", port.to_owned()),
        ("port:1-1.", port.to_owned()),
        ("port:-1", port.to_owned()),
        ("port:1-1:1.0", port.to_owned()),
        ("port:usb", port.to_owned()),
        ("pci:02:00", pci.to_owned()),
        ("pci:02:00.8", pci.to_owned()),
        ("pci:02:20.0", pci.to_owned()),
        ("pci:2:00.0", pci.to_owned()),
        ("pci:000:02:00.0", pci.to_owned()),
        ("pci:0000:+2:00.0", pci.to_owned()),
        ("pci:0000:0000:02:00.0", pci.to_owned()),
        (
            "glob:a[",
            "glob cannot be read at character 2: invalid range pattern".to_owned(),
        ),
        (
            "attr:x=a**",
            "glob cannot be read at character 1: recursive wildcards must form a single path component".to_owned(),
        ),
        (
            "glob:/sys/x*",
            "glob is matched against device nodes, which are below /dev: begin it with /dev/ or without a \"/\""
                .to_owned(),
        ),
    ]
    .map(|(text, message)| (text.to_owned(), message))
    .into_iter()
    .chain([
        (
            format!("{}usb:0403", "parent-of:".repeat(17)),
            "parent-of: is repeated more than 16 times: no device has so many parents".to_owned(),
        ),
        (
            format!("glob:{long}"),
            "glob has 1001 characters: at most 1000 are allowed".to_owned(),
        ),
        (
            format!("regex:{long}"),
            "regex has 1001 characters: at most 1000 are allowed".to_owned(),
        ),
        (
            format!("{long}:x"),
            unknown(&format!("{}…", "x".repeat(24)), ""),
        ),
    ])
    .collect();
    for (text, message) in cases {
        let error = text.parse::<DeviceSelector>().expect_err(&text);
        assert_eq!(error.to_string(), message, "{text:?}");
    }
    let error = selector_error("regex:a(b");
    let reason = error.strip_prefix("regex cannot be compiled: ").expect(&error);
    assert!(!reason.is_empty());
}

fn selector_error(text: &str) -> String {
    text.parse::<DeviceSelector>().expect_err(text).to_string()
}

#[test]
fn a_single_selector_is_not_a_conjunction() {
    assert!("tag:x".parse::<Selector>().is_ok());
    let error = "tag:x&tag:y".parse::<Selector>().unwrap_err();
    assert_eq!(error, SelectorError::Separator { found: '&' });
    assert_eq!("".parse::<Selector>(), Err(SelectorError::Empty));
    assert_eq!(
        selector(&format!("{}usb:0403", "parent-of:".repeat(16))).parents(),
        16
    );
}

#[test]
fn two_identical_adapters_are_both_found_and_distinguished_by_serial_port_or_path() {
    let devices = recorded::hub_with_two_adapters();
    assert_eq!(matching(&devices, "usb:0403:6001"), ["1-1.1", "1-1.2"]);
    assert_eq!(matching(&devices, "usb:0403:6001:B"), ["1-1.2"]);
    assert_eq!(matching(&devices, "usb:0403:6001:b"), [""; 0]);
    assert_eq!(matching(&devices, r"usb:0403:6001:B\ "), ["1-1.2"]);
    assert_eq!(matching(&devices, "usb:0403:6001&!port:1-1.1"), ["1-1.2"]);
    assert_eq!(matching(&devices, "port:1-1.1"), ["1-1.1"]);
    assert_eq!(matching(&devices, "port:usb1"), ["usb1"]);
    let by_id = "devnode:/dev/serial/by-id/usb-FTDI_FT232R_USB_UART_A-if00-port0";
    assert_eq!(matching(&devices, by_id), ["ttyUSB0"]);
    assert_eq!(matching(&devices, "devnode:/dev/ttyUSB1"), ["ttyUSB1"]);
    assert_eq!(matching(&devices, "attr:serial=[AB]"), ["1-1.1", "1-1.2"]);
}

/// Case README 6.
#[test]
fn a_serial_number_matches_in_udevs_spelling_and_a_mismatch_lists_those_present() {
    let devices = recorded::documented_host();
    assert_eq!(matching(&devices, "usb:0403:6001:My Board 01"), ["1-1.3"]);
    assert_eq!(matching(&devices, "usb:0403:6001:My_Board_01"), ["1-1.3"]);
    assert_eq!(matching(&devices, "usb:0403:6001:My_Board_1"), [""; 0]);
    let inventory = Inventory::new(devices);
    let nothing = |text: &str| selector(text).why_nothing(&inventory);
    let reason = nothing("usb:0403:6001:My-Board-01").unwrap();
    assert!(
        reason.starts_with("no device matches usb:0403:6001:My-Board-01 (another serial number: ")
            && reason.contains("1-1.3 has \"My Board 01\""),
        "{reason}"
    );
    assert!(nothing("usb:10c4:8a2a:X").unwrap().contains("1-5 has none"));
    assert_eq!(nothing("usb:ffff:0000:X"), None);
}

#[test]
fn an_interface_is_not_a_usb_device_whatever_its_attributes_are() {
    let mut devices = recorded::composite_device();
    let interface = devices
        .iter_mut()
        .find(|device| device.syspath.name() == "1-2:1.0")
        .unwrap();
    interface
        .attributes
        .insert("idVendor".to_owned(), "2341".to_owned());
    assert_eq!(matching(&devices, "usb:2341"), ["1-2"]);
}

#[test]
fn hex_ids_of_the_device_may_be_in_upper_case() {
    let mut device = recorded::named(&recorded::root_hubs(), "usb1").clone();
    device.attributes.insert("idVendor".to_owned(), "1D6B".to_owned());
    assert_eq!(alone(&device, "usb:1d6b:0002"), Match::Yes);
}

#[test]
fn the_halves_of_a_usb3_hub_have_one_vendor_and_two_products() {
    let mut devices = recorded::hub_with_two_adapters();
    devices.extend(recorded::companion_hub());
    assert_eq!(matching(&devices, "usb:2109"), ["1-1", "2-1"]);
    assert_eq!(matching(&devices, "usb:2109:0813"), ["2-1"]);
}

#[test]
fn the_functions_of_a_composite_device_are_distinguished() {
    let devices = recorded::composite_device();
    assert_eq!(matching(&devices, "driver:cdc_acm"), ["1-2:1.0", "1-2:1.1"]);
    assert_eq!(matching(&devices, "subsystem:input"), ["input7", "event7"]);
    assert_eq!(
        matching(&devices, "subsystem:input&property:ID_INPUT_KEYBOARD=1"),
        ["event7"]
    );
    assert_eq!(matching(&devices, "tag:power-switch"), ["event7"]);
    assert_eq!(matching(&devices, r"regex:^(tty|hidraw)"), ["ttyACM0", "hidraw0"]);
    assert_eq!(matching(&devices, "regex:event-kbd$"), ["event7"]);
    assert_eq!(matching(&devices, "glob:input/*"), ["event7"]);
    assert_eq!(matching(&devices, "glob:*Leonardo*"), [""; 0]);
    assert_eq!(
        matching(&devices, "glob:/dev/*/by-id/*Leonardo*"),
        ["ttyACM0", "event7"]
    );
    assert_eq!(matching(&devices, "attr:name=Arduino*"), ["input7"]);
    assert_eq!(matching(&devices, "attr:absent=*"), [""; 0]);
}

#[test]
fn a_disk_is_distinguished_from_its_partitions() {
    let devices = recorded::disk_with_partitions();
    assert_eq!(matching(&devices, "glob:sda"), ["sda"]);
    assert_eq!(matching(&devices, "subsystem:block"), ["sda", "sda1", "sda2"]);
    assert_eq!(matching(&devices, "subsystem:block&!attr:partition=*"), ["sda"]);
    assert_eq!(matching(&devices, "property:ID_FS_TYPE=ext*"), ["sda2"]);
    assert_eq!(matching(&devices, "devnode:/dev/disk/by-label/root"), ["sda2"]);
    assert_eq!(matching(&devices, "pci:00:17.0"), ["0000:00:17.0"]);
    assert_eq!(matching(&devices, "pci:00:17.1"), [""; 0]);
    let disk = "/sys/devices/pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/block/sda";
    assert_eq!(matching(&devices, &format!("syspath:{disk}/")), ["sda"]);
}

#[test]
fn a_path_that_leads_to_a_device_selects_it() {
    let mut devices = recorded::disk_with_partitions();
    let disk = devices
        .iter_mut()
        .find(|device| device.syspath.name() == "sda")
        .unwrap();
    disk.aliases.insert(PathBuf::from("/sys/class/block/sda"));
    disk.aliases.insert(PathBuf::from("/dev/my-disk"));
    assert_eq!(matching(&devices, "syspath:/sys/class/block/sda"), ["sda"]);
    assert_eq!(matching(&devices, "devnode:/dev/my-disk"), ["sda"]);
    let disk = recorded::named(&devices, "sda").clone();
    assert_eq!(alone(&disk, "devnode:/dev/my-disk"), Match::Yes);
    let disk = recorded::before_udev(disk);
    let unknown = Match::Unknown(disk.syspath.clone());
    assert_eq!(alone(&disk, "devnode:/dev/my-disk"), unknown);
    assert_eq!(alone(&disk, "syspath:/sys/class/block/sda"), Match::Yes);
    // An alias that another request uses for the device does not match.
    assert_eq!(matching(&devices, "glob:my-*"), [""; 0]);
}

#[test]
fn a_static_node_is_selected_by_its_path() {
    let mut device = Device::new(SysPath::new("/sys/devices/oci-hotplug-node/dev/fuse"));
    device.node = Some(DevNode {
        path: PathBuf::from("/dev/fuse"),
        num: DevNum {
            kind: DevKind::Char,
            major: 10,
            minor: 229,
        },
    });
    assert_eq!(alone(&device, "node:/dev/fuse"), Match::Yes);
    assert_eq!(alone(&device, "node:/dev/net/tun"), Match::No);
}

#[test]
fn sysfs_facts_are_decided_by_the_kernel_and_the_rest_by_udev() {
    let devices = recorded::hub_with_two_adapters();
    let tty = recorded::with_node(&devices, "/dev/ttyUSB0");
    let early = recorded::before_udev(tty.clone());
    let unknown = || Match::Unknown(tty.syspath.clone());
    for (text, after, before) in [
        ("subsystem:tty", Match::Yes, Match::Yes),
        ("devnode:/dev/ttyUSB0", Match::Yes, Match::Yes),
        ("glob:ttyUSB*", Match::Yes, Match::Yes),
        ("regex:USB", Match::Yes, Match::Yes),
        ("glob:serial/by-id/*", Match::Yes, unknown()),
        ("regex:by-id", Match::Yes, unknown()),
        ("tag:systemd", Match::Yes, unknown()),
        ("property:ID_BUS=usb", Match::Yes, unknown()),
        ("subsystem:tty&tag:systemd", Match::Yes, unknown()),
        ("subsystem:tty&!driver:x", Match::Yes, Match::Yes),
        ("subsystem:tty&!tag:other", Match::Yes, unknown()),
        ("subsystem:tty&!tag:systemd", Match::No, unknown()),
        ("subsystem:tty&!glob:serial/*/*", Match::No, unknown()),
        ("subsystem:tty&!subsystem:tty", Match::No, Match::No),
        ("subsystem:net", Match::No, Match::No),
    ] {
        assert_eq!(alone(tty, text), after, "{text} after udev");
        assert_eq!(alone(&early, text), before, "{text} before udev");
    }
    let adapter = recorded::before_udev(recorded::named(&devices, "1-1.1").clone());
    assert_eq!(alone(&adapter, "usb:0403:6001:A"), Match::Yes);
}

/// Case README 5. Case README 25.
#[test]
fn a_term_may_match_the_device_or_one_of_its_parents_as_in_udev() {
    let mut devices = recorded::hub_with_two_adapters();
    devices.extend(recorded::composite_device().split_off(5));
    // Each text with its roots and the nodes that a container gets.
    for (text, roots, given) in [
        (
            "usb:0403:6001",
            vec!["1-1.1", "1-1.2"],
            vec!["1-1.1", "ttyUSB0", "1-1.2", "ttyUSB1"],
        ),
        (
            "subsystem:tty&usb:0403:6001",
            vec!["ttyUSB0", "ttyUSB1"],
            vec!["ttyUSB0", "ttyUSB1"],
        ),
        (
            "usb:0403:6001&subsystem:tty",
            vec!["ttyUSB0", "ttyUSB1"],
            vec!["ttyUSB0", "ttyUSB1"],
        ),
        ("subsystem:tty&usb:0403:6001:B", vec!["ttyUSB1"], vec!["ttyUSB1"]),
        ("subsystem:tty&port:1-1.2", vec!["ttyUSB1"], vec!["ttyUSB1"]),
        (
            "subsystem:tty&driver:ftdi_sio",
            vec!["ttyUSB0", "ttyUSB1"],
            vec!["ttyUSB0", "ttyUSB1"],
        ),
        ("subsystem:tty&!driver:ftdi_sio", vec!["ttyACM0"], vec!["ttyACM0"]),
        ("subsystem:tty&!usb:0403", vec!["ttyACM0"], vec!["ttyACM0"]),
        (
            "usb:0403&!subsystem:tty",
            vec!["1-1.1", "1-1.2"],
            vec!["1-1.1", "1-1.2"],
        ),
        ("usb:0403&!port:1-1.1", vec!["1-1.2"], vec!["1-1.2", "ttyUSB1"]),
        (
            "usb:2341:8036&attr:bInterfaceNumber=02",
            vec!["1-2:1.2"],
            vec!["hidraw0", "event7"],
        ),
        ("usb:2341:8036&attr:bInterfaceNumber=03", vec![], vec![]),
        ("usb:2341&usb:0403", vec![], vec![]),
        // The term for the child that leads to the parent may exclude what is below the parent.
        (
            "parent-of:subsystem:tty&usb:2341&!driver:ftdi_sio",
            vec!["ttyACM0"],
            vec!["ttyACM0"],
        ),
    ] {
        assert_eq!(matching(&devices, text), roots, "{text}");
        assert_eq!(nodes(&devices, text), given, "{text}");
    }
}

/// Case README 5.
#[test]
fn an_unprocessed_parent_leaves_a_negated_term_undecided() {
    let mut devices = recorded::hub_with_two_adapters();
    for device in &mut devices {
        if device.syspath.name() == "1-1.2" {
            *device = recorded::before_udev(device.clone());
        }
    }
    let inventory = Inventory::new(devices.clone());
    let tty = recorded::with_node(&devices, "/dev/ttyUSB1");
    let parent = recorded::named(&devices, "1-1.2").syspath.clone();
    let found = |text: &str| selector(text).names(tty, || inventory.chain(tty));
    assert_eq!(found("subsystem:tty&!tag:secret"), Match::Unknown(parent.clone()));
    assert_eq!(found("subsystem:tty&tag:systemd"), Match::Yes);
    assert_eq!(
        found("subsystem:tty&property:ID_VENDOR=x"),
        Match::Unknown(parent)
    );
    assert_eq!(found("subsystem:net&!tag:secret"), Match::No);
}

/// Case README 5.
#[test]
fn the_explanation_of_a_mismatch_names_the_failing_term() {
    let devices = recorded::hub_with_two_adapters();
    let inventory = Inventory::new(devices.clone());
    let tty = recorded::with_node(&devices, "/dev/ttyUSB1");
    let why = |text: &str| selector(text).why_not(&inventory.chain(tty));
    assert_eq!(why("subsystem:tty&usb:0403"), None);
    assert_eq!(
        why("subsystem:tty&usb:1050").unwrap(),
        "usb:1050 does not match the device or any of its parents"
    );
    assert_eq!(
        why("subsystem:tty&!subsystem:tty").unwrap(),
        "!subsystem:tty: subsystem:tty matches the device"
    );
    let reason = why("subsystem:tty&!port:1-1.2").unwrap();
    assert!(
        reason.starts_with("!port:1-1.2: port:1-1.2 matches its parent /sys/"),
        "{reason}"
    );
    let nothing = |text: &str| selector(text).why_nothing(&inventory);
    assert_eq!(nothing("usb:1050"), None);
    // Of the two ttys, the explanation is about the one with a single failing term.
    let reason = nothing("subsystem:tty&usb:0403:6001:A&attr:serial=A&port:1-1.2").unwrap();
    assert!(
        reason.starts_with("the nearest is ") && reason.contains("/ttyUSB0: port:1-1.2 does not match"),
        "{reason}"
    );
    assert_eq!(
        nothing("subsystem:tty&usb:1050").unwrap(),
        "no device matches usb:1050"
    );
    let reason = nothing("subsystem:tty&!driver:ftdi_sio").unwrap();
    assert!(
        reason.contains("ttyUSB0: !driver:ftdi_sio: driver:ftdi_sio matches its parent"),
        "{reason}"
    );
    let reason = nothing("port:1-1.1&usb:0403:6001:B").unwrap();
    assert!(
        reason.contains("does not match the device or any of its parents"),
        "{reason}"
    );
}

#[test]
fn the_kind_decides_whether_udev_is_needed() {
    for (text, needs) in [
        ("usb:0403", false),
        ("syspath:/sys/a", false),
        ("subsystem:a", false),
        ("driver:a", false),
        ("attr:a=b", false),
        ("port:1-1", false),
        ("pci:00:00.0", false),
        ("node:/dev/a", false),
        ("devnode:/dev/a", true),
        ("glob:a", true),
        ("regex:a", true),
        ("tag:a", true),
        ("property:a=b", true),
    ] {
        assert_eq!(text.parse::<Selector>().unwrap().needs_udev(), needs, "{text}");
    }
}

/// A word with characters that have a meaning in the grammar, and some that do not.
fn word() -> impl Strategy<Value = String> {
    r#"[a-zA-Z0-9 _.:=,;&!\\é"-]{0,12}[a-zA-Z0-9 ,;&!\\]"#
}

fn path_below(root: &'static str) -> impl Strategy<Value = PathBuf> {
    prop::collection::vec(word(), 1..4).prop_filter_map("dots", move |parts| {
        let path = format!("{root}/{}", parts.join("/"));
        path::node_path(&path.replacen(root, "/dev", 1)).ok()?;
        Some(PathBuf::from(path))
    })
}

fn glob() -> impl Strategy<Value = Glob> {
    r"[a-z,;&!\\= /]{0,6}(\*|\?|\[a-z,\])?[a-z,; ]{0,3}".prop_map(|text| Glob::new(&text).unwrap())
}

fn path_glob() -> impl Strategy<Value = Glob> {
    r"(/dev/)?[a-z,;&!\\= ]{1,6}(\*|\?|\[a-z,\])?[a-z,; ]{0,3}".prop_map(|text| Glob::new(&text).unwrap())
}

fn usb() -> impl Strategy<Value = Selector> {
    let serial = word().prop_filter("white space alone", |serial| !serial.trim().is_empty());
    let rest = prop::option::of(("[0-9a-f]{4}", prop::option::of(serial)));
    ("[0-9a-f]{4}", rest).prop_map(|(vendor, rest)| {
        let (product, serial) = rest.map_or((None, None), |(product, serial)| (Some(product), serial));
        Selector::Usb {
            vendor,
            product,
            serial,
        }
    })
}

/// Any selector of the grammar.
pub(in crate::model) fn any_selector() -> impl Strategy<Value = Selector> {
    let key = || word().prop_filter("no =", |key| !key.contains('='));
    let attribute = "[a-z_]{1,8}(/[a-z ,]{1,5})?";
    let regex = r"(\\[dw]|[a-z,;& ]|\\\\|[a-z]\{1,2\}){1,6}";
    prop_oneof![
        usb(),
        path_below("/dev").prop_map(Selector::DevNode),
        path_below("/sys").prop_map(Selector::SysPath),
        path_below("/dev").prop_map(Selector::Node),
        path_glob().prop_map(Selector::Glob),
        regex.prop_map(|text| Selector::Regex(PathRegex::new(&text).unwrap())),
        word().prop_map(Selector::Subsystem),
        word().prop_map(Selector::Driver),
        word().prop_map(Selector::Tag),
        (key(), glob()).prop_map(|(key, pattern)| Selector::Property { key, pattern }),
        (attribute, glob()).prop_map(|(name, pattern)| Selector::Attr { name, pattern }),
        r"([0-9]{1,2}-[0-9]{1,2}(\.[0-9]{1,2}){0,3}|usb[0-9]{1,2})".prop_map(Selector::Port),
        "[0-9a-f]{4}:[0-9a-f]{2}:[01][0-9a-f]\\.[0-7]".prop_map(Selector::Pci),
    ]
}

/// Any device selector of the grammar.
pub(in crate::model) fn any_device_selector() -> impl Strategy<Value = DeviceSelector> {
    let more = prop::collection::vec((any::<bool>(), any_selector()), 0..4);
    (0..=MAX_PARENTS, any_selector(), more).prop_map(|(parents, first, more)| {
        let terms = std::iter::once((false, first)).chain(more);
        let terms = terms
            .map(|(negated, selector)| Term { negated, selector })
            .collect();
        DeviceSelector { parents, terms }
    })
}

proptest! {
    #[test]
    fn a_selector_survives_formatting_and_parsing(selector in any_device_selector()) {
        let text = selector.to_string();
        let again = text.parse::<DeviceSelector>();
        prop_assert_eq!(again.as_ref(), Ok(&selector), "{}", text);
        prop_assert_eq!(again.unwrap().to_string(), text);
    }

    #[test]
    fn no_text_causes_a_panic_in_the_parser(text in any_text()) {
        let _ = text.parse::<DeviceSelector>();
    }

    #[test]
    fn no_text_similar_to_a_selector_causes_a_panic_in_the_parser(
        text in r"(parent-of:|!|&|usb:|glob:|regex:|attr:|pci:|port:|devnode:/dev/|[a-f0-9*\[\]():.=\\é/]){0,24}"
    ) {
        if let Ok(selector) = text.parse::<DeviceSelector>() {
            prop_assert_eq!(selector.to_string().parse(), Ok(selector.clone()));
            let inventory = Inventory::new(recorded::composite_device());
            for device in inventory.iter() {
                let _ = selector.names(device, || inventory.chain(device));
            }
        }
    }

    #[test]
    fn a_node_is_given_exactly_if_all_terms_match_it_or_its_parents(
        texts in prop::collection::vec((any::<bool>(), prop::sample::select(&TERMS[..])), 1..4),
        unheard in prop::collection::btree_set(0..20usize, 0..4),
    ) {
        let mut text = texts[0].1.to_owned();
        for (negated, term) in &texts[1..] {
            text += if *negated { "&!" } else { "&" };
            text += term;
        }
        let mut devices = recorded::hub_with_two_adapters();
        devices.extend(recorded::composite_device().split_off(5));
        for index in unheard {
            if let Some(device) = devices.get_mut(index) {
                *device = recorded::before_udev(device.clone());
            }
        }
        let inventory = Inventory::new(devices.clone());
        let selector = selector(&text);
        for device in inventory.iter() {
            let own = inventory.chain(device);
            let is_root = |device: &Device| selector.names(device, || inventory.chain(inventory.get(&device.syspath).unwrap())) == Match::Yes;
            let below_a_root = own.all().iter().any(|device| is_root(device));
            let left = selector.leaves(|| inventory.chain(device));
            let given = below_a_root && left == Match::Yes;
            prop_assert_eq!(given, selector.matches(&own) == Match::Yes, "{} {}", text, device.syspath);
            // A result is unknown only because of a device of the chain that udevd has not
            // processed.
            if let Match::Unknown(whose) = selector.matches(&own) {
                let whose = own.all().iter().find(|device| device.syspath == whose);
                prop_assert!(whose.is_some_and(|device| device.udev_state == UdevState::Pending));
            }
            prop_assert_eq!(selector.why_not(&own).is_none(), selector.matches(&own) == Match::Yes);
        }
    }
}

const TERMS: [&str; 14] = [
    "usb:0403",
    "usb:0403:6001:B",
    "usb:2341",
    "subsystem:tty",
    "subsystem:usb",
    "subsystem:input",
    "driver:ftdi_sio",
    "driver:cdc_acm",
    "port:1-1.1",
    "tag:systemd",
    "property:ID_BUS=usb",
    "glob:ttyUSB*",
    "glob:serial/by-id/*",
    "attr:bInterfaceNumber=02",
];
