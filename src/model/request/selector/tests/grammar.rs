//! Every production of the selector grammar, and every message about a selector.

use super::*;

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
