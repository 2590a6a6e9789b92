//! The file and the arguments of generic-device-plugin.

use super::*;

#[test]
fn generic_device_plugins_file_is_accepted_unchanged() {
    let read = own(
        r#"devices:
- {"name": "serial", "groups": [{"paths": [{"path": "/dev/ttyUSB*"}]}, {"paths": [{"path": "/dev/ttyACM*"}]}]}
- {"name": "capture", "groups": [{"paths": [{"path": "/dev/snd/pcmC0D0c"}, {"path": "/dev/snd/controlC0", "limit": 10, "optional": true}]}]}
- {"name": "ch340", "groups": [{"usb": [{"vendor": "1a86", "product": "7523", "serial": ""}]}]}
- {"name": "letters", "groups": [{"count": 10, "usb": [{"vendor": "1209", "product": "000F"}]}]}
"#,
    )
    .unwrap();
    let groups = |definition: &Definition| match definition {
        Definition::Groups { name, groups } => (name.to_string(), groups.clone()),
        other => panic!("{other:?}"),
    };
    let (name, serial) = groups(&read[0]);
    assert_eq!((name.as_str(), serial.len()), ("devic.es/serial", 2));
    let Group::Usb { devices, count: 1 } = &groups(&read[2]).1[0] else {
        panic!()
    };
    assert_eq!(devices[0].to_string(), "usb:1a86:7523");
    let Group::Usb { devices, count: 10 } = &groups(&read[3]).1[0] else {
        panic!()
    };
    assert_eq!(devices[0].to_string(), "usb:1209:000f");
}

/// Each resource of generic-device-plugin with its USB devices.
fn usb_devices(definitions: &[Definition]) -> Vec<(&str, Vec<String>)> {
    let all = definitions.iter().map(|definition| {
        let Definition::Groups { name, groups } = definition else {
            panic!("{definition:?}")
        };
        let devices = groups.iter().flat_map(|group| match group {
            Group::Usb { devices, .. } => devices.iter().map(ToString::to_string).collect(),
            Group::Paths { .. } => Vec::new(),
        });
        (name.as_str(), devices.collect())
    });
    all.collect()
}

/// Each resource of generic-device-plugin with its patterns and the limit of each.
fn patterns(definitions: &[Definition]) -> Vec<(&str, Vec<(String, u32)>)> {
    let all = definitions.iter().map(|definition| {
        let Definition::Groups { name, groups } = definition else {
            panic!("{definition:?}")
        };
        let paths = groups.iter().flat_map(|group| match group {
            Group::Paths { paths, count } => {
                let texts = paths
                    .iter()
                    .map(|path| (path.pattern.as_str().to_owned(), *count));
                texts.collect()
            }
            Group::Usb { .. } => Vec::new(),
        });
        (name.as_str(), paths.collect())
    });
    all.collect()
}

