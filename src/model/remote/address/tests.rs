//! Every form of an address, and every message about one.

use super::*;
use crate::model::any_text::any_text;
use proptest::prelude::*;

#[test]
fn a_remote_device_is_named_by_host_port_and_ids_or_bus_id() {
    for (text, host, port) in [
        ("lab/0403:6001", "lab", 3240),
        ("lab.example:3241/0403:6001:FT 0/0,42", "lab.example", 3241),
        ("10.0.0.7/busid:1-1.4", "10.0.0.7", 3240),
        ("[fd00::1]/0403:6001", "fd00::1", 3240),
        ("[fe80::1%eth0]:99/busid:0-0-0", "fe80::1%eth0", 99),
        ("lab/nth:2:0403:6001:FT:1", "lab", 3240),
        ("lab/0403:*", "lab", 3240),
        ("lab/*:*:FT1", "lab", 3240),
        ("lab/busid:1-1.4:0403:*:FT1", "lab", 3240),
    ] {
        let device: RemoteDevice = text.parse().unwrap();
        assert_eq!(
            (device.server.host(), device.server.port()),
            (host, port),
            "{text}"
        );
        assert_eq!(device.to_string(), text);
        assert_eq!(String::from(device), text);
    }
    assert_eq!(
        "LAB:3240/0403:6001".parse::<RemoteDevice>().unwrap().to_string(),
        "lab/0403:6001"
    );
    assert_eq!("[FD00:0::1]".parse::<Server>().unwrap().to_string(), "[fd00::1]");
}

#[test]
fn an_error_says_what_is_wrong_and_how_to_fix_it() {
    for (text, fault) in [
        (
            "lab",
            "no device is named behind the host: write HOST/VID:PID, such as lab:3240/0403:6001, or HOST/busid:BUSID",
        ),
        (
            "/0403:6001",
            "\"\" is not a host: write a name, an IPv4 address, or an IPv6 address in brackets, such as [fd00::1]",
        ),
        (
            "fd00::1/0403:6001",
            "an IPv6 address needs brackets: write [fd00::1]",
        ),
        (
            "[fd00::1/0403:6001",
            "\"[fd00::1\" is not a host: write a name, an IPv4 address, or an IPv6 address in brackets, such as [fd00::1]",
        ),
        (
            "lab:0/0403:6001",
            "\"0\" is not a port: write a number from 1 to 65535, or leave it out for 3240",
        ),
        (
            "lab:+7/0403:6001",
            "\"+7\" is not a port: write a number from 1 to 65535, or leave it out for 3240",
        ),
        (
            "lab/1-1",
            "\"1-1\" does not name a device: write VID:PID or VID:PID:SERIAL, such as 0403:6001, or busid:1-1.4",
        ),
        (
            "lab/403:6001",
            "vendor id must be 4 hex digits, such as 0403, or * for any",
        ),
        (
            "lab/0403:+600",
            "product id must be 4 hex digits, such as 6001, or * for any",
        ),
        (
            "lab/nth:0:0403:6001",
            "\"0\" is not a number: write nth:N:VID:PID with N from 1 to 255, such as nth:2:0403:6001",
        ),
        (
            "lab/0403:6001:",
            "the serial number is empty, too long, or has control characters: leave it out, with its colon, for any",
        ),
        (
            "lab/busid:a b",
            "\"a b\" is not a bus id: it has 1 to 31 letters, digits, \"-\", \".\" and \"_\", such as 1-1.4",
        ),
    ] {
        assert_eq!(
            text.parse::<RemoteDevice>().unwrap_err().to_string(),
            fault,
            "{text}"
        );
    }
}

#[test]
fn an_address_followed_by_other_text_is_not_a_host() {
    for text in [
        "[fd00::1]x",
        "[fd00::1]3240",
        "[fe80::1%]",
        "[fe80::1%a b]",
        "[fe80::1%sixteen-letters-]",
        "[lab]",
    ] {
        let error = text.parse::<Server>().unwrap_err();
        assert!(matches!(error, AddressError::Host { .. }), "{text}: {error}");
    }
}

