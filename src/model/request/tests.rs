//! Every option, list and message of the request grammar, and which recorded devices a request
//! selects.

use crate::model::any_text::any_text;

use proptest::prelude::*;

use super::*;
use crate::model::device::recorded;
use crate::model::oci::ProcessUser;
use crate::model::plan::Planner;
use crate::model::request::entry::{Origin, RequestEntry};
use crate::model::request::selector::tests::{any_device_selector, any_selector};

fn request(text: &str) -> Request {
    text.parse()
        .unwrap_or_else(|error| panic!("{text:?} should be a request: {error}"))
}

fn fault(text: &str) -> String {
    match text.parse::<Request>() {
        Err(RequestError::Malformed { fault, .. }) => fault.to_string(),
        other => panic!("{text:?} should be malformed: {other:?}"),
    }
}

#[test]
fn a_request_without_options_has_the_defaults() {
    let options = request("usb:0403").options;
    assert_eq!(options, Options::default());
    assert_eq!(options.access, Access::ALL);
    assert_eq!(options.on_removal, OnRemoval::Keep);
}

#[test]
fn options_are_parsed_in_any_order_and_written_in_a_fixed_one() {
    let text = "usb:0403:6001;grace=10000ms;or=parent-of:usb:18d1&!tag:x;on-removal=signal:hup;ready=udev;exclusive;required;only=subsystem:tty;only=driver:x;\
                link=/run/b;link=/dev/a;path=/dev/sensor;gid=20;uid=1000;mode=660;access=wr";
    let parsed = request(text);
    let expected = Options {
        access: Access::READ | Access::WRITE,
        mode: Some(0o660),
        uid: Some(1000),
        gid: Some(20),
        path: Some("/dev/sensor".into()),
        links: vec!["/run/b".into(), "/dev/a".into()],
        only: vec![
            Selector::Subsystem("tty".to_owned()),
            Selector::Driver("x".to_owned()),
        ],
        required: true,
        exclusive: true,
        ready: Some(Ready::Udev),
        on_removal: OnRemoval::Signal("SIGHUP".to_owned()),
        grace: Duration::from_secs(10),
        or: vec!["parent-of:usb:18d1&!tag:x".parse().unwrap()],
    };
    assert_eq!(parsed.options, expected);
    assert_eq!(
        parsed.to_string(),
        "usb:0403:6001;access=rw;mode=0660;uid=1000;gid=20;path=/dev/sensor;link=/run/b;link=/dev/a;\
         only=subsystem:tty;only=driver:x;or=parent-of:usb:18d1&!tag:x;required;exclusive;ready=udev;\
         on-removal=signal:SIGHUP;grace=10s"
    );
}

#[test]
fn defaults_are_not_written() {
    assert_eq!(
        request("usb:0403 ; access=mrw ;on-removal=keep").to_string(),
        "usb:0403"
    );
    assert_eq!(
        request("usb:0403;on-removal=stop").to_string(),
        "usb:0403;on-removal=stop"
    );
    assert_eq!(
        request("usb:0403;on-removal=stop;grace=0s").to_string(),
        "usb:0403;on-removal=stop"
    );
    assert_eq!(
        request("usb:0403;grace=1500ms;on-removal=stop").to_string(),
        "usb:0403;on-removal=stop;grace=1500ms"
    );
    assert_eq!(
        request("usb:0403;on-removal=kill").to_string(),
        "usb:0403;on-removal=kill"
    );
    assert_eq!(
        request("usb:0403;ready=kernel").options.ready,
        Some(Ready::Kernel)
    );
}

