//! Installing over an installation.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::{CONFIG, Root, programs};

#[test]
fn installing_again_changes_nothing() {
    let root = Root::new();
    root.install();
    let before = root.files();
    let text = root.install();
    assert_eq!(root.files(), before);
    assert!(text.lines().all(|line| line.starts_with("unchanged /")), "{text}");
    root.uninstall();
    assert!(root.is_bare());
}

#[test]
fn a_configuration_that_was_changed_stays() {
    let root = Root::new();
    root.install();
    fs::write(root.path(CONFIG), "log-level = \"debug\"\n").unwrap();
    for _ in 0..2 {
        let text = root.install();
        assert!(text.contains("kept /etc/oci-hotplug/config.toml"), "{text}");
        assert_eq!(
            fs::read_to_string(root.path(CONFIG)).unwrap(),
            "log-level = \"debug\"\n"
        );
    }
    let text = root.uninstall();
    assert!(text.contains("left /etc/oci-hotplug/config.toml"), "{text}");
    assert_eq!(root.files(), BTreeSet::from([CONFIG.to_owned()]));
}

#[test]
fn a_configuration_that_was_never_touched_is_renewed() {
    let root = Root::new();
    let older = tempfile::tempdir().unwrap();
    let copied = Command::new("cp")
        .args(["--recursive", "--no-target-directory"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging"))
        .arg(older.path())
        .status();
    assert!(copied.unwrap().success(), "copy the packaging directory");
    let old = "# of an older version\n";
    fs::write(older.path().join("config.toml"), old).unwrap();
    let output = Command::new(programs().join("oci-hotplug"))
        .arg("install")
        .arg("--staging")
        .arg(root.0.path())
        .arg("--packaging")
        .arg(older.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(fs::read_to_string(root.path(CONFIG)).unwrap(), old);
    root.install();
    assert_ne!(fs::read_to_string(root.path(CONFIG)).unwrap(), old);
}

#[test]
fn files_of_an_older_version_are_removed() {
    let root = Root::new();
    root.install();
    let manifest = root.path("usr/share/oci-hotplug/installed");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text + "0 /usr/bin/oci-hotplug-old\n").unwrap();
    fs::write(root.path("usr/bin/oci-hotplug-old"), "").unwrap();
    root.install();
    assert!(!root.path("usr/bin/oci-hotplug-old").exists());
}