#[test]
fn ids_and_serial_number_of_a_device_are_compared_with_the_requested_ones() {
    let ids = UsbIds {
        vendor: 0x403,
        product: 0x6001,
    };
    assert_eq!(ids.to_string(), "0403:6001");
    for (wanted, are_wanted) in [("0403:6001", true), ("*:6001", true), ("0403:6010", false)] {
        assert_eq!(ids.match_pattern(wanted.parse().unwrap()), are_wanted, "{wanted}");
    }
    for (wanted, serial, is_wanted) in [
        ("0403:6001", None, true),
        ("0403:6001", Some("A"), true),
        ("busid:1-1", None, true),
        ("0403:6001:A", Some("A"), true),
        ("0403:6001:A_B", Some("A B"), true),
        ("0403:6001:A", Some("B"), false),
        ("busid:1-1:0403:6001:A", None, false),
    ] {
        let device: ServerDevice = wanted.parse().unwrap();
        assert_eq!(device.matches_serial(serial), is_wanted, "{wanted} {serial:?}");
    }
    assert_eq!("1-1.4".parse::<BusId>().unwrap().as_str(), "1-1.4");
}

#[test]
fn a_rule_that_covers_a_request_overlaps_with_it() {
    for (rule, asked, is_covered, may_be) in [
        ("0403:*", "nth:2:0403:6001:FT1", true, true),
        ("0403:6001", "0403:*", false, true),
        ("0403:6001", "*:6001", false, true),
        ("0403:6001", "*:*:FT1", false, true),
        ("0403:6001", "0403:6010", false, false),
        ("0403:6001:FT1", "0403:6001", false, true),
        ("0403:6001:FT2", "0403:6001:FT1", false, false),
        // Case README 6: the first is udev's spelling, the second the device's own.
        ("0403:6001:My_Board", "0403:6001:My Board", true, true),
        ("0403:6001:My Board", "0403:6001:My_Board", false, true),
        ("0403:6001", "busid:1-1:0403:6001", true, true),
        ("0403:6001", "busid:1-1:0403:6010", false, false),
        ("0403:6001", "busid:1-1", false, true),
        ("busid:1-1", "busid:1-1:0403:6001", true, true),
        ("busid:1-1", "busid:1-2", false, false),
        ("busid:1-1", "0403:6001", false, true),
        ("busid:1-1:0403:6001", "busid:1-1", false, true),
        ("busid:1-1:0403:6001", "nth:2:0403:6001", false, true),
        ("*:*", "busid:1-1", false, true),
    ] {
        let (rule, asked): (ServerDevice, ServerDevice) = (rule.parse().unwrap(), asked.parse().unwrap());
        let found = (rule.covers(&asked), rule.may_overlap(&asked));
        assert_eq!(found, (is_covered, may_be), "{rule} {asked}");
    }
}

proptest! {
    #[test]
    fn an_address_survives_formatting_and_parsing(
        text in r"(\[[0-9a-f:%]{2,12}\]|[a-zA-Z0-9.-]{1,12})(:[0-9]{1,5})?/((nth:[0-9]{1,3}:|busid:[0-9.-]{1,8}:)?([0-9a-fA-F]{4}|\*):([0-9a-f]{4}|\*)(:\PC{1,8})?|busid:[0-9.-]{1,12})",
    ) {
        if let Ok(device) = text.parse::<RemoteDevice>() {
            prop_assert_eq!(device.to_string().parse(), Ok(device));
        }
    }

    #[test]
    fn any_text_is_parsed_or_refused_with_one_short_line(text in any_text()) {
        if let Err(error) = text.parse::<RemoteDevice>() {
            let message = error.to_string();
            prop_assert!(message.chars().count() < 200 && !message.contains('\n'), "{}", message);
        }
    }
}