#[test]
fn the_limits_of_numbers_are_accepted() {
    assert_eq!(request("usb:0403;mode=1").options.mode, Some(1));
    assert_eq!(request("usb:0403;mode=00777").options.mode, Some(0o777));
    assert_eq!(
        request("usb:0403;uid=0;gid=4294967294").options.gid,
        Some(4_294_967_294)
    );
}

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
fn every_error_in_an_option_has_its_message() {
    let known = "access, mode, uid, gid, path, link, only, or, required, exclusive, ready, on-removal, grace";
    let access =
        "access must be one to three of the letters r, w and m, each at most once, such as access=rw";
    let mode = "mode must be an octal number from 0001 to 0777, such as mode=0660";
    let id = |name: &str| format!("{name} must be a number from 0 to 4294967294");
    let needs = |name: &str, example: &str| format!("option {name} needs a value, such as {example}");
    let twice =
        |name: &str| format!("option {name} is given twice: only link=, only= and or= may be repeated");
    let signal = |name: &str| {
        format!(
            "on-removal=signal: takes the name of a Linux signal, such as HUP or SIGTERM, and not \"{name}\""
        )
    };
    let grace =
        "grace must be a number of seconds or milliseconds, at most 3600s, such as grace=10s or grace=500ms";
    let components = "must not have empty, \".\" or \"..\" components";
    let below_dev = "must be absolute and below /dev, such as /dev/ttyUSB0";
    for (option, message) in [
        (
            "",
            "an option is missing after a \";\": remove the extra \";\"".to_owned(),
        ),
        (
            "required;",
            "an option is missing after a \";\": remove the extra \";\"".to_owned(),
        ),
        (
            "moed=0660",
            format!("unknown option \"moed\" (did you mean \"mode\"?); known are {known}"),
        ),
        (
            "onremoval=stop",
            format!("unknown option \"onremoval\" (did you mean \"on-removal\"?); known are {known}"),
        ),
        (
            "owner=root",
            format!("unknown option \"owner\" (did you mean \"uid\"?); known are {known}"),
        ),
        ("a\tb", format!("unknown option \"a\\tb\"; known are {known}")),
        ("access", needs("access", "access=rw")),
        ("mode=", needs("mode", "mode=0660")),
        ("uid=", needs("uid", "uid=1000")),
        ("gid", needs("gid", "gid=20")),
        ("path=", needs("path", "path=/dev/sensor")),
        ("link", needs("link", "link=/dev/sensor")),
        ("only=", needs("only", "only=subsystem:tty")),
        ("ready=", needs("ready", "ready=kernel")),
        ("on-removal", needs("on-removal", "on-removal=stop")),
        (
            "required=yes",
            "option required takes no value: write ;required".to_owned(),
        ),
        (
            "required=",
            "option required takes no value: write ;required".to_owned(),
        ),
        ("required;required", twice("required")),
        ("mode=0600;mode=0600", twice("mode")),
        ("access=x", access.to_owned()),
        ("access=rr", access.to_owned()),
        ("mode=0", mode.to_owned()),
        ("mode=4755", mode.to_owned()),
        ("mode=0o660", mode.to_owned()),
        ("mode=+660", mode.to_owned()),
        ("mode=888", mode.to_owned()),
        ("uid=4294967295", id("uid")),
        ("uid=root", id("uid")),
        ("gid=+1", id("gid")),
        ("gid=-1", id("gid")),
        ("path=sensor", format!("path {below_dev}")),
        ("path=/run/sensor", format!("path {below_dev}")),
        ("path=/dev/../sensor", format!("path {components}")),
        (
            "link=sensor",
            "link must be absolute, beginning with \"/\"".to_owned(),
        ),
        (
            "link=/dev",
            "link must not be /dev itself, but a place for a link, such as /dev/sensor".to_owned(),
        ),
        ("link=/run/../sensor", format!("link {components}")),
        ("link=/run/x/", "link must not end in \"/\"".to_owned()),
        (
            "link=/run/\\",
            "nothing follows the last \"\\\": write \"\\\\\" for a backslash".to_owned(),
        ),
        (
            "only=tty",
            "only= takes one selector: \"tty\" has no kind: write KIND:VALUE, such as usb:0403:6001"
                .to_owned(),
        ),
        (
            "only=tag:x&tag:y",
            "only= takes one selector: \"&\" is not allowed here: write \"\\&\" where it is part of the value"
                .to_owned(),
        ),
        (
            "ready=now",
            "ready must be kernel or udev, such as ready=kernel".to_owned(),
        ),
        (
            "on-removal=exit",
            "on-removal must be keep, stop, kill or signal:NAME, such as on-removal=signal:HUP".to_owned(),
        ),
        ("or=", needs("or", "or=usb:18d1:9302")),
        (
            "or=tty",
            "or= takes a selector, as at the beginning of a request: \"tty\" has no kind: write KIND:VALUE, such as \
             usb:0403:6001"
                .to_owned(),
        ),
        (
            "or=usbip:lab/0403:6001",
            "usbip: must stand alone, without parent-of:, \"&\", only= and or=".to_owned(),
        ),
        ("grace", needs("grace", "grace=10s")),
        ("on-removal=stop;grace=10", grace.to_owned()),
        ("on-removal=stop;grace=s", grace.to_owned()),
        ("on-removal=stop;grace=+1s", grace.to_owned()),
        ("on-removal=stop;grace=1m", grace.to_owned()),
        ("on-removal=stop;grace=3601s", grace.to_owned()),
        ("on-removal=stop;grace=3600001ms", grace.to_owned()),
        ("on-removal=stop;grace=99999999s", grace.to_owned()),
        (
            "grace=10s",
            "grace= delays what on-removal= does: add on-removal=stop, kill or signal:NAME".to_owned(),
        ),
        ("on-removal=signal:", signal("")),
        ("on-removal=signal:1", signal("1")),
        ("on-removal=signal:FOO\n", signal("FOO")),
    ] {
        assert_eq!(fault(&format!("usb:0403;{option}")), message, "{option:?}");
    }
    let links: String = (0..65).map(|n| format!(";link=/l{n}")).collect();
    assert_eq!(fault(&format!("usb:0403{links}")), "more than 64 link= options");
    let alternatives = ";or=tag:x".repeat(17);
    assert_eq!(
        fault(&format!("usb:0403{alternatives}")),
        "more than 16 or= options"
    );
    assert_eq!(
        fault("usbip:lab/0403:6001;or=usb:0403:6001"),
        "usbip: must stand alone, without parent-of:, \"&\", only= and or="
    );
}

