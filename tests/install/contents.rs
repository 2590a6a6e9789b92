//! What is installed: places, modes, names of programs, units and man pages.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::json_schema;
use super::{ANNOTATED, CONFIG, Root, WATCHER, programs};

#[test]
fn every_file_is_where_engines_and_systemd_look_for_it() {
    let root = Root::new();
    root.install();
    let files = root.files();
    for file in [
        "usr/libexec/oci/hooks.d/oci-hotplug-prestart",
        "usr/libexec/oci/hooks.d/oci-hotplug-poststop",
        WATCHER,
        "usr/libexec/oci/hooks.d/oci-hotplug-usbip",
        "usr/bin/oci-hotplug",
        "usr/share/containers/oci/hooks.d/oci-hotplug-prestart.json",
        "usr/share/containers/oci/hooks.d/oci-hotplug-poststop.json",
        CONFIG,
        ANNOTATED,
        "usr/lib/systemd/system/oci-hotplug-watcher@.service",
        "usr/lib/systemd/system/oci-hotplug.slice",
        "usr/lib/systemd/user/oci-hotplug-watcher@.service",
        "usr/lib/systemd/system/oci-hotplug-recover.service",
        "usr/lib/systemd/system/oci-hotplug-metrics.service",
        "usr/lib/systemd/system/oci-hotplug-metrics.timer",
        "usr/share/man/man1/oci-hotplug.1",
        "usr/share/man/man1/oci-hotplug-recover.1",
        "usr/share/man/man1/oci-hotplug-cdi-generate.1",
        "usr/share/man/man5/oci-hotplug.toml.5",
        "usr/share/man/man7/oci-hotplug-requests.7",
        "usr/share/man/man8/oci-hotplug-prestart.8",
        "usr/share/man/man8/oci-hotplug-poststop.8",
        "usr/share/man/man8/oci-hotplug-watcher.8",
        "usr/share/man/man8/oci-hotplug-usbip.8",
        "usr/share/bash-completion/completions/oci-hotplug",
        "usr/share/zsh/site-functions/_oci-hotplug",
        "usr/share/fish/vendor_completions.d/oci-hotplug.fish",
    ] {
        assert!(files.contains(file), "{file} is missing: {files:#?}");
        let mode = fs::metadata(root.path(file)).unwrap().permissions().mode() & 0o777;
        let program = file.starts_with("usr/libexec") || file.starts_with("usr/bin");
        assert_eq!(mode, if program { 0o755 } else { 0o644 }, "{file}");
    }
    assert!(
        !files
            .iter()
            .any(|file| file.ends_with(".new") || file.ends_with(".tmp")),
        "{files:#?}"
    );
    // What the engines read names the hooks as they are on the host, without the directory that
    // stands for `/`.
    for file in [
        ANNOTATED,
        "usr/share/containers/oci/hooks.d/oci-hotplug-prestart.json",
    ] {
        let text = fs::read_to_string(root.path(file)).unwrap();
        assert!(
            text.contains("\"/usr/libexec/oci/hooks.d/oci-hotplug-prestart\""),
            "{text}"
        );
    }
}

#[test]
fn a_prefix_moves_the_programs_and_the_engines_find_them() {
    let root = Root::new();
    root.install_with(Some("/usr/local"));
    assert!(
        root.path("usr/local/libexec/oci/hooks.d/oci-hotplug-prestart")
            .exists()
    );
    for file in [
        ANNOTATED,
        "usr/share/containers/oci/hooks.d/oci-hotplug-prestart.json",
        "usr/share/containers/oci/hooks.d/oci-hotplug-poststop.json",
    ] {
        let text = fs::read_to_string(root.path(file)).unwrap();
        assert!(
            text.contains("\"/usr/local/libexec/oci/hooks.d/oci-hotplug-p"),
            "{file}: {text}"
        );
        assert!(!text.contains("\"/usr/libexec"), "{file}: {text}");
    }
    let unit = root.path("usr/local/lib/systemd/system/oci-hotplug-watcher@.service");
    let unit = fs::read_to_string(unit).unwrap();
    assert!(
        unit.contains("ExecStart=/usr/local/libexec/oci/hooks.d/oci-hotplug-watcher --take-over -- %I\n"),
        "{unit}"
    );
    let (text, fine) = root.script(&["--uninstall"], Some("/usr/local"));
    assert!(fine && root.is_bare(), "{text}");
}

