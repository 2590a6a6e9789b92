//! The file of usbip-device-plugin.

use super::*;

/// The example of usbip-device-plugin's README (compat.md 4).
const USBIPS: &str = "\
resources:
  some-device:
    - target:
        host: usbip.example.com
        port: 3240
      selector:
        vendor: 0x1050
        product: 0x0407
  Other-Device:
    - target: {host: 'fd00::1', port: 3241}
      Selector: {Vendor: 1027, bus_id: \"1-1.2\"}
      extras: [{host_path: /dev/ttyACM0, container_path: /dev/ttyACM0, permissions: rw}]
";

#[test]
fn usbip_device_plugins_file_is_accepted_unchanged_under_either_option() {
    let read = usbip(USBIPS).unwrap();
    let all = [
        (
            "usbip.dev.mvalvekens.be/some-device",
            vec![vec!["usbip:usbip.example.com/1050:0407;required".to_owned()]],
        ),
        (
            "usbip.dev.mvalvekens.be/other-device",
            vec![vec![
                "usbip:[fd00::1]:3241/busid:1-1.2:0403:*;required".to_owned(),
                "usbip:[fd00::1]:3241/busid:1-1.2:0403:*;path=/dev/ttyACM0;only=glob:/dev/ttyACM[0-9]*"
                    .to_owned(),
            ]],
        ),
    ];
    assert_eq!(remotes(&read), all);
    assert_eq!(remotes(&own(USBIPS).unwrap()), all);
    assert!(notes(&usbip_texts(USBIPS)).is_empty());
}

#[test]
fn usbip_device_plugins_file_may_omit_keys_and_may_have_serial_numbers() {
    let target = "target: {host: lab}";
    for (entry, request) in [
        (format!("{{{target}}}"), "usbip:lab/*:*"),
        (
            format!("{{{target}, selector: {{vendor: 0, product: 7, bus_id: ''}}}}"),
            "usbip:lab/*:0007",
        ),
        (
            format!("{{{target}, selector: {{vendor: '0x1050'}}, extras: null}}"),
            "usbip:lab/1050:*",
        ),
        (
            format!("{{{target}, selector: {{bus_id: 1-1}}}}"),
            "usbip:lab/busid:1-1",
        ),
        (
            format!("{{{target}, selector: {{serial: 'A/1;2'}}}}"),
            "usbip:lab/*:*:A/1\\;2",
        ),
        (
            format!("{{{target}, selector: {{vendor: 1, product: 2, bus_id: 1-1, serial: X}}}}"),
            "usbip:lab/busid:1-1:0001:0002:X",
        ),
        ("{target: {host: '[FD00::1]'}}".to_owned(), "usbip:[fd00::1]/*:*"),
        (
            "{target: {host: 10.0.0.7, port: '99'}}".to_owned(),
            "usbip:10.0.0.7:99/*:*",
        ),
    ] {
        let read = usbip(&format!("resources: {{a: [{entry}]}}")).unwrap();
        assert_eq!(remotes(&read)[0].1, [[format!("{request};required")]], "{entry}");
    }
    let named = usbip("domain: example.com\nresources: {a: []}").unwrap();
    assert_eq!(remotes(&named), [("example.com/a", vec![])]);
    let texts = Texts {
        domain: Some("example.org".to_owned()),
        usbip: Some((
            "config.yaml".into(),
            "domain: example.com\nresources: {a: []}".to_owned(),
        )),
        ..Texts::default()
    };
    let argued = read(&texts, &classes()).unwrap();
    assert_eq!(remotes(&argued.definitions), [("example.org/a", vec![])]);
}

#[test]
fn an_extra_has_its_path_or_gets_a_note() {
    let asked = |extras: &str| {
        let text = format!("resources: {{a: [{{target: {{host: lab}}, extras: [{extras}]}}]}}");
        let read = usbip(&text).unwrap();
        (remotes(&read)[0].1[0][1..].to_vec(), notes(&usbip_texts(&text)))
    };
    let one = |host: &str, container: &str| format!("{{host_path: {host}, container_path: {container}}}");
    for (extras, requests) in [
        // A node of the same driver with any number.
        (
            one("/dev/ttyUSB0", "''"),
            vec!["path=/dev/ttyUSB0;only=glob:/dev/ttyUSB[0-9]*"],
        ),
        (
            one("/dev/hidraw3", "/dev/key"),
            vec!["path=/dev/key;only=glob:/dev/hidraw[0-9]*"],
        ),
        // Two equal entries differ only in their numbers.
        (
            [one("/dev/ttyUSB0", "/dev/ttyUSB0"), one("/dev/ttyUSB1", "/dev/b")].join(", "),
            vec!["path=/dev/b;only=devnode:/dev/ttyUSB1"],
        ),
        (
            one("/dev/serial/by-id/usb-X-port0", "/dev/serial/by-id/usb-X-port0"),
            vec![],
        ),
        (
            one("/dev/serial/by-id/usb-X-port0", "/dev/b"),
            vec!["path=/dev/b;only=devnode:/dev/serial/by-id/usb-X-port0"],
        ),
    ] {
        let expected: Vec<String> = requests
            .iter()
            .map(|request| format!("usbip:lab/*:*;{request}"))
            .collect();
        assert_eq!(asked(&extras), (expected, vec![]), "{extras}");
    }
    let (requests, notes) = asked(&one("/dev/ttyUSB0", "/srv/board"));
    assert!(requests.is_empty(), "{requests:?}");
    let [note] = &notes[..] else { panic!("{notes:?}") };
    assert!(
        note.starts_with(
            "usbip.dev.mvalvekens.be/a: the extra /dev/ttyUSB0 of lab/*:* cannot be at /srv/board, which must be"
        ),
        "{note}"
    );
}

#[test]
fn every_error_in_usbip_device_plugins_file_names_resource_and_entry() {
    let entry = |text: &str| format!("resources: {{a: [{{target: {{host: lab}}}}, {text}]}}");
    for (text, part) in [
        (
            String::new(),
            "config.yaml: the file has no resource: write resources: {NAME: ",
        ),
        ("resources: {}".to_owned(), "the file has no resource"),
        (
            "listen: ':8080'".to_owned(),
            "config.yaml: unknown field `listen`, expected `domain` or `resources`",
        ),
        (
            "resources: {a_: []}".to_owned(),
            "resource \"a_\": resource name \"usbip.dev.mvalvekens.be/a_\"",
        ),
        (
            "resources: {a: {target: 1}}".to_owned(),
            "resource \"a\": invalid type: map, expected a sequence",
        ),
        (
            entry("{}"),
            "config.yaml, resource \"a\", entry 2: missing field `target`",
        ),
        (entry("{target: {}}"), "entry 2: target: missing field `host`"),
        (
            entry("{target: {host: x}, selector: {vendr: 1}}"),
            "entry 2: selector: unknown field `vendr`",
        ),
        (
            entry("{target: {host: 'lab:1'}}"),
            "entry 2: the host has a port: write it as port:",
        ),
        (
            entry("{target: {host: 'a b'}}"),
            "entry 2: \"a b:3240\" is not a host",
        ),
        (
            entry("{target: {host: x, port: 70000}}"),
            "entry 2: port \"70000\" must be a number up to 0xffff",
        ),
        (
            entry("{target: {host: x}, selector: {vendor: '0403'}}"),
            "entry 2: vendor \"0403\" must be a number",
        ),
        (
            entry("{target: {host: x}, selector: {vendor: abc}}"),
            "entry 2: vendor \"abc\" must be a number",
        ),
        (
            entry("{target: {host: x}, selector: {vendor: -1}}"),
            "a number, such as 0x0403",
        ),
        (
            entry("{target: {host: x}, selector: {bus_id: a/b}}"),
            "entry 2: \"a/b\" is not a bus id",
        ),
        (
            entry("{target: {host: x}, extras: [{host_path: ttyUSB0}]}"),
            "the extra \"ttyUSB0\" must be an absolute path",
        ),
        (
            entry("{target: {host: x}, extras: [{host_path: /dev/a, permissions: rx}]}"),
            "permissions \"rx\" must be one to three",
        ),
    ] {
        let error = usbip(&text).map(|read| format!("{read:?}")).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
}
