//! packaging/install.sh into a directory that stands for `/`. Needs no privilege and builds
//! nothing: it installs the executables of this test run.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::OnceLock;

#[path = "support/json_schema.rs"]
mod json_schema;

const CONFIG: &str = "etc/oci-hotplug/config.toml";
const ANNOTATED: &str = "etc/cdi/oci-hotplug.dev-device_annotated.json";
const WATCHER: &str = "usr/libexec/oci/hooks.d/oci-hotplug-watcher";

/// The executables of this test run without what debuggers read, which would be copied a dozen
/// times.
fn programs() -> &'static Path {
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("install");
        fs::create_dir_all(&dir).unwrap();
        for program in [
            env!("CARGO_BIN_EXE_oci-hotplug"),
            env!("CARGO_BIN_EXE_oci-hotplug-prestart"),
            env!("CARGO_BIN_EXE_oci-hotplug-poststop"),
            env!("CARGO_BIN_EXE_oci-hotplug-watcher"),
            env!("CARGO_BIN_EXE_oci-hotplug-usbip"),
        ] {
            let stripped = dir.join(Path::new(program).file_name().unwrap());
            let mut command = Command::new("strip");
            let status = command.arg("-o").arg(&stripped).arg(program).status();
            let status = status.expect("start strip, which comes with the linker (package binutils)");
            assert!(status.success(), "{command:?}: {status}");
        }
        dir
    })
}

struct Root(tempfile::TempDir);

impl Root {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    /// What the script said, standard error behind standard output, and whether it succeeded.
    fn script(&self, arguments: &[&str], prefix: Option<&str>) -> (String, bool) {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new(here.join("packaging/install.sh"));
        command
            .args(arguments)
            .env("DESTDIR", self.0.path())
            .env_remove("PREFIX");
        if let Some(prefix) = prefix {
            command.env("PREFIX", prefix);
        }
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (String::from_utf8(text).unwrap(), output.status.success())
    }

    fn install(&self) -> String {
        self.install_with(None)
    }

    fn install_with(&self, prefix: Option<&str>) -> String {
        let bins = programs();
        let (text, fine) = self.script(&["--bin-dir", bins.to_str().unwrap()], prefix);
        assert!(fine, "{text}");
        text
    }

    fn uninstall(&self) -> String {
        let (text, fine) = self.script(&["--uninstall"], None);
        assert!(fine, "{text}");
        text
    }

    /// All files below the root.
    fn files(&self) -> BTreeSet<String> {
        let mut files = BTreeSet::new();
        let mut dirs = vec![self.0.path().to_owned()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() {
                    dirs.push(entry.path());
                } else {
                    let below = entry.path().strip_prefix(self.0.path()).unwrap().to_owned();
                    files.insert(below.to_str().unwrap().to_owned());
                }
            }
        }
        files
    }

    fn is_bare(&self) -> bool {
        fs::read_dir(self.0.path()).unwrap().next().is_none()
    }
}

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

/// Ends with its test, also when that fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process that runs the watcher's file, and that is what counts.
fn sleeping_watcher(root: &Root) -> Running {
    // By cp(1): an executable that this process has written itself cannot be started while another
    // thread forks (ETXTBSY).
    let status = Command::new("cp")
        .arg("/bin/sleep")
        .arg(root.path(WATCHER))
        .status();
    assert!(status.unwrap().success(), "copy sleep");
    Running(Command::new(root.path(WATCHER)).arg("600").spawn().unwrap())
}

#[test]
fn while_watchers_run_uninstalling_needs_force() {
    let root = Root::new();
    root.install();
    let watcher = sleeping_watcher(&root);
    let (text, fine) = root.script(&["--uninstall"], None);
    assert!(
        !fine && text.contains(&format!("(processes {})", watcher.0.id())),
        "{text}"
    );
    assert!(root.path("usr/bin/oci-hotplug").exists());
    let (text, fine) = root.script(&["--uninstall", "--force"], None);
    assert!(fine && root.is_bare(), "{text}");
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

/// And what runs is not disturbed.
#[test]
fn an_update_says_how_watchers_that_run_get_the_new_version() {
    let root = Root::new();
    root.install();
    let watcher = sleeping_watcher(&root);
    let text = root.install();
    assert!(
        text.contains(&format!("(processes {})", watcher.0.id()))
            && text.contains("oci-hotplug recover --restart-watchers"),
        "{text}"
    );
    // Replaced by rename: what runs is as it was.
    let runs = fs::read_link(format!("/proc/{}/exe", watcher.0.id())).unwrap();
    assert!(
        runs.to_string_lossy().ends_with(" (deleted)"),
        "{}",
        runs.display()
    );
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