#[test]
fn the_schema_describes_what_install_and_uninstall_print() {
    let root = Root::new();
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let prints = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_oci-hotplug"))
            .args(["--config", "/dev/null", "install", "--json", "--staging"])
            .arg(root.0.path())
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        json_schema::check("install", &document);
        assert_ne!(document["files"], serde_json::json!([]));
    };
    let (bins, packaging) = (programs(), here.join("packaging"));
    prints(&[
        "--from",
        bins.to_str().unwrap(),
        "--packaging",
        packaging.to_str().unwrap(),
    ]);
    prints(&["--uninstall"]);
}

#[test]
fn without_executables_it_says_what_is_missing() {
    let root = Root::new();
    let (text, fine) = root.script(&["--bin-dir", "/nowhere"], None);
    assert!(
        !fine && text.contains("cannot find /nowhere/oci-hotplug"),
        "{text}"
    );
    assert!(root.is_bare());
}

#[test]
fn a_cdi_device_of_the_same_name_by_another_program_prevents_the_installation() {
    let root = Root::new();
    fs::create_dir_all(root.path("etc/cdi")).unwrap();
    let foreign = "cdiVersion: 0.5.0\nkind: oci-hotplug.dev/device\ndevices:\n- name: annotated\n  containerEdits: {env: [A=1]}\n";
    fs::write(root.path("etc/cdi/other.yaml"), foreign).unwrap();
    let bins = programs();
    let (text, fine) = root.script(&["--bin-dir", bins.to_str().unwrap()], None);
    assert!(!fine && text.contains("other.yaml also defines it"), "{text}");
    // What is there already can be taken away again, or the cause removed and the script run again.
    root.uninstall();
    assert_eq!(root.files(), BTreeSet::from(["etc/cdi/other.yaml".to_owned()]));
}

/// What systemd-analyze(1) (package systemd, which tests/run.sh installs) says against units of
/// ours. Of keys that are newer than itself it only warns.
fn complaints(units: &[PathBuf]) -> Vec<String> {
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .args(units)
        .output()
        .expect("start systemd-analyze: install the package systemd");
    String::from_utf8_lossy(&output.stderr)
        .lines()
        .filter(|line| line.contains("oci-hotplug") && !line.contains("Unknown key"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn systemd_accepts_the_units() {
    let root = Root::new();
    root.install();
    let units = root.path("usr/lib/systemd/system");
    let here = |unit: &str, name: &str| {
        let text = fs::read_to_string(units.join(unit)).unwrap();
        // The executables that it names are in this tree only.
        let text = ["/usr/libexec/", "/usr/bin/"].iter().fold(text, |text, dir| {
            let there = root.path(dir.trim_start_matches('/'));
            text.replace(&format!("={dir}"), &format!("={}/", there.display()))
        });
        let path = root.path(name);
        fs::write(&path, text).unwrap();
        path
    };
    here("oci-hotplug.slice", "oci-hotplug.slice");
    let all = [
        here(
            "oci-hotplug-watcher@.service",
            "oci-hotplug-watcher@web\\x2d1.service",
        ),
        here(
            "../user/oci-hotplug-watcher@.service",
            "oci-hotplug-watcher@user\\x2d1.service",
        ),
        here("oci-hotplug-recover.service", "oci-hotplug-recover.service"),
        here("oci-hotplug-metrics.service", "oci-hotplug-metrics.service"),
        here("oci-hotplug-metrics.timer", "oci-hotplug-metrics.timer"),
    ];
    assert_eq!(complaints(&all), Vec::<String>::new());
    // It does see what is wrong.
    for unit in all {
        let text = fs::read_to_string(&unit).unwrap();
        let wrong = text
            .replace("ExecStart=/", "ExecStart=")
            .replace("=1min", "=soon");
        fs::write(&unit, wrong).unwrap();
        assert_ne!(complaints(&[unit]), Vec::<String>::new(), "{text}");
    }
}

/// man(1) (package man-db, which tests/run.sh installs) has nothing to complain about.
#[test]
fn the_man_pages_are_clean() {
    let root = Root::new();
    root.install();
    let man = Command::new("man").arg("--version").output();
    assert!(man.is_ok(), "man is missing: install the package man-db");
    let files = root.files();
    let pages: Vec<&String> = files
        .iter()
        .filter(|file| file.starts_with("usr/share/man/"))
        .collect();
    assert!(pages.len() > 20, "{pages:?}");
    for page in pages {
        let output = Command::new("man")
            .args(["--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z"])
            .arg(root.path(page))
            .env("MANWIDTH", "80")
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{page}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{page}");
    }
}
