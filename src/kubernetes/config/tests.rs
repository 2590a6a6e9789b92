mod generic;
mod smarter;
mod usbip;

use std::path::Path;

use proptest::prelude::*;

use super::*;

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
            "resource 1 (\"x\"): device request \"usb:1\": ",
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
