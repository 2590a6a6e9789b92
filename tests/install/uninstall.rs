//! What uninstalling removes and what it leaves.

use std::collections::BTreeSet;
use std::fs;

use super::Root;

#[test]
fn uninstalling_leaves_only_files_of_others() {
    let root = Root::new();
    fs::create_dir_all(root.path("usr/libexec/oci/hooks.d")).unwrap();
    fs::write(root.path("usr/libexec/oci/hooks.d/other"), "").unwrap();
    root.install();
    fs::write(root.path("etc/cdi/other.yaml"), "").unwrap();
    root.uninstall();
    assert_eq!(
        root.files(),
        BTreeSet::from([
            "usr/libexec/oci/hooks.d/other".to_owned(),
            "etc/cdi/other.yaml".to_owned()
        ])
    );
    let root = Root::new();
    root.install();
    root.uninstall();
    assert!(root.is_bare());
    let (text, fine) = root.script(&["--uninstall"], None);
    assert!(
        !fine && text.contains("nothing was installed by this script"),
        "{text}"
    );
}

/// An engine would start hooks that are gone, so the operator must hear of these files.
#[test]
fn uninstalling_names_what_the_operators_commands_wrote() {
    let root = Root::new();
    root.install();
    let written = [
        "etc/cdi/oci-hotplug.dev-device_lab.json",
        "etc/oci-hotplug/config.d/class-lab.toml",
    ];
    fs::create_dir_all(root.path("etc/oci-hotplug/config.d")).unwrap();
    for path in written.iter().chain(&["etc/cdi/vendor.json"]) {
        fs::write(root.path(path), "").unwrap();
    }
    let text = root.uninstall();
    let left: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("left /"))
        .collect();
    assert_eq!(left, written);
}
