//! The grammar of symlink rules with its messages, and which recorded devices a rule matches.

use crate::model::any_text::any_text;

use proptest::prelude::*;

use super::*;
use crate::model::device::recorded::{self, ancestors, before_udev, with_node};

fn rule(text: &str) -> SymlinkRule {
    text.parse()
        .unwrap_or_else(|error| panic!("{text:?} should be a rule: {error}"))
}

#[test]
fn a_rule_survives_parsing_and_formatting() {
    for (text, canonical) in [
        ("usb:0403:6001:0=/dev/gps", "usb:0403:6001:00=/dev/gps"),
        ("usb:ABCD:EF01:0A=/run/gps", "usb:abcd:ef01:0a=/run/gps"),
        (
            r" usb:0403:6001:01 = /dev/a\,b\=c\\\  ",
            r"usb:0403:6001:01=/dev/a\,b\=c\\\ ",
        ),
    ] {
        assert_eq!(rule(text).to_string(), canonical);
        assert_eq!(rule(canonical), rule(text));
    }
    assert_eq!(
        parse_symlinks(" usb:0403:6001:0=/dev/a , usb:0403:6001:1=/dev/b\n")
            .unwrap()
            .len(),
        2
    );
    let json = serde_json::to_string(&rule("usb:0403:6001:0=/dev/gps")).unwrap();
    assert_eq!(
        serde_json::from_str::<SymlinkRule>(&json).unwrap(),
        rule("usb:0403:6001:00=/dev/gps")
    );
    assert!(serde_json::from_str::<SymlinkRule>("\"usb\"").is_err());
}

#[test]
fn the_maximal_numbers_of_rules_and_bytes_are_accepted() {
    let rule = "usb:0403:6001:00=/dev/gps";
    let list = |count: usize| vec![rule; count].join(",");
    assert_eq!(parse_symlinks(&list(MAX_RULES)).unwrap().len(), MAX_RULES);
    assert_eq!(
        parse_symlinks(&list(MAX_RULES + 1)),
        Err(SymlinkError::TooMany { count: MAX_RULES + 1 })
    );
    let padded = |length: usize| format!("{rule}{}", " ".repeat(length - rule.len()));
    assert_eq!(parse_symlinks(&padded(MAX_TEXT)).unwrap().len(), 1);
    assert_eq!(
        parse_symlinks(&padded(MAX_TEXT + 1)),
        Err(SymlinkError::TooLong { length: MAX_TEXT + 1 })
    );
}

#[test]
fn container_hotplugs_rules_keep_their_meaning() {
    for (text, ours) in [
        ("usb:0403:6001:1=/dev/gps", "usb:0403:6001:01=/dev/gps"),
        ("usb:ABCD:6001:12=/run/x/y", "usb:abcd:6001:12=/run/x/y"),
        (
            r"usb:0403:6001:00=/dev/a\b;c ",
            r"usb:0403:6001:00=/dev/a\\b\;c\ ",
        ),
        ("usb:0403:6001:00=/dev//./x/../gps", "usb:0403:6001:00=/dev/gps"),
    ] {
        assert_eq!(parse_lowrisc_symlinks(text).unwrap(), [rule(ours)], "{text:?}");
    }
    let list = "usb:0403:6001:00=/dev/a,usb:0403:6001:00=/dev/b";
    assert_eq!(parse_lowrisc_symlinks(list).unwrap().len(), 2);
}

