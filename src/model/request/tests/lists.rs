//! Lists of requests, single requests, and every message about them.

use super::*;

#[test]
fn a_backslash_makes_any_character_part_of_a_value() {
    let parsed = request(r"  usb:0403:6001:a\,b\;c\&d\\\ ;link=/dev/x\;y\ z  ");
    let [term] = parsed.selector.terms() else {
        panic!("{parsed}")
    };
    let Selector::Usb { serial, .. } = &term.selector else {
        panic!("{parsed}")
    };
    assert_eq!(serial.as_deref(), Some(r"a,b;c&d\ "));
    assert_eq!(parsed.options.links, [PathBuf::from("/dev/x;y z")]);
    assert_eq!(request(&parsed.to_string()), parsed);
}

#[test]
fn a_list_is_split_at_commas_and_trimmed() {
    let texts = |list: &str| {
        let requests = parse_requests(list).unwrap();
        requests.iter().map(Request::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        texts(" usb:0403 ,\n\tport:1-1.4;required "),
        ["usb:0403", "port:1-1.4;required"]
    );
    assert_eq!(
        texts(r"usb:0403:6001:a\,b,tag:x"),
        [r"usb:0403:6001:a\,b", "tag:x"]
    );
    assert_eq!(texts(&["tag:x"; 256].join(",")).len(), 256);
}

/// Case newcomer: quoting.
#[test]
fn a_list_may_have_one_request_per_line() {
    let texts = |list: &str| {
        let requests = parse_requests(list).unwrap();
        requests.iter().map(Request::to_string).collect::<Vec<_>>()
    };
    let expected = ["usb:0403:6001;link=/dev/board", "port:1-1.4;required"];
    for list in [
        "usb:0403:6001;link=/dev/board\nport:1-1.4;required\n",
        "\n  usb:0403:6001;link=/dev/board\r\n\n  port:1-1.4;required\r\n\n",
        "usb:0403:6001;link=/dev/board,\nport:1-1.4;required",
    ] {
        assert_eq!(texts(list), expected, "{list:?}");
    }
    assert_eq!(
        parse_requests("tag:a\n;required").unwrap_err().to_string(),
        "device request \";required\": no device is named: write KIND:VALUE, such as usb:0403:6001"
    );
    assert_eq!(
        parse_requests("driver:a\\\nb").unwrap_err().to_string(),
        "device request \"driver:a\\\\nb\": a value must not have control characters"
    );
    assert_eq!("tag:a\n".parse::<Request>().unwrap().to_string(), "tag:a");
    assert!("tag:a\ntag:b".parse::<Request>().is_err());
    let theirs = parse_lowrisc_devices("usb:0403\ndevnode:/dev/ttyS0\n").unwrap();
    assert_eq!(theirs.len(), 2);
}

#[test]
fn every_error_in_a_list_has_its_message() {
    let nothing = "device requests: no request: name a device, such as usb:0403:6001, or remove the value";
    let long = "x".repeat(MAX_TEXT + 1);
    let many = ["tag:x"; 257].join(",");
    for (text, message) in [
        ("", nothing),
        (" \n ", nothing),
        (
            "usb:0403,",
            "device request 2 of 2 is empty: remove the extra \",\"",
        ),
        (
            ",usb:0403",
            "device request 1 of 2 is empty: remove the extra \",\"",
        ),
        (
            "tag:a, ,tag:b",
            "device request 2 of 3 is empty: remove the extra \",\"",
        ),
        (
            long.as_str(),
            "device requests: 65537 bytes are too many: at most 65536 are read",
        ),
        (
            many.as_str(),
            "device requests: 257 are too many: at most 256 are read",
        ),
        (
            "tag:a, usb:12345:6001 ",
            "device request \"usb:12345:6001\": vendor id must be 4 hex digits, such as 0403",
        ),
        (
            ";required",
            "device request \";required\": no device is named: write KIND:VALUE, such as usb:0403:6001",
        ),
        (
            "usb:0403:6001\u{1b}[2J\n",
            "device request \"usb:0403:6001\\u{1b}[2J\": a value must not have control characters",
        ),
    ] {
        let error = parse_requests(text).expect_err(message);
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn a_remote_device_is_one_device_and_accepts_all_options() {
    let text = "usbip:lab:3241/0403:6001:FT/1;path=/dev/board;link=/dev/a;required;exclusive";
    assert_eq!(request(text).to_string(), text);
    assert_eq!(
        request(text).selector.remote().map(|remote| remote.to_string()),
        Some("lab:3241/0403:6001:FT/1".to_owned())
    );
    assert_eq!(request("usb:0403").selector.remote(), None);
    assert_eq!(
        fault("usbip:lab"),
        "usbip: no device is named behind the host: write HOST/VID:PID, such as \
         lab:3240/0403:6001, or HOST/busid:BUSID"
    );
    assert!(fault("usb:0403;only=usbip:lab/0403:6001").contains("usbip: must stand alone"));
}

#[test]
fn a_single_request_is_not_a_list() {
    assert_eq!(
        "tag:a,tag:b,".parse::<Request>().unwrap_err().to_string(),
        "device request \"tag:a,tag:b,\": one request is expected, but there are 3: write \"\\,\" where a comma is \
         part of a value"
    );
    assert_eq!(" ".parse::<Request>(), Err(RequestError::Empty));
    let padded = format!("tag:a{}", " ".repeat(MAX_TEXT - 5));
    assert_eq!(padded.parse::<Request>(), Ok(request("tag:a")));
    assert_eq!(parse_requests(&padded).unwrap().len(), 1);
    let length = MAX_TEXT + 1;
    assert_eq!(
        "x".repeat(length).parse::<Request>(),
        Err(RequestError::TooLong { length })
    );
}

#[test]
fn a_message_does_not_repeat_a_long_value() {
    for text in [
        format!("usb:{}", "4".repeat(5000)),
        "x".repeat(5000),
        format!("usb:0403;{}", "x".repeat(5000)),
        format!("usb:0403;on-removal=signal:{}", "x".repeat(5000)),
        format!("devnode:/tmp/{}", "x".repeat(5000)),
    ] {
        let message = text.parse::<Request>().unwrap_err().to_string();
        assert!(message.len() < 330, "{message}");
        assert!(message.contains('…'), "{message}");
    }
}

#[test]
fn a_request_is_stored_as_its_text() {
    let original = request(r#"usb:0403:6001:a"b\,;mode=0600"#);
    let json = serde_json::to_string(&original).unwrap();
    assert_eq!(json, r#""usb:0403:6001:a\"b\\,;mode=0600""#);
    assert_eq!(serde_json::from_str::<Request>(&json).unwrap(), original);
    let error = serde_json::from_str::<Request>("\"ubs:1\"")
        .unwrap_err()
        .to_string();
    assert!(error.contains("did you mean \"usb\"?"), "{error}");
}
