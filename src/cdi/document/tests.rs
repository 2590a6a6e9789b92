use super::*;
use proptest::prelude::*;

const JSON: &str = "{\n  \"cdiVersion\": \"0.5.0\",\n  \"kind\": \"a.b/c\",\n  \"devices\": [\n    {\"name\": \"x\",\n     \"containerEdits\": {\"env\": [\"A=1\",\n                              \"B\"]}}\n  ]\n}\n";

#[test]
fn json_and_yaml_are_parsed_alike() {
    let yaml =
        "---\ncdiVersion: 0.5.0\nkind: a.b/c\ndevices:\n- name: x\n  containerEdits:\n    env: [A=1, B]\n";
    assert_eq!(Document::parse(JSON).unwrap(), Document::parse(yaml).unwrap());
}

#[test]
fn texts_that_the_go_library_accepts_are_accepted() {
    let document =
        Document::parse("cdiVersion: 0.5.0\nkind: a.b/c\ndevices:\n- name: 0\n  containerEdits: null\n")
            .unwrap();
    assert_eq!(document.devices[0].name, "0");
    assert!(document.devices[0].container_edits.is_empty());
}

fn first_node(fields: &str) -> Result<DeviceNode, Fault> {
    let text = format!(
        "cdiVersion: 0.6.0\nkind: vendor.com/device\ndevices:\n- name: \"0\"\n  containerEdits: {{deviceNodes: [{{path: /dev/null, {fields}}}]}}\n"
    );
    Document::parse(&text).map(|document| document.devices[0].container_edits.device_nodes[0].clone())
}

/// Case README 16.
#[test]
fn a_number_with_a_leading_zero_is_octal_in_every_numeric_field() {
    let node =
        first_node("fileMode: 0666, permissions: rw, uid: 010, gid: 0o17, major: +0x10, minor: 1_0").unwrap();
    assert_eq!(
        (node.file_mode, node.uid, node.gid),
        (Some(0o666), Some(8), Some(15))
    );
    assert_eq!((node.major, node.minor), (Some(16), Some(10)));
    assert_eq!(node.permissions.as_deref(), Some("rw"));
    for same in [
        "fileMode: 0o666",
        "fileMode: 438",
        "fileMode: 438.0",
        "fileMode: &mode 0666",
        "\"fileMode\":438",
    ] {
        assert_eq!(first_node(same).unwrap().file_mode, Some(0o666), "{same}");
    }
    let edits = "cdiVersion: 0.7.0\nkind: a.b/device\ndevices: [{name: x, containerEdits: {additionalGids: [010, 9], hooks: [{hookName: poststop, path: /x, timeout: 010}]}}]\n";
    let document = Document::parse(edits).unwrap();
    let edits = &document.devices[0].container_edits;
    assert_eq!(
        (&edits.additional_gids[..], edits.hooks[0].timeout),
        (&[8, 9][..], Some(8))
    );
}

/// Case README 16.
#[test]
fn a_number_that_is_quoted_fractional_or_too_large_is_a_fault_with_its_position() {
    for (fields, part) in [
        ("fileMode: '0666'", "expected a number (write it without quotes)"),
        ("fileMode: \"438\"", "expected a number (write it without quotes)"),
        ("fileMode: 1.5", "expected an integer"),
        ("uid: 4294967296", "4294967296 is out of range"),
        ("uid: -1", "-1 is out of range"),
        ("gid: staff", "invalid type: string \"staff\", expected a number"),
    ] {
        let fault = first_node(fields).unwrap_err();
        assert!(fault.message.contains(part), "{fields}: {fault}");
        assert_eq!(fault.line, Some(5), "{fields}: {fault}");
        assert!(
            fault.column.is_some_and(|column| column > 50),
            "{fields}: {fault}"
        );
    }
}

/// Case README 16: the value of a text that YAML 1.1 treats as a number or boolean.
#[test]
fn a_devices_name_is_the_one_that_engines_see() {
    let name = |name: &str| {
        let text = format!(
            "cdiVersion: 0.6.0\nkind: a.b/device\ndevices:\n- name: {name}\n  containerEdits: {{env: [A=1]}}\n"
        );
        Document::parse(&text).unwrap().devices[0].name.clone()
    };
    for (written, read) in [
        ("01", "1"),
        ("'01'", "01"),
        ("\"0666\"", "0666"),
        ("0666", "438"),
        ("on", "true"),
        ("'on'", "on"),
        ("1.0", "1"),
        ("board", "board"),
    ] {
        assert_eq!(name(written), read, "{written}");
    }
}

/// Case README 17: the expected results are those of tags.cncf.io/container-device-interface
/// 1.1.0 and 0.8.0 (pkg/cdi/container-edits.go, isEmpty).
#[test]
fn edits_are_empty_if_every_list_is_and_there_is_no_intel_rdt() {
    for (edits, is_empty) in [
        ("{}", true),
        ("null", true),
        ("{mounts: []}", true),
        ("{mounts: null}", true),
        (
            "{env: [], deviceNodes: [], hooks: [], netDevices: [], additionalGids: []}",
            true,
        ),
        ("{intelRdt: null}", true),
        ("{intelRdt: {}}", false),
        ("{additionalGids: [0]}", false),
        ("{env: ['']}", false),
        ("{env: [null]}", false),
    ] {
        let text = format!(
            "cdiVersion: 1.1.0\nkind: vendor.com/device\ndevices:\n- name: managed\n  containerEdits: {edits}\n"
        );
        let document = Document::parse(&text).unwrap();
        assert_eq!(
            document.devices[0].container_edits.is_empty(),
            is_empty,
            "{edits}"
        );
    }
}

#[test]
fn a_fault_has_line_column_and_field() {
    let text = "cdiVersion: 0.5.0\nkind: a.b/c\ndevices:\n- name: x\n  containerEdits:\n    deviceNode: []\n";
    let fault = Document::parse(text).unwrap_err();
    assert_eq!((fault.line, fault.column), (Some(6), Some(5)));
    assert_eq!(fault.field, "devices[0].containerEdits");
    assert!(
        fault
            .message
            .starts_with("unknown field `deviceNode`, expected one of"),
        "{fault}"
    );
    let fault = Document::parse("cdiVersion: 0.5.0\nkind: a.b/c\ndevices: 7\n").unwrap_err();
    assert_eq!((fault.line, fault.field.as_str()), (Some(3), "devices"));
    let fault = Document::parse("{\"cdiVersion\": \"0.5.0\",\n \"kind\": \n").unwrap_err();
    assert!(fault.line.is_some(), "{fault}");
}

#[test]
fn a_duplicate_field_is_a_fault() {
    let fault = Document::parse("cdiVersion: 0.5.0\nkind: a.b/c\nkind: a.b/d\n").unwrap_err();
    assert!(fault.message.contains("duplicate"), "{fault}");
}

#[test]
fn the_last_intel_rdt_is_used() {
    let rdt = |name: &str| Edits {
        intel_rdt: Some(IntelRdt {
            clos_id: Some(name.into()),
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut edits = rdt("a");
    edits.append(&Edits::default());
    assert_eq!(edits, rdt("a"));
    edits.append(&rdt("b"));
    assert_eq!(edits, rdt("b"));
}

proptest! {
    #[test]
    fn no_text_causes_a_panic(text in "[ -~\n]{0,200}") {
        if let Err(fault) = Document::parse(&text) {
            prop_assert!(!fault.message.is_empty());
        }
    }
}