#[test]
fn every_error_has_its_message() {
    let equals =
        "there must be one \"=\" between the interface and the path, as in usb:0403:6001:00=/dev/gps";
    let form = "what comes before the \"=\" must be usb:VENDOR:PRODUCT:INTERFACE, such as usb:0403:6001:00";
    let interface = "interface number must be 1 or 2 hex digits, as bInterfaceNumber has it, such as 00";
    let dangling = "nothing follows the last \"\\\": write \"\\\\\" for a backslash";
    for (text, fault) in [
        ("usb:0403:6001:00", equals),
        ("usb:0403:6001:00=/dev/a=b", equals),
        (r"usb:0403:6001:00\=/dev/a", equals),
        ("usb:0403:6001=/dev/gps", form),
        ("usb:0403:6001:00:1=/dev/gps", form),
        ("pci:0403:6001:00=/dev/gps", form),
        (
            "usb:403:6001:00=/dev/gps",
            "vendor id must be 4 hex digits, such as 0403",
        ),
        (
            "usb:0403:x:00=/dev/gps",
            "product id must be 4 hex digits, such as 6001",
        ),
        ("usb:0403:6001:=/dev/gps", interface),
        ("usb:0403:6001:000=/dev/gps", interface),
        ("usb:0403:6001:0g=/dev/gps", interface),
        (
            "usb:0403:6001:00=gps",
            "path must be absolute, beginning with \"/\"",
        ),
        ("usb:0403:6001:00=", "path must be absolute, beginning with \"/\""),
        ("usb:0403:6001:00=/dev/gps/", "path must not end in \"/\""),
        (
            "usb:0403:6001:00=/dev",
            "path must not be /dev itself, but a place for a link, such as /dev/sensor",
        ),
        (
            "usb:0403:6001:00=/../gps",
            "path must not have empty, \".\" or \"..\" components",
        ),
        ("usb:0403:6001:00=/dev/\\", dangling),
    ] {
        let error = parse_symlinks(text).expect_err(text).to_string();
        assert_eq!(error, format!("symlink rule \"{text}\": {fault}"));
        assert_eq!(text.parse::<SymlinkRule>().unwrap_err().to_string(), error);
    }
}

#[test]
fn every_error_in_container_hotplugs_rules_has_its_message() {
    let interface = "interface number must be 1 or 2 digits, such as 00";
    for (text, fault) in [
        ("usb:0403:6001:0a=/dev/gps", interface),
        ("usb:0403:6001:=/dev/gps", interface),
        (
            " usb:0403:6001:00=/dev/gps",
            "what comes before the \"=\" must be usb:VENDOR:PRODUCT:INTERFACE, such as usb:0403:6001:00",
        ),
        (
            r"usb:0403:6001:00=/dev/a\=b",
            "there must be one \"=\" between the interface and the path, as in usb:0403:6001:00=/dev/gps",
        ),
        ("usb:0403:6001:00=/dev/gps/", "path must not end in \"/\""),
        (
            "usb:0403:6001:00=gps",
            "path must be absolute, beginning with \"/\"",
        ),
    ] {
        let error = parse_lowrisc_symlinks(text).expect_err(text).to_string();
        assert_eq!(error, format!("symlink rule \"{text}\": {fault}"));
    }
}

#[test]
fn a_list_may_have_one_rule_per_line() {
    let rules = parse_symlinks("usb:0403:6001:00=/dev/a\n\n usb:0403:6001:01=/dev/b\n").unwrap();
    let texts: Vec<String> = rules.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["usb:0403:6001:00=/dev/a", "usb:0403:6001:01=/dev/b"]);
    assert_eq!(
        parse_lowrisc_symlinks("usb:0403:6001:00=/dev/a\n").unwrap(),
        rules[..1]
    );
}

#[test]
fn every_error_in_a_list_has_its_message() {
    let nothing = "symlink rules: no rule: write one, such as usb:0403:6001:00=/dev/gps, or remove the value";
    let good = "usb:0403:6001:00=/dev/gps";
    let second_is_empty = "symlink rule 2 of 2 is empty: remove the extra \",\"";
    let long = "x".repeat(MAX_TEXT + 1);
    let too_long = "symlink rules: 65537 bytes are too many: at most 65536 are read";
    let many = [good; 257].join(",");
    let too_many = "symlink rules: 257 are too many: at most 256 are read";
    for parse in [parse_symlinks, parse_lowrisc_symlinks] {
        for (text, message) in [
            ("", nothing),
            (&format!("{good},"), second_is_empty),
            (&long, too_long),
            (&many, too_many),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), message);
        }
    }
    assert_eq!(parse_symlinks(" "), Err(SymlinkError::Empty));
    assert_eq!(long.parse::<SymlinkRule>().unwrap_err().to_string(), too_long);
    assert_eq!(
        "a,b".parse::<SymlinkRule>().unwrap_err().to_string(),
        "symlink rule \"a,b\": one rule is expected, but there are 2: write \"\\,\" where a comma is part of the path"
    );
}

