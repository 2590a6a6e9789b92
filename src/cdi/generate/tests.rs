use super::*;
use crate::model::yaml;
use proptest::prelude::*;

fn kind() -> Kind {
    DEFAULT_KIND.parse().unwrap()
}

fn new(name: &str, devices: &[&str]) -> NewDevice {
    NewDevice {
        name: name.to_owned(),
        devices: devices.iter().map(|text| text.to_string()).collect(),
        symlinks: Vec::new(),
    }
}

fn spec_of(devices: &[NewDevice]) -> Document {
    document(&kind(), Path::new("/usr/libexec/oci/hooks.d"), devices).unwrap()
}

#[test]
fn a_generated_device_has_the_two_hooks_and_nothing_else() {
    let mut board = new("board", &["usb:0403:6001", "class:lab"]);
    board.symlinks = vec!["usb:0403:6001:0=/dev/gps".into()];
    let document = spec_of(&[board]);
    assert_eq!(document.cdi_version, "0.5.0");
    let hooks = &document.devices[0].container_edits.hooks;
    assert_eq!(hooks[0].path, "/usr/libexec/oci/hooks.d/oci-hotplug-prestart");
    assert_eq!(
        hooks[0].args,
        [
            "oci-hotplug-prestart",
            "--device",
            "usb:0403:6001",
            "--device",
            "class:lab",
            "--symlink",
            "usb:0403:6001:0=/dev/gps"
        ]
    );
    assert_eq!(
        (hooks[1].hook_name.as_str(), &hooks[1].args[..]),
        ("poststop", &["oci-hotplug-poststop".to_owned()][..])
    );
    assert!(is_ours(&document));
    assert_eq!(requests(&document.devices[0]), ["usb:0403:6001", "class:lab"]);
}

#[test]
fn a_spec_with_anything_else_was_not_generated() {
    let ours = spec_of(&[new("x", &[])]);
    let mut other = ours.clone();
    other.devices[0].container_edits.env.push("A=1".into());
    assert!(!is_ours(&other));
    let mut other = ours.clone();
    other.devices[0].container_edits.hooks[0].path = "/bin/true".into();
    assert!(!is_ours(&other));
    let mut other = ours;
    other.devices.clear();
    assert!(!is_ours(&other));
}

#[test]
fn a_class_with_a_dot_needs_the_newer_version() {
    let kind = "vendor.com/my.class".parse().unwrap();
    assert_eq!(
        document(&kind, Path::new("/h"), &[new("x", &[])])
            .unwrap()
            .cdi_version,
        "0.6.0"
    );
}

#[test]
fn a_hook_directory_must_be_absolute() {
    assert!(matches!(
        document(&kind(), Path::new("hooks"), &[]),
        Err(GenerateError::HookDir(_))
    ));
}

proptest! {
    #[test]
    fn a_generated_spec_is_valid_and_recognized(
        name in "[a-z0-9][a-z0-9_.:-]{0,20}[a-z0-9]",
        devices in proptest::collection::vec("[ -~]{0,30}|[\u{e0}-\u{17f}\"\\\\]{0,9}", 0..4),
    ) {
        let new = NewDevice { name, devices, symlinks: Vec::new() };
        let document = spec_of(&[new]);
        let text = text(&document);
        let root = yaml::parse(&text).unwrap();
        let read = Document::decode(&root).unwrap();
        prop_assert_eq!(&read, &document);
        prop_assert_eq!(rules::faults(&read, &root), []);
        prop_assert!(is_ours(&read));
    }
}