/// Case README 8.
#[test]
fn generic_device_plugins_arguments_are_devices_in_yaml_or_json() {
    let read = arguments(&[
        "name: tun\ngroups: [{count: 1000, paths: [{path: /dev/net/tun}]}]",
        r#"{"name": "fuse", "groups": [{"Paths": [{"path": "/dev/fuse", "mountPath": "/dev/fuse"}]}]}"#,
        "name: 12\ngroups: [{usb: [{vendor: '1a86', product: 7523}]}]",
    ])
    .unwrap();
    assert_eq!(
        patterns(&read.definitions[..2]),
        [
            ("devic.es/tun", vec![("/dev/net/tun".to_owned(), 1000)]),
            ("devic.es/fuse", vec![("/dev/fuse".to_owned(), 1)])
        ]
    );
    assert_eq!(
        usb_devices(&read.definitions[2..]),
        [("devic.es/12", vec!["usb:1a86:7523".to_owned()])]
    );
    assert_eq!(read.notes, [""; 0]);
    for (text, part) in [
        ("- name: x", "--device, number 1: it must be a mapping"),
        ("name: [", "--device, number 1: "),
        ("groups: []", "number 1 (\"\"): resource name \"devic.es/\""),
    ] {
        let error = arguments(&[text]).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
    let error = arguments(&["name: x", "name: x"]).unwrap_err();
    assert!(
        error.contains("number 2 (\"x\"): devic.es/x is defined twice"),
        "{error}"
    );
}

/// Case README 8. As in that plugin, arguments replace the file's devices, and the file's domain
/// applies to them, too.
#[test]
fn arguments_replace_the_devices_of_the_file() {
    let texts = |own: &str, domain: Option<&str>| Texts {
        devices: vec!["name: tun".to_owned()],
        own: Some(("config.yaml".into(), own.to_owned())),
        domain: domain.map(str::to_owned),
        ..Texts::default()
    };
    let file = "domain: example.org\ndevices: [{name: fuse}]";
    for (domain, name) in [(None, "example.org/tun"), (Some("d.e"), "d.e/tun")] {
        let read = read(&texts(file, domain), &classes()).unwrap();
        assert_eq!(patterns(&read.definitions), [(name, vec![])]);
        assert!(
            read.notes
                .iter()
                .any(|note| note.contains("its devices are not advertised")),
            "{:?}",
            read.notes
        );
    }
    let ours = texts("resources: [{name: a.b/x, requests: ['port:1-1']}]", None);
    assert_eq!(
        read(&ours, &classes()).unwrap().definitions.len(),
        2,
        "ours add up"
    );
}

/// Case README 9.
#[test]
fn generic_device_plugins_domain_is_that_of_the_argument_or_the_file_or_its_default() {
    const FILE: &str = "devices: [{name: serial, groups: [{paths: [{path: /dev/ttyS*}]}]}]";
    for (domain, text, name) in [
        (None, FILE.to_owned(), "devic.es/serial"),
        (Some("squat.ai"), FILE.to_owned(), "squat.ai/serial"),
        (None, format!("domain: squat.ai\n{FILE}"), "squat.ai/serial"),
        (
            Some("devic.es"),
            format!("domain: squat.ai\n{FILE}"),
            "devic.es/serial",
        ),
    ] {
        let texts = Texts {
            own: Some(("config.yaml".into(), text.clone())),
            domain: domain.map(str::to_owned),
            ..Texts::default()
        };
        let read = read(&texts, &classes()).unwrap().definitions;
        assert_eq!(
            patterns(&read),
            [(name, vec![("/dev/ttyS*".to_owned(), 1)])],
            "{text}"
        );
    }
}

/// Case README 10.
#[test]
fn generic_device_plugins_file_may_have_its_flags_and_unknown_keys_get_a_note() {
    const FILE: &str = "\
domain: example.org
log-level: info
listen: \":8080\"
plugin-directory: /var/lib/kubelet/device-plugins
devices: [{name: fuse, groups: [{count: 10, paths: [{path: /dev/fuse}]}]}]
";
    let read = file(FILE).unwrap();
    assert_eq!(
        patterns(&read.definitions),
        [("example.org/fuse", vec![("/dev/fuse".to_owned(), 10)])]
    );
    assert_eq!(read.notes, [""; 0]);
    assert!(is_generic(FILE));
    let flags = settings(FILE);
    let shown = [
        flags.domain,
        flags.log_level,
        flags.listen,
        flags.plugin_directory,
    ];
    assert_eq!(
        shown.map(Option::unwrap),
        ["example.org", "info", ":8080", "/var/lib/kubelet/device-plugins"]
    );
    let read = file(
        "Device: [{Name: x, count: 2, Groups: [{new: 1, PATHS: [{path: /dev/a, mountpath: /b, other: 1}]}]}]\nbogus: 1",
    )
    .unwrap();
    assert_eq!(patterns(&read.definitions)[0].1.len(), 1);
    for key in ["bogus", "count", "new", "other"] {
        let error = format!("the key {key} is ignored, as by generic-device-plugin");
        assert!(
            read.notes.iter().any(|note| note.contains(&error)),
            "{key}: {:?}",
            read.notes
        );
    }
}

/// Case README 12. Each id is the result of generic-device-plugin's own parser, observed by running
/// it.
#[test]
fn generic_device_plugins_ids_have_the_same_values_in_files_and_in_arguments() {
    // The text, its id in a file, and its id in an argument.
    for (written, in_file, in_argument) in [
        ("0x0403", Some("0403"), Some("1027")),
        ("0403", Some("0103"), Some("0259")),
        ("0825", Some("0339"), Some("0825")),
        ("\"0825\"", Some("0825"), Some("0825")),
        ("'1209'", Some("1209"), Some("1209")),
        ("1209", Some("04b9"), Some("1209")),
        ("\"1e10\"", Some("1e10"), Some("1e10")),
        // In a file, 1e10 is 10,000,000,000 for that plugin, which uses the lower 16 bits: nobody
        // intends that.
        ("1e10", None, None),
        ("70000", None, None),
        ("000F", Some("000f"), Some("000f")),
        ("1a86", Some("1a86"), Some("1a86")),
        ("\"0x0403\"", None, None),
        ("\"12345\"", None, None),
        ("xyz", None, None),
        ("-1", None, None),
        ("true", None, None),
        ("\"\"", None, Some("0000")),
        ("null", Some("0000"), Some("0000")),
    ] {
        let device = format!("name: u\ngroups: [{{usb: [{{vendor: {written}, product: '7523'}}]}}]");
        let in_a_file = file(&format!(
            "devices: [{{name: u, groups: [{{usb: [{{vendor: {written}, product: '7523'}}]}}]}}]"
        ));
        for (read, expected) in [(in_a_file, in_file), (arguments(&[&device]), in_argument)] {
            match expected {
                Some(id) => {
                    let read = read.unwrap_or_else(|error| panic!("{written}: {error}"));
                    let usb = format!("usb:{id}:7523");
                    assert_eq!(
                        usb_devices(&read.definitions),
                        [("devic.es/u", vec![usb])],
                        "{written}"
                    );
                    let has_note = !read.notes.is_empty();
                    let digits = written.trim_matches(['"', '\'']).to_lowercase();
                    let is_as_written = digits == "0x0403" && id == "0403"
                        || !digits.is_empty() && format!("{digits:0>4}") == id;
                    assert_eq!(has_note, !is_as_written, "{written}: {:?}", read.notes);
                }
                None => {
                    let error = read.map(|read| format!("{read:?}")).unwrap_err();
                    assert!(error.contains("(\"u\"), group 1: vendor"), "{written}: {error}");
                }
            }
        }
    }
}

/// Case README 14.
#[test]
fn an_entry_that_generic_device_plugin_ignores_does_not_affect_the_others() {
    let read = file(
        "devices: [{name: f, groups: [{count: 5000, paths: [{path: /dev/fuse}]}]},{name: g, groups: [{count: 0, paths: \
         [{path: \"/dev/ttyS[^0]\"}]}]}]",
    )
    .unwrap();
    assert_eq!(
        patterns(&read.definitions),
        [
            ("devic.es/f", vec![("/dev/fuse".to_owned(), 5000)]),
            ("devic.es/g", vec![("/dev/ttyS[^0]".to_owned(), 1)])
        ]
    );
    assert_eq!(read.notes, [""; 0]);
    for (group, part) in [
        ("{paths: [{path: dev/x}]}", "path \"dev/x\": it must be absolute"),
        ("{paths: [{path: '/dev/[x'}]}", "path \"/dev/[x\": its [ has no ]"),
        (
            "{paths: [{path: /dev/x, permissions: rwx}]}",
            "permissions \"rwx\"",
        ),
        (
            "{paths: [{path: /dev/x, type: device}]}",
            "the type \"device\" of the path \"/dev/x\"",
        ),
        (
            "{paths: [{path: /dev/x}], count: 1000000}",
            "count 1000000 is more than kubelet accepts",
        ),
        ("{}", "it has neither paths nor usb"),
    ] {
        let text = format!(
            "devices: [{{name: x, groups: [{group}]}}, {{name: y, groups: [{{paths: [{{path: /dev/y}}]}}]}}]"
        );
        let read = file(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(read.definitions.len(), 2, "{group}");
        assert!(
            read.notes
                .iter()
                .any(|note| note.contains(part) && note.contains("device 1 (\"x\")")),
            "{group}: {:?}",
            read.notes
        );
    }
}