/// Case README 4.
#[test]
fn a_rule_is_for_one_interface_of_a_composite_device_with_udev_and_without() {
    let devices = recorded::composite_device();
    let early: Vec<Device> = devices.iter().cloned().map(before_udev).collect();
    for (text, node, expected) in [
        ("usb:2341:8036:00=/dev/modem", "/dev/ttyACM0", true),
        ("usb:2341:8036:02=/dev/modem", "/dev/ttyACM0", false),
        ("usb:2341:8037:00=/dev/modem", "/dev/ttyACM0", false),
        ("usb:2342:8036:00=/dev/modem", "/dev/ttyACM0", false),
        ("usb:2341:8036:02=/dev/keypad", "/dev/input/event7", true),
        // udev does not run usb_id for hidraw.
        ("usb:2341:8036:02=/dev/keypad", "/dev/hidraw0", true),
        // The device's own node does not belong to an interface.
        ("usb:2341:8036:00=/dev/modem", "/dev/bus/usb/001/005", false),
    ] {
        for devices in [&devices, &early] {
            let device = with_node(devices, node);
            let matches = rule(text).matches(device, ancestors(devices, device));
            assert_eq!(matches, expected, "{text} {node} {:?}", device.udev_state);
        }
    }
}

/// Case README 4.
#[test]
fn a_property_that_udev_does_not_have_is_read_from_sysfs() {
    let devices = recorded::composite_device();
    let rule = rule("usb:2341:8036:00=/dev/modem");
    for missing in ["ID_VENDOR_ID", "ID_MODEL_ID", "ID_USB_INTERFACE_NUM"] {
        let mut device = with_node(&devices, "/dev/ttyACM0").clone();
        device.properties.remove(missing).expect("it was recorded");
        assert!(rule.matches(&device, ancestors(&devices, &device)), "{missing}");
        device.properties.insert(missing.to_owned(), "0001".to_owned());
        assert!(!rule.matches(&device, ancestors(&devices, &device)), "{missing}");
    }
}

#[test]
fn two_identical_adapters_share_a_rule() {
    let devices = recorded::hub_with_two_adapters();
    let rule = rule("usb:0403:6001:00=/dev/gps");
    let matching = devices
        .iter()
        .filter(|device| rule.matches(device, ancestors(&devices, device)));
    let names: Vec<&str> = matching.map(|device| device.syspath.name()).collect();
    assert_eq!(names, ["ttyUSB0", "ttyUSB1"]);
}

#[test]
fn no_rule_matches_a_disk_that_is_not_on_usb() {
    let devices = recorded::disk_with_partitions();
    let early: Vec<Device> = devices.iter().cloned().map(before_udev).collect();
    let rule = rule("usb:0403:6001:00=/dev/gps");
    for devices in [devices, early] {
        assert!(
            !devices
                .iter()
                .any(|device| rule.matches(device, ancestors(&devices, device)))
        );
    }
}

proptest! {
    #[test]
    fn a_rule_survives_formatting_and_parsing(
        vendor in "[0-9a-f]{4}",
        product in "[0-9a-f]{4}",
        interface in "[0-9a-f]{2}",
        path in r"(/[a-z=,;&\\é ]{1,5}){0,2}/[a-z=,;&\\ ]{0,4}[a-uw-z ]",
    ) {
        let rule = SymlinkRule { vendor, product, interface, path: PathBuf::from(path) };
        prop_assert_eq!(rule.to_string().parse(), Ok(rule));
    }

    #[test]
    fn no_text_causes_a_panic_in_a_parser(text in prop_oneof![any_text(), r"(usb:|0403|:|=|/|,|\\|[ .0-9a]){0,20}"]) {
        for rules in [parse_symlinks(&text), parse_lowrisc_symlinks(&text)].into_iter().flatten() {
            for rule in rules {
                prop_assert_eq!(rule.to_string().parse(), Ok(rule));
            }
        }
    }

    #[test]
    fn rules_that_container_hotplug_accepts_mean_the_same_in_the_grammar_of_oci_hotplug(
        text in "usb:[0-9a-fA-F]{4}:[0-9a-fA-F]{4}:[0-9]{1,2}=(/[a-z]{1,5}){1,3}/[a-z]{1,4}"
    ) {
        prop_assert_eq!(parse_lowrisc_symlinks(&text), parse_symlinks(&text));
    }
}