#[test]
fn the_maximal_number_of_only_options_is_accepted_besides_others() {
    let only = ";only=subsystem:tty".repeat(16);
    assert_eq!(
        request(&format!("usb:0403{only};access=r")).options.only.len(),
        16
    );
    assert_eq!(
        fault(&format!("usb:0403{only};only=subsystem:tty")),
        "more than 16 only= options: write a glob or a regex that covers several"
    );
}

#[test]
fn a_word_of_other_programs_leads_to_the_right_option() {
    for (word, option) in [
        ("user", "uid"),
        ("owner", "uid"),
        ("group", "gid"),
        ("name", "link"),
        ("symlink", "link"),
        ("permissions", "access"),
        ("perm", "access"),
    ] {
        let fault = fault(&format!("usb:0403;{word}=x"));
        assert!(fault.contains(&format!("did you mean \"{option}\"")), "{fault}");
    }
}

#[test]
fn the_json_of_on_removal_is_its_text() {
    for text in ["keep", "stop", "kill", "signal:HUP"] {
        let action: OnRemoval = serde_json::from_str(&format!("\"{text}\"")).unwrap();
        assert_eq!(
            action,
            request(&format!("usb:0403;on-removal={text}")).options.on_removal
        );
    }
    assert!(serde_json::from_str::<OnRemoval>("\"explode\"").is_err());
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

#[test]
fn container_hotplugs_annotation_keeps_its_meaning() {
    for (text, ours) in [
        ("usb:0403", "usb:0403;mode=0644"),
        ("usb:ABCD:6001:FT001a", "usb:abcd:6001:FT001a;mode=0644"),
        (
            "parent-of:parent-of:devnode:/dev/ttyUSB0",
            "parent-of:parent-of:devnode:/dev/ttyUSB0;mode=0644",
        ),
        (r"devnode:/dev/a;b&c\d ", r"devnode:/dev/a\;b\&c\\d\ ;mode=0644"),
        ("devnode:/dev/./snd//../ttyS0", "devnode:/dev/ttyS0;mode=0644"),
        (
            "syspath:/sys/class/tty/ttyS0/device/..",
            "syspath:/sys/class/tty/ttyS0/device/..;mode=0644",
        ),
        ("syspath:/sys/devices/x/", "syspath:/sys/devices/x;mode=0644"),
    ] {
        let requests = parse_lowrisc_devices(text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        assert_eq!(requests, [request(ours)]);
        assert_eq!(requests[0].to_string(), ours);
    }
    assert_eq!(parse_lowrisc_devices("usb:0403,usb:0404").unwrap().len(), 2);
}

#[test]
fn every_error_in_container_hotplugs_annotation_has_its_message() {
    let kind = |kind: &str| {
        format!(
            "unknown device \"{kind}\": this annotation has usb:, syspath: and devnode:, each with parent-of:; \
             use io.oci-hotplug.devices for all others"
        )
    };
    let serial = "serial number must be letters and digits in this annotation; any other can be named in \
                  io.oci-hotplug.devices"
        .to_owned();
    let below_dev = "devnode path must be absolute and below /dev, such as /dev/ttyUSB0".to_owned();
    for (text, message) in [
        (" usb:0403", kind(" usb")),
        ("glob:tty*", kind("glob")),
        ("ttyUSB0", kind("ttyUSB0")),
        (
            "usb:0403 ",
            "vendor id must be 4 hex digits, such as 0403".to_owned(),
        ),
        (
            "usb:0403:6001;mode=0600",
            "product id must be 4 hex digits, such as 6001".to_owned(),
        ),
        ("usb:0403:6001:", serial.clone()),
        ("usb:0403:6001:A-1", serial.clone()),
        ("usb:0403:6001:A:1", serial),
        ("devnode:ttyUSB0", below_dev.clone()),
        ("devnode:/dev/../etc/x", below_dev),
        ("devnode:/dev/x/", "devnode path must not end in \"/\"".to_owned()),
        (
            "syspath:/proc",
            "syspath path must be absolute and below /sys, such as /sys/bus/usb/devices/1-1.4".to_owned(),
        ),
    ] {
        let error = parse_lowrisc_devices(&format!("usb:0403,{text}")).expect_err(text);
        assert_eq!(error.to_string(), format!("device request \"{text}\": {message}"));
    }
    let error = parse_lowrisc_devices("usb:0403,").unwrap_err().to_string();
    assert_eq!(error, "device request 2 of 2 is empty: remove the extra \",\"");
    assert_eq!(parse_lowrisc_devices(""), Err(RequestError::Empty));
}

#[test]
fn a_character_device_is_attached_when_it_matches_for_certain_and_a_block_device_after_udevd() {
    let mut devices = recorded::hub_with_two_adapters();
    devices.extend(recorded::disk_with_partitions());
    let early: Vec<Device> = devices.iter().cloned().map(recorded::before_udev).collect();
    // Whether the device matches at the kernel's event, and whether it then waits for udevd.
    let at_the_kernels = |text: &str, node: &str| {
        let inventory = Inventory::new(early.clone());
        let device = inventory.get(&recorded::with_node(&early, node).syspath).unwrap();
        let request = request(text);
        (
            matches!(
                request.gives(&device.syspath, device, &inventory),
                Match::Unknown(_)
            ),
            request.awaits_udev(device),
        )
    };
    for (text, node, expected) in [
        ("usb:0403", "/dev/bus/usb/001/003", (false, false)),
        ("usb:0403", "/dev/ttyUSB0", (false, false)),
        ("usb:0403;ready=udev", "/dev/ttyUSB0", (false, true)),
        ("subsystem:tty&!tag:x;ready=kernel", "/dev/ttyUSB0", (true, false)),
        ("subsystem:tty&!driver:x", "/dev/ttyUSB0", (false, false)),
        ("usb:0403;only=tag:systemd", "/dev/ttyUSB0", (true, false)),
        (
            "usb:0403;only=tag:systemd;only=subsystem:tty",
            "/dev/ttyUSB0",
            (false, false),
        ),
        ("subsystem:block", "/dev/sda1", (false, true)),
        ("subsystem:block;ready=kernel", "/dev/sda1", (false, false)),
        (
            "subsystem:block;only=property:ID_FS_TYPE=*;ready=kernel",
            "/dev/sda1",
            (true, false),
        ),
    ] {
        assert_eq!(at_the_kernels(text, node), expected, "{text} {node}");
        let inventory = Inventory::new(devices.clone());
        let device = inventory
            .get(&recorded::with_node(&devices, node).syspath)
            .unwrap();
        assert_eq!(
            request(text).gives(&device.syspath, device, &inventory),
            Match::Yes,
            "{text} {node}"
        );
        assert!(!request(text).awaits_udev(device), "{text} {node}");
    }
}

/// Case README 26. Case README 2.
#[test]
fn alternatives_are_roots_of_one_request() {
    let host = recorded::documented_host();
    let inventory = Inventory::new(host.clone());
    let nodes = |text: &str, inventory: &Inventory| {
        let asked = RequestEntry::new(Origin::Root, text.parse().unwrap());
        let mut planner = Planner::new(vec![asked], Vec::new(), ProcessUser::default());
        planner.find_roots(inventory);
        let candidates = planner.candidates(inventory);
        let mut nodes: Vec<String> = candidates
            .iter()
            .map(|candidate| candidate.device.syspath.name().to_owned())
            .collect();
        nodes.sort();
        (nodes, planner.required_and_absent().count())
    };
    for (text, given) in [
        ("usb:1a6e:089a;or=usb:18d1:9302;required", vec!["1-10", "1-9"]),
        ("usb:ffff;or=usb:18d1:9302;required", vec!["1-10"]),
        ("usb:ffff:0001;or=usb:ffff:0002", vec![]),
        // Each alternative has its own negated terms.
        ("usb:1366&!subsystem:tty;or=port:1-9", vec!["1-8", "1-9"]),
        ("usb:1366&!subsystem:tty;or=usb:1366", vec!["1-8", "ttyACM1"]),
        (
            "usb:1366&!subsystem:tty;or=parent-of:parent-of:devnode:/dev/hidraw5&!subsystem:usb",
            vec!["1-8"],
        ),
        ("usb:ffff;or=parent-of:devnode:/dev/ttyACM1", vec!["ttyACM1"]),
        ("usb:1366;or=usb:1050;only=subsystem:usb", vec!["1-7", "1-8"]),
    ] {
        assert_eq!(nodes(text, &inventory).0, given, "{text}");
    }
    assert_eq!(nodes("usb:ffff;or=usb:18d1:9302;required", &inventory).1, 0);
    assert_eq!(nodes("usb:ffff;or=usb:fffe;required", &inventory).1, 1);
}

#[test]
fn any_of_several_only_options_may_match() {
    let devices = recorded::composite_device();
    let admitted = |text: &str| {
        let options = request(text).options;
        let nodes = devices
            .iter()
            .filter(|device| device.node.is_some() && options.admits(&[device]) == Match::Yes);
        nodes.map(|device| device.syspath.name()).collect::<Vec<_>>()
    };
    assert_eq!(admitted("usb:2341;only=subsystem:tty"), ["ttyACM0"]);
    assert_eq!(
        admitted("usb:2341;only=subsystem:tty;only=glob:hidraw*"),
        ["ttyACM0", "hidraw0"]
    );
    assert_eq!(admitted("usb:2341").len(), 6);
}

fn any_path() -> impl Strategy<Value = PathBuf> {
    r"/dev(/[a-z ,;&\\=é]{1,6}){0,2}/[a-z,;&\\ ]{0,4}[a-z ]".prop_map(PathBuf::from)
}

fn any_options() -> impl Strategy<Value = Options> {
    let id = || prop::option::of(0..u32::MAX);
    let ready = prop_oneof![Just(None), Just(Some(Ready::Kernel)), Just(Some(Ready::Udev))];
    let on_removal = prop_oneof![
        Just(OnRemoval::Keep),
        Just(OnRemoval::Stop),
        Just(OnRemoval::Kill),
        Just(OnRemoval::Signal("SIGUSR1".to_owned())),
    ];
    let node = (
        1..8u32,
        prop::option::of(1..=0o777u32),
        id(),
        id(),
        prop::option::of(any_path()),
    );
    let rest = (
        prop::collection::vec(any_path(), 0..3),
        prop::collection::vec(any_selector(), 0..3),
        any::<bool>(),
        any::<bool>(),
        ready,
        on_removal,
        0..=3_600_000u64,
        prop::collection::vec(any_device_selector(), 0..3),
    );
    (node, rest).prop_map(
        |(
            (access, mode, uid, gid, path),
            (links, only, required, exclusive, ready, on_removal, grace, or),
        )| Options {
            grace: match on_removal {
                OnRemoval::Keep => Duration::ZERO,
                _ => Duration::from_millis(grace),
            },
            or,
            access: Access::from_bits_truncate(access),
            mode,
            uid,
            gid,
            path,
            links,
            only,
            required,
            exclusive,
            ready,
            on_removal,
        },
    )
}

fn any_request() -> impl Strategy<Value = Request> {
    (any_device_selector(), any_options()).prop_map(|(selector, options)| Request { selector, options })
}

proptest! {
    #[test]
    fn a_request_survives_formatting_and_parsing(request in any_request()) {
        let text = request.to_string();
        prop_assert_eq!(text.parse(), Ok(request), "{}", text);
    }

    #[test]
    fn a_list_of_requests_survives_formatting_and_parsing(requests in prop::collection::vec(any_request(), 1..4)) {
        let texts: Vec<String> = requests.iter().map(Request::to_string).collect();
        for between in [" ,\n", ",", "\n", "\r\n\n \n"] {
            let again = parse_requests(&texts.join(between));
            prop_assert_eq!(again.as_ref(), Ok(&requests), "{:?}", between);
        }
        let block = format!("\n{}\n\n", texts.join("\n"));
        prop_assert_eq!(parse_requests(&block), Ok(requests));
    }

    #[test]
    fn no_text_causes_a_panic_and_no_message_is_long_or_has_control_characters(
        text in prop_oneof![any_text(), r"(usb:0403|[;,&!=\\ \n\x1b]|only=|link=/|on-removal=signal:|mode=|.){0,32}"]
    ) {
        for parsed in [parse_requests(&text), parse_lowrisc_devices(&text), text.parse().map(|one| vec![one])] {
            if let Err(error) = parsed {
                let message = error.to_string();
                prop_assert!(message.chars().count() < 330, "{}", message);
                prop_assert!(!message.chars().any(char::is_control), "{:?}", message);
            }
        }
    }

    #[test]
    fn requests_that_container_hotplug_accepts_mean_the_same_in_the_grammar_of_oci_hotplug(
        texts in prop::collection::vec(
            r"(parent-of:){0,3}(usb:[0-9a-fA-F]{4}(:[0-9a-fA-F]{4}(:[0-9a-zA-Z]{1,9})?)?|syspath:/sys(/[a-z0-9:.]{1,5}){1,3}|devnode:/dev(/[a-z]{1,5}){1,3})",
            1..4,
        )
    ) {
        let list = texts.join(",");
        let theirs = parse_lowrisc_devices(&list).unwrap();
        let ours = parse_requests(&list).unwrap();
        prop_assert_eq!(theirs.len(), ours.len());
        for (theirs, ours) in theirs.iter().zip(&ours) {
            prop_assert_eq!(&theirs.selector, &ours.selector);
            prop_assert_eq!(theirs.options.mode, Some(0o644));
            prop_assert_eq!(theirs.to_string().parse(), Ok(theirs.clone()));
        }
    }
}

/// Case newcomer: hints for `user`, `group`, `name`, `symlink`.
#[test]
fn the_message_for_an_option_of_other_programs_names_that_of_oci_hotplug() {
    for (option, near) in [
        ("user=1000", "(did you mean \"uid\"?)"),
        ("group=dialout", "(did you mean \"gid\"?)"),
        ("name=board", "(did you mean \"link\"?)"),
        ("symlink=/dev/board", "(did you mean \"link\"?)"),
    ] {
        let error = format!("usb:0403:6001;{option}").parse::<Request>().unwrap_err();
        assert!(error.to_string().contains(near), "{error}");
    }
}
