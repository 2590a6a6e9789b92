//! Every option of a request, and every message about options.

use super::*;

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
        path: Some(NodePath::Node("/dev/sensor".into())),
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
fn a_path_that_ends_in_a_slash_is_a_directory() {
    let path = |text: &str| request(text).options.path.unwrap();
    let directory = path("usb:2040:8265;path=/dev/dvb/adapter0/");
    assert_eq!(directory, NodePath::Directory("/dev/dvb/adapter0".into()));
    assert_eq!(directory.directory(), Some(Path::new("/dev/dvb/adapter0")));
    assert_eq!(
        (directory.node(), directory.to_string().as_str()),
        (None, "/dev/dvb/adapter0/")
    );
    assert_eq!(path("usb:2040;path=/dev/"), NodePath::Directory("/dev".into()));
    let node = path("usb:2040;path=/dev/x");
    assert_eq!((node.node(), node.directory()), (Some(Path::new("/dev/x")), None));
    // Formats of other programs have paths of nodes with a slash at the end.
    assert_eq!(NodePath::Node("/dev/x/".into()).to_string(), "/dev/x");
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
        ("path=/run/sensors/", format!("path {below_dev}")),
        ("path=/dev//", format!("path {components}")),
        (
            "link=/dev/y;path=/dev/x/",
            "link= names one node, and path=/dev/x/ is a directory for all nodes: remove link=, or name one node by \
             path= without the last \"/\""
                .to_owned(),
        ),
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
