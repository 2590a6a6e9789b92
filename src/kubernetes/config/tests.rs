use std::path::Path;

use proptest::prelude::*;

use super::*;

/// smarter-device-manager's default, as shipped (compat.md 3).
const SMARTER_DEFAULT: &str = "\
- devicematch: ^snd$
  nummaxdevices: 20
- devicematch: ^gpiomem$
  nummaxdevices: 40
- devicematch: ^gpiochip[0-9]*$
  nummaxdevices: 20
- devicematch: ^hci[0-9]*$
  nummaxdevices: 1
- devicematch: ^i2c-[0-9]*$
  nummaxdevices: 1
- devicematch: ^rtc0$
  nummaxdevices: 20
- devicematch: ^video[0-9]*$
  nummaxdevices: 20
- devicematch: ^vchiq$
  nummaxdevices: 20
- devicematch: ^vcsm.*$
  nummaxdevices: 20
- devicematch: ^ttyUSB[0-9]*$
  nummaxdevices: 1
- devicematch: ^ttyACM[0-9]*$
  nummaxdevices: 1
- devicematch: ^ttyTHS[0-9]*$
  nummaxdevices: 1
- devicematch: ^ttyS[0-9]*$
  nummaxdevices: 1
- devicematch: nvidia-gpu
  nummaxdevices: 10
";

fn classes() -> Classes {
    Classes::none(Path::new("/etc/oci-hotplug/config.toml"))
}

fn devs(text: &str) -> Result<Vec<Definition>, String> {
    let texts = Texts {
        devs: Some(text.to_owned()),
        ..Texts::default()
    };
    read(&texts, &classes())
        .map(|read| read.definitions)
        .map_err(|error| error.to_string())
}

fn smarter(text: &str) -> Result<Vec<Definition>, String> {
    let texts = Texts {
        smarter: Some(("conf.yaml".into(), text.to_owned())),
        ..Texts::default()
    };
    read(&texts, &classes())
        .map(|read| read.definitions)
        .map_err(|error| error.to_string())
}

fn own(text: &str) -> Result<Vec<Definition>, String> {
    let texts = Texts {
        own: Some(("config.yaml".into(), text.to_owned())),
        ..Texts::default()
    };
    read(&texts, &classes())
        .map(|read| read.definitions)
        .map_err(|error| error.to_string())
}

fn notes(texts: &Texts) -> Vec<String> {
    read(texts, &classes())
        .unwrap_or_else(|error| panic!("{error}"))
        .notes
}

/// Parses generic-device-plugin's arguments `--device`.
fn arguments(texts: &[&str]) -> Result<Configuration, String> {
    let texts = Texts {
        devices: texts.iter().map(|text| (*text).to_owned()).collect(),
        ..Texts::default()
    };
    read(&texts, &classes()).map_err(|error| error.to_string())
}

/// Parses a file in our own format or generic-device-plugin's.
fn file(text: &str) -> Result<Configuration, String> {
    let texts = Texts {
        own: Some(("config.yaml".into(), text.to_owned())),
        ..Texts::default()
    };
    read(&texts, &classes()).map_err(|error| error.to_string())
}

fn usbip_texts(text: &str) -> Texts {
    Texts {
        usbip: Some(("config.yaml".into(), text.to_owned())),
        ..Texts::default()
    }
}

fn usbip(text: &str) -> Result<Vec<Definition>, String> {
    let texts = Texts {
        usbip: Some(("config.yaml".into(), text.to_owned())),
        ..Texts::default()
    };
    read(&texts, &classes())
        .map(|read| read.definitions)
        .map_err(|error| error.to_string())
}

/// The resources, each with the requests of its entries.
fn remotes(definitions: &[Definition]) -> Vec<(&str, Vec<Vec<String>>)> {
    let remote = definitions.iter().map(|definition| match definition {
        Definition::Remote { name, entries } => {
            let requests = |entry: &RemoteEntry| entry.requests.iter().map(ToString::to_string).collect();
            (name.as_str(), entries.iter().map(requests).collect())
        }
        other => panic!("{other:?}"),
    });
    remote.collect()
}

