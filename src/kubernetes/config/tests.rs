use std::path::Path;

use proptest::prelude::*;

use super::*;

/// smarter-device-manager's default, as it ships (compat.md 3).
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
    read(&texts, &classes()).map_err(|error| error.to_string())
}

fn smarter(text: &str) -> Result<Vec<Definition>, String> {
    let texts = Texts {
        smarter: Some(("conf.yaml".into(), text.to_owned())),
        ..Texts::default()
    };
    read(&texts, &classes()).map_err(|error| error.to_string())
}

fn own(text: &str) -> Result<Vec<Definition>, String> {
    let texts = Texts {
        own: Some(("config.yaml".into(), text.to_owned())),
        ..Texts::default()
    };
    read(&texts, &classes()).map_err(|error| error.to_string())
}

fn paths(definitions: &[Definition]) -> Vec<(String, String, u32)> {
    let path = |definition: &Definition| match definition {
        Definition::Path { path, access, count } => (path.display().to_string(), access.to_string(), *count),
        other => panic!("{other:?}"),
    };
    definitions.iter().map(path).collect()
}

#[test]
fn hostdevs_list_is_read_as_it_was() {
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
fn hostdevs_forks_are_read_too() {
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
fn a_wrong_element_is_named_with_its_fault_and_the_cure() {
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
        ("/dev/mem:r:0", "the count must be 1 to 1000"),
        ("/dev/mem:r:99999999999", "the count must be 1 to 1000"),
    ] {
        let told = devs(text).unwrap_err();
        assert!(told.contains(part), "{text}: {told}");
    }
}

#[test]
fn smarters_own_file_is_read_unchanged() {
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
    let told = smarter("- devicematch: ^a$\n- devicematch: 'a('\n").unwrap_err();
    assert!(
        told.starts_with("conf.yaml, entry 2: devicematch \"a(\" is no regular expression"),
        "{told}"
    );
}

#[test]
fn our_own_file_has_requests_and_their_options() {
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
        .asks
        .asked
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
    assert_eq!(other.asks.asked[0].request.to_string(), "port:1-1;path=/dev/it");
}

#[test]
fn generic_device_plugins_file_is_read_unchanged() {
    let read = own(
        r#"devices:
- {"name": "serial", "groups": [{"paths": [{"path": "/dev/ttyUSB*"}]}, {"paths": [{"path": "/dev/ttyACM*"}]}]}
- {"name": "capture", "groups": [{"paths": [{"path": "/dev/snd/pcmC0D0c"}, {"path": "/dev/snd/controlC0", "limit": 10, "optional": true}]}]}
- {"name": "ch340", "groups": [{"usb": [{"vendor": "1a86", "product": "7523", "serial": ""}]}]}
- {"name": "numbers", "groups": [{"count": 10, "usb": [{"vendor": 1209, "product": "000F"}]}]}
"#,
    )
    .unwrap();
    let groups = |definition: &Definition| match definition {
        Definition::Groups { name, groups } => (name.to_string(), groups.clone()),
        other => panic!("{other:?}"),
    };
    let (name, serial) = groups(&read[0]);
    assert_eq!((name.as_str(), serial.len()), ("squat.ai/serial", 2));
    let Group::Usb { devices, count: 1 } = &groups(&read[2]).1[0] else {
        panic!()
    };
    assert_eq!(devices[0].to_string(), "usb:1a86:7523");
    let Group::Usb { devices, count: 10 } = &groups(&read[3]).1[0] else {
        panic!()
    };
    assert_eq!(devices[0].to_string(), "usb:1209:000f");
}

#[test]
fn every_fault_of_a_file_is_told_with_its_place() {
    for (text, part) in [
        (
            "resources: [{nam: x}]",
            "config.yaml: resources[0]: unknown field `nam`",
        ),
        (
            "resources: [{name: x}]",
            "resource 1 (\"x\"): it asks for nothing",
        ),
        ("resources: [{name: x, requests: []}]", "asks for nothing"),
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
            "resource 2 (\"x\"): oci-hotplug.dev/x is defined before",
        ),
        (
            "resources: [{name: x, requests: ['port:1-1'], count: 0}]",
            "count must be 1 to 1000",
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
            "devices: [{name: x, groups: [{}]}]",
            "device 1 (\"x\"): a group needs paths or usb",
        ),
        (
            "devices: [{name: x, groups: [{paths: [{path: dev/x}]}]}]",
            "path \"dev/x\": it must be absolute",
        ),
        (
            "devices: [{name: x, groups: [{paths: [{path: '/dev/[x'}]}]}]",
            "path \"/dev/[x\"",
        ),
        (
            "devices: [{name: x, groups: [{usb: [{vendor: xyz, product: '1'}]}]}]",
            "vendor \"xyz\"",
        ),
        (
            "devices: [{name: x, mode: static, groups: [{paths: [{path: /dev/x}]}]}]",
            "beside groups",
        ),
    ] {
        let told = own(text).map(|read| format!("{read:?}")).unwrap_err();
        assert!(told.contains(part), "{text}: {told}");
    }
}

#[test]
fn a_good_element_beside_a_bad_one_does_not_hide_it() {
    assert!(devs("/dev/null:rw,/dev/mem:q,/dev/zero:r").is_err());
}

proptest! {
    #[test]
    fn no_text_makes_a_reader_panic(text in "\\PC{0,60}") {
        let _ = (devs(&text), smarter(&text), own(&text));
    }

    #[test]
    fn a_hostdev_list_that_is_right_is_read_element_by_element(
        elements in prop::collection::vec(("/[a-z/]{1,20}", "r|w|m|rw|wr|rwm|mrw"), 1..8)
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
