use super::*;
use proptest::prelude::*;

fn properties(pairs: &[(&str, &str)]) -> Properties {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn message(pairs: &[(&str, &str)]) -> Option<Message> {
    Message::from_properties(properties(pairs), UdevState::Pending)
}

const TTY: &str = "/devices/pci0000:00/0000:00:14.0/usb1/1-1/1-1:1.0/ttyUSB0/tty/ttyUSB0";

#[test]
fn a_uevent_file_gives_number_node_devtype_and_driver() {
    let text = b"MAJOR=189\nMINOR=5\nDEVNAME=bus/usb/001/006\nDEVTYPE=usb_device\nDRIVER=usb\nPRODUCT=403/6001/600\n";
    let device = from_uevent(
        SysPath::new("/sys/devices/usb1/1-1"),
        Some("usb".into()),
        parse_uevent(text),
    );
    let node = device.node.unwrap();
    assert_eq!(node.path, PathBuf::from("/dev/bus/usb/001/006"));
    assert_eq!(node.num.to_string(), "c 189:5");
    assert_eq!(device.devtype.as_deref(), Some("usb_device"));
    assert_eq!(device.driver.as_deref(), Some("usb"));
    assert_eq!(device.properties["PRODUCT"], "403/6001/600");
    assert_eq!(device.properties["DEVNAME"], "/dev/bus/usb/001/006");
}

#[test]
fn numbers_of_the_block_subsystem_are_block_numbers() {
    let text = parse_uevent(b"MAJOR=7\nMINOR=0\nDEVNAME=loop0\nDEVTYPE=disk\n");
    let device = from_uevent(
        SysPath::new("/sys/devices/virtual/block/loop0"),
        Some("block".into()),
        text,
    );
    assert_eq!(device.node.unwrap().num.to_string(), "b 7:0");
}

#[test]
fn a_device_without_number_or_with_a_broken_one_has_no_node() {
    for text in [
        &b"DRIVER=ftdi_sio\n"[..],
        b"MAJOR=x\nMINOR=0\nDEVNAME=a\n",
        b"MAJOR=1\nMINOR=3\n",
    ] {
        let device = from_uevent(SysPath::new("/sys/devices/a"), None, parse_uevent(text));
        assert_eq!(device.node, None, "{}", String::from_utf8_lossy(text));
    }
}

#[test]
fn bytes_that_are_not_text_are_replaced() {
    let found = parse_uevent(b"NAME=\"caf\xe9\"\nno equals sign\n=no key\nEMPTY=\n");
    assert_eq!(found["NAME"], "\"caf\u{fffd}\"");
    assert_eq!(found["EMPTY"], "");
    assert_eq!(found.len(), 2);
}

#[test]
fn an_add_message_becomes_added_with_path_node_and_number() {
    let found = message(&[
        ("ACTION", "add"),
        ("DEVPATH", TTY),
        ("SUBSYSTEM", "tty"),
        ("MAJOR", "188"),
        ("MINOR", "0"),
        ("DEVNAME", "/dev/ttyUSB0"),
        ("SEQNUM", "4711"),
    ]);
    let Some(DeviceEvent::Added(device)) = found.map(Message::into_event) else {
        panic!("not Added");
    };
    assert_eq!(device.syspath.as_str(), format!("/sys{TTY}"));
    assert_eq!(device.subsystem.as_deref(), Some("tty"));
    assert_eq!(device.node.unwrap().path, PathBuf::from("/dev/ttyUSB0"));
    assert_eq!((device.seqnum, device.udev_state), (4711, UdevState::Pending));
}

#[test]
fn change_bind_unbind_online_offline_and_unknown_actions_are_changes() {
    for action in ["change", "bind", "unbind", "online", "offline", "frobnicate"] {
        let found = message(&[("ACTION", action), ("DEVPATH", TTY)]).unwrap();
        assert_eq!(found.happened, Happened::Changed, "{action}");
    }
}

#[test]
fn a_move_tells_where_the_device_was() {
    let found = message(&[
        ("ACTION", "move"),
        ("DEVPATH", "/devices/b"),
        ("DEVPATH_OLD", "/devices/a"),
        ("SEQNUM", "9"),
    ]);
    let Some(DeviceEvent::Moved { from, device }) = found.map(Message::into_event) else {
        panic!("not Moved");
    };
    assert_eq!(
        (from.as_str(), device.syspath.as_str()),
        ("/sys/devices/a", "/sys/devices/b")
    );
    let without = message(&[("ACTION", "move"), ("DEVPATH", "/devices/b")]).unwrap();
    assert_eq!(without.happened, Happened::Changed);
}

#[test]
fn a_remove_is_only_a_path_and_a_number() {
    let found = message(&[("ACTION", "remove"), ("DEVPATH", TTY), ("SEQNUM", "12")]).unwrap();
    let syspath = SysPath::new(format!("/sys{TTY}"));
    assert_eq!(found.into_event(), DeviceEvent::Removed { syspath, seqnum: 12 });
}

#[test]
fn messages_about_modules_drivers_and_strange_paths_are_not_device_messages() {
    for devpath in [
        "/module/loop",
        "/bus/usb/drivers/cp210x",
        "/devices/",
        "/devices/../etc",
        "devices/a",
        "",
    ] {
        assert_eq!(
            message(&[("ACTION", "add"), ("DEVPATH", devpath)]),
            None,
            "{devpath}"
        );
    }
    assert_eq!(message(&[("DEVPATH", TTY)]), None);
}

#[test]
fn current_tags_count_where_the_database_knows_them() {
    let old = properties(&[("TAGS", ":systemd:seat:")]);
    assert_eq!(
        tags(&old),
        BTreeSet::from(["systemd".to_owned(), "seat".to_owned()])
    );
    let new = properties(&[("TAGS", ":systemd:seat:"), ("CURRENT_TAGS", ":seat:")]);
    assert_eq!(tags(&new), BTreeSet::from(["seat".to_owned()]));
    let none_left = properties(&[("TAGS", ":systemd:"), ("UDEV_DATABASE_VERSION", "1")]);
    assert_eq!(tags(&none_left), BTreeSet::new());
}

#[test]
fn links_are_the_absolute_paths_below_dev() {
    let found = links(&properties(&[(
        "DEVLINKS",
        "/dev/serial/by-id/usb-FTDI /etc/passwd /dev/serial/by-path/x",
    )]));
    let expected = ["/dev/serial/by-id/usb-FTDI", "/dev/serial/by-path/x"].map(PathBuf::from);
    assert_eq!(found, BTreeSet::from(expected));
}

proptest! {
    #[test]
    fn no_bytes_make_the_uevent_parser_panic(text in prop::collection::vec(any::<u8>(), 0..512)) {
        let syspath = SysPath::new("/sys/devices/a");
        let mut device = from_uevent(syspath, Some("block".into()), parse_uevent(&text));
        take_udev_facts(&mut device);
    }

    #[test]
    fn what_is_written_as_uevent_is_read_back(
        pairs in prop::collection::btree_map("[A-Z_]{1,12}", "[ -~]{0,24}", 0..12),
    ) {
        let text: String = pairs.iter().map(|(key, value)| format!("{key}={value}\n")).collect();
        prop_assert_eq!(parse_uevent(text.as_bytes()), pairs);
    }

    #[test]
    fn every_message_keeps_its_path_below_sys_devices(
        pairs in prop::collection::btree_map(
            "ACTION|DEVPATH|DEVPATH_OLD|SEQNUM|MAJOR|MINOR|DEVNAME|SUBSYSTEM|TAGS|DEVLINKS",
            "(/devices)?[/.a-z0-9:]{0,24}|add|move|remove", 0..10,
        ),
    ) {
        if let Some(found) = Message::from_properties(pairs, UdevState::Processed) {
            prop_assert!(found.device.syspath.as_str().starts_with("/sys/devices/"));
            prop_assert!(!found.device.syspath.as_str().contains("/../"));
        }
    }
}