fn paths(definitions: &[Definition]) -> Vec<(String, String, u32)> {
    let path = |definition: &Definition| match definition {
        Definition::Path { path, access, count } => (path.display().to_string(), access.to_string(), *count),
        other => panic!("{other:?}"),
    };
    definitions.iter().map(path).collect()
}

#[test]
fn hostdevs_list_keeps_its_meaning() {
    let read = devs("/dev/mem:r,/dev/fuse:rwm,/dev/xx/yy:wr").unwrap();
    let one = |path: &str, access: &str| (path.to_owned(), access.to_owned(), 1);
    assert_eq!(
        paths(&read),
        [
            one("/dev/mem", "r"),
            one("/dev/fuse", "rwm"),
            one("/dev/xx/yy", "rw")
        ]
    );
}

#[test]
fn the_lists_of_hostdevs_forks_are_parsed_too() {
    let read = devs("/dev/a:b:rw,/dev/mem:rw:5").unwrap();
    assert_eq!(
        paths(&read),
        [
            ("/dev/a:b".into(), "rw".into(), 1),
            ("/dev/mem".into(), "rw".into(), 5)
        ]
    );
}

#[test]
fn an_invalid_element_is_reported_with_its_error_and_a_hint() {
    for (text, part) in [
        (
            "/dev/a:r,/dev/mem",
            "--devs, element 2 (\"/dev/mem\"): write PATH:PERMISSIONS",
        ),
        ("/dev/mem:", "permissions \"\" must be"),
        ("/dev/mem:rx", "permissions \"rx\" must be one to three"),
        ("/dev/mem:rwmr", "permissions \"rwmr\""),
        ("/dev/mem:rr", "permissions \"rr\""),
        (
            "dev/mem:r",
            "element 1 (\"dev/mem:r\"): the path must be absolute",
        ),
        ("/dev/a:r,,", "element 2 (\"\")"),
        (
            "/dev/a:r,/dev/b:r,/dev/a:rw",
            "element 3 (\"/dev/a:rw\"): /dev/a is listed twice",
        ),
        ("/dev/mem:r:0", "the count must be 1 to 20000"),
        ("/dev/mem:r:99999999999", "the count must be 1 to 20000"),
    ] {
        let error = devs(text).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn smarters_own_file_is_accepted_unchanged() {
    let read = smarter(SMARTER_DEFAULT).unwrap();
    assert_eq!(read.len(), 14);
    assert!(matches!(&read[0], Definition::Pattern { pattern, count: 20 } if pattern.as_str() == "^snd$"));
    assert!(matches!(&read[13], Definition::NvidiaGpu { count: 10 }));
}

#[test]
fn smarters_expressions_are_not_anchored_and_keys_may_be_missing_or_unknown() {
    let read = smarter("- {devicematch: 'tty(USB|ACM)[[:digit:]]+', something: else}\n").unwrap();
    let [Definition::Pattern { pattern, count: 0 }] = &read[..] else {
        panic!("{read:?}")
    };
    assert!(pattern.is_match("x/ttyACM12y"));
    assert!(smarter("").unwrap().is_empty());
    let error = smarter("- devicematch: ^a$\n- devicematch: 'a('\n").unwrap_err();
    assert!(
        error.starts_with("conf.yaml, entry 2: devicematch \"a(\" is not a regular expression"),
        "{error}"
    );
}

#[test]
fn a_file_in_our_own_format_has_requests_with_options() {
    let read = own(
        "domain: example.com\nresources:\n- name: sensor\n  requests: ['usb:0403:6001', 'subsystem:tty;only=subsystem:tty']\n  \
         count: 4\n  shared: false\n  permissions: rw\n  mode: present\n- {name: x.y/z, requests: ['port:1-1'], path: /dev/it}\n",
    )
    .unwrap();
    let [Definition::Requested(sensor), Definition::Requested(other)] = &read[..] else {
        panic!("{read:?}")
    };
    assert_eq!(
        (sensor.name.as_str(), sensor.count, sensor.mode),
        ("example.com/sensor", 4, Mode::Present)
    );
    let requests: Vec<String> = sensor
        .requests
        .entries
        .iter()
        .map(|asked| asked.request.to_string())
        .collect();
    assert_eq!(
        requests,
        [
            "usb:0403:6001;access=rw;exclusive",
            "subsystem:tty;access=rw;only=subsystem:tty;exclusive"
        ]
    );
    assert_eq!(
        (other.name.as_str(), other.count, other.mode),
        ("x.y/z", 1, Mode::Hotplug)
    );
    assert_eq!(
        other.requests.entries[0].request.to_string(),
        "port:1-1;path=/dev/it"
    );
}

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

/// Case README 14. Case README 15.
#[test]
fn smarters_large_counts_and_its_syntax_are_accepted() {
    let texts = Texts {
        smarter: Some((
            "conf.yaml".into(),
            "- devicematch: ^(ttyACM|ttyUSB)[0-9]+$\n  nummaxdevices: 10000\n- devicematch: ^[[:alpha:]]+$\n  nummaxdevices: 1\n\
             - devicematch: \\Qusb-1\\E\n  nummaxdevices: 1\n- devicematch: ^\\p{L}+$\n  nummaxdevices: 5000000000\n"
                .to_owned(),
        )),
        ..Texts::default()
    };
    let read = read(&texts, &classes()).unwrap();
    let shown = read.definitions.iter().map(|definition| match definition {
        Definition::Pattern { pattern, count } => (
            *count,
            ["ttyUSB12", "null", "x/usb-1.2", "größe"].map(|path| pattern.is_match(path)),
        ),
        other => panic!("{other:?}"),
    });
    assert_eq!(
        shown.collect::<Vec<_>>(),
        [
            (10000, [true, false, false, false]),
            (1, [false, true, false, false]),
            (1, [false, false, true, false]),
            (MAX_UNITS, [false, true, false, true]),
        ]
    );
    assert_eq!(read.notes.len(), 1, "{:?}", read.notes);
    assert!(
        read.notes[0].contains("entry 4: nummaxdevices 5000000000"),
        "{:?}",
        read.notes
    );
    let error = smarter("- devicematch: 'a(?=b)'").unwrap_err();
    assert!(
        error.contains("\"a(?=b)\"") && error.contains("(?=b looks around"),
        "{error}"
    );
}

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
            "usbip.dev.mvalvekens.be/a: the extra /dev/ttyUSB0 of lab/*:* can't be at /srv/board, which must be"
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

#[test]
fn every_error_in_a_file_names_its_place() {
    for (text, part) in [
        (
            "resources: [{nam: x}]",
            "config.yaml: resources[0]: unknown field `nam`",
        ),
        (
            "resources: [{name: x}]",
            "resource 1 (\"x\"): the resource selects no device",
        ),
        ("resources: [{name: x, requests: []}]", "selects no device"),
        (
            "resources: [{name: x, requests: ['usb:1']}]",
            "resource 1 (\"x\"): request \"usb:1\"",
        ),
        ("resources: [{name: x, requests: ['class:nosuch']}]", "nosuch"),
        (
            "resources: [{name: 'x y', requests: ['port:1-1']}]",
            "resource name \"oci-hotplug.dev/x y\"",
        ),
        (
            "resources: [{name: x, requests: ['port:1-1']}, {name: x, requests: ['port:1-2']}]",
            "resource 2 (\"x\"): oci-hotplug.dev/x is defined twice",
        ),
        (
            "resources: [{name: x, requests: ['port:1-1'], count: 0}]",
            "count must be 1 to 20000",
        ),
        (
            "resources: [{name: x, requests: ['port:1-1'], permissions: x}]",
            "permissions \"x\"",
        ),
        (
            "resources: [{name: x, requests: ['port:1-1'], path: /etc/x}]",
            "path",
        ),
        (
            "resources: [{name: x, requests: ['port:1-1'], groups: []}]",
            "two resources",
        ),
        (
            "resources: []\nnonsense: 1",
            "unknown key \"nonsense\": write one of domain",
        ),
        (
            "devices: {name: x}",
            "config.yaml: devices must be a list, not a mapping",
        ),
        (
            "devices: [null]",
            "device 1: it must be a mapping of keys to values, not nothing",
        ),
        (
            "devices: [{groups: []}]",
            "device 1 (\"\"): resource name \"devic.es/\"",
        ),
        (
            "devices: [{name: 7}]",
            "name must be text (write it in quotes), not a number",
        ),
        (
            "devices: [{name: x}, {name: x}]",
            "device 2 (\"x\"): devic.es/x is defined twice",
        ),
        (
            "devices: [{name: x, groups: [{paths: [{path: /dev/a}], usb: [{vendor: '1', product: '2'}]}]}]",
            "device 1 (\"x\"), group 1: a group has paths or usb, not both",
        ),
        (
            "devices: [{name: x, groups: [{count: '10', paths: [{path: /dev/a}]}]}]",
            "count must be a whole number of 0 or more, not text",
        ),
        (
            "devices: [{name: x, groups: [{paths: [{path: /dev/a, readOnly: 'yes'}]}]}]",
            "readOnly must be true or false, not text",
        ),
        (
            "devices: [{name: x, groups: [{usb: [{vendor: xyz, product: '1'}]}]}]",
            "vendor \"xyz\"",
        ),
        (
            "resources: [{name: x, mode: static, groups: [{paths: [{path: /dev/x}]}]}]",
            "a resource with groups",
        ),
    ] {
        let error = own(text).map(|read| format!("{read:?}")).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn an_invalid_element_is_reported_beside_a_valid_one() {
    assert!(devs("/dev/null:rw,/dev/mem:q,/dev/zero:r").is_err());
}

proptest! {
    #[test]
    fn no_text_causes_a_panic_in_a_parser(text in "\\PC{0,60}") {
        let _ = (devs(&text), smarter(&text), own(&text), usbip(&text), arguments(&[&text]));
    }

    #[test]
    fn no_entry_for_a_usbip_server_causes_a_panic_and_hooks_can_parse_the_requests(
        host in "[a-z0-9.:\\[\\]-]{0,12}",
        ids in prop::collection::vec(0..0x1_0010_u32, 2),
        busid in prop::option::of("[0-9.-]{0,4}"),
        serial in prop::option::of("[ -~]{0,6}"),
        extra in "(/dev/)?[a-zA-Z0-9/;,&]{0,9}",
    ) {
        let entry = serde_json::json!({
            "target": { "host": host },
            "selector": { "vendor": ids[0], "product": ids[1], "bus_id": busid, "serial": serial },
            "extras": [{ "host_path": extra, "container_path": format!("{extra}1") }],
        });
        if let Ok(definitions) = usbip(&format!("resources: {{a: [{entry}]}}")) {
            for request in &remotes(&definitions)[0].1[0] {
                prop_assert!(request.parse::<crate::model::request::Request>().is_ok(), "{}", request);
            }
        }
    }

    #[test]
    fn a_valid_hostdev_list_is_parsed_element_by_element(
        elements in prop::collection::btree_map("/[a-z]{1,10}(/[a-z]{1,5}){0,3}", "r|w|m|rw|wr|rwm|mrw", 1..8)
    ) {
        let text: Vec<String> = elements.iter().map(|(path, access)| format!("{path}:{access}")).collect();
        let read = paths(&devs(&text.join(",")).unwrap());
        prop_assert_eq!(read.len(), elements.len());
        for ((path, access), (known, letters, count)) in elements.iter().zip(&read) {
            prop_assert_eq!((Path::new(path), 1), (Path::new(known), *count));
            prop_assert_eq!(letters.len(), access.len());
        }
    }
}
