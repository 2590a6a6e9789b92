//! The packages in clean systems: installed, tried, upgraded, removed and purged, in a bare Debian
//! 12 and 13, as root. What no package manager is needed for is in tests/install/.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

const CONFIG: &str = "/etc/oci-hotplug/config.toml";
const CDI_DEVICE: &str = "/etc/cdi/oci-hotplug.dev-device_annotated.json";
const WATCHER: &str = "/usr/libexec/oci/hooks.d/oci-hotplug-watcher";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A later version, which nobody will ever release.
const LATER: &str = "999.0.0";

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// What a command that must succeed has said.
fn said(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("start {command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", both(&output));
    String::from_utf8(output.stdout).expect("text")
}

fn both(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// A package of the executables of this test run.
fn package(format: &str, version: &str) -> PathBuf {
    let programs = Path::new(env!("CARGO_BIN_EXE_oci-hotplug"))
        .parent()
        .expect("a directory");
    let printed = said(
        Command::new(here("packaging/package.sh"))
            .args([format, "--version", version, "--bin-dir"])
            .arg(programs)
            .arg("--output")
            .arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join("packages"))
            // These executables are large, and nobody downloads them.
            .env("DPKG_DEB_COMPRESSOR_TYPE", "none"),
    );
    PathBuf::from(printed.trim())
}

fn deb() -> &'static Path {
    static DEB: OnceLock<PathBuf> = OnceLock::new();
    DEB.get_or_init(|| package("deb", VERSION))
}

fn later_deb() -> &'static Path {
    static DEB: OnceLock<PathBuf> = OnceLock::new();
    DEB.get_or_init(|| package("deb", LATER))
}

fn rpm() -> &'static Path {
    static RPM: OnceLock<PathBuf> = OnceLock::new();
    RPM.get_or_init(|| package("rpm", VERSION))
}

/// A bare Debian in a directory that is gone with it.
struct System {
    root: tempfile::TempDir,
}

impl System {
    fn new(suite: &str) -> Self {
        static ROOTS: OnceLock<PathBuf> = OnceLock::new();
        let roots = ROOTS.get_or_init(|| {
            said(&mut Command::new(here("tests/packages/roots.sh")))
                .trim()
                .into()
        });
        let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        // In memory, for package managers wait for the disk after each file; and seen by nobody
        // else.
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace (as root)");
        let here = |target: &Path, source: Option<&str>, flags| {
            mount(source, target, source, flags, None::<&str>).expect("mount");
        };
        here(Path::new("/"), None, MsFlags::MS_REC | MsFlags::MS_SLAVE);
        here(root.path(), Some("tmpfs"), MsFlags::empty());
        said(
            Command::new("tar")
                .arg("-xf")
                .arg(roots.join(format!("{suite}.tar")))
                .arg("-C")
                .arg(root.path()),
        );
        Self { root }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    /// A shell command in the system, with a private /proc, and with processes that end with it.
    fn command(&self, script: &str) -> Command {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--pid", "--fork", "--kill-child"])
            .arg(format!("--mount-proc={}", self.at("/proc").display()))
            .arg("chroot")
            .arg(self.root.path())
            .args(["/bin/sh", "-c", script])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null());
        command
    }

    fn run(&self, script: &str) -> String {
        said(&mut self.command(script))
    }

    fn bring(&self, package: &Path) -> String {
        let name = package.file_name().expect("a name").to_str().expect("text");
        fs::copy(package, self.at("/tmp").join(name)).expect("copy the package");
        format!("/tmp/{name}")
    }

    /// dpkg --install, without the notes that the next files make: they are of the package manager.
    fn install(&self, package: &Path) {
        let file = self.bring(package);
        self.run(&format!("dpkg --force-unsafe-io --install {file} && rm {file}"));
    }

    fn version(&self) -> String {
        self.run("dpkg-query --show --showformat='${Version} ${db:Status-Status}' oci-hotplug")
    }

    /// All files and directories but those that package managers keep for themselves.
    fn files(&self) -> BTreeSet<String> {
        let list = self.run(
            "find / -xdev -path /proc -prune -o -path /var/lib/dpkg -prune -o -path /var/log -prune \
             -o -path /var/cache -prune -o -path /root/.rpmdb -prune -o -print",
        );
        list.lines().map(str::to_owned).collect()
    }
}

impl Drop for System {
    fn drop(&mut self) {
        let _ = umount2(self.root.path(), MntFlags::MNT_DETACH);
    }
}

/// Runs a script in the system while a process runs from the watcher's executable, as that of a
/// container would; the script finds its number in `$watcher`. Both end together.
fn while_a_watcher_runs(system: &System, script: &str) -> Output {
    let script = format!(
        "cp /usr/bin/sleep {WATCHER}.new && mv {WATCHER}.new {WATCHER} || exit 8
         {WATCHER} 600 & watcher=$!
         until [ \"$(readlink /proc/$watcher/exe)\" = {WATCHER} ]; do kill -0 $watcher || exit 9; done
         {script}"
    );
    system
        .command(&script)
        .output()
        .expect("start a shell in the system")
}

fn finding(check: &serde_json::Value, name: &str) -> serde_json::Value {
    let findings = check["findings"].as_array().expect("findings");
    findings
        .iter()
        .find(|finding| finding["check"] == name)
        .unwrap_or_else(|| panic!("{name} in {check:#}"))
        .clone()
}

fn is_tried_upgraded_removed_and_purged(suite: &str) {
    let system = System::new(suite);
    let bare = system.files();

    system.install(deb());
    assert_eq!(system.version(), format!("{VERSION} installed"));
    assert_eq!(
        system.run("oci-hotplug --version"),
        format!("oci-hotplug {VERSION}\n")
    );
    assert_eq!(system.run("dpkg --verify oci-hotplug"), "", "as it was packed");
    the_check_is_content(&system);
    the_monitoring_is_where_operations_md_says(&system);
    system.run("oci-hotplug allow usb:0627:0001");
    let rules = || fs::read_dir(system.at("/etc/oci-hotplug/config.d")).map_or(0, Iterator::count);
    assert_eq!(rules(), 1);
    // At boot the watchers are recovered, unless the administrator has disabled that; metrics are
    // not enabled.
    let wanted = system.at("/etc/systemd/system/multi-user.target.wants/oci-hotplug-recover.service");
    assert!(wanted.is_symlink(), "{}", wanted.display());
    let metrics = system.at("/etc/systemd/system/timers.target.wants/oci-hotplug-metrics.timer");
    assert!(!metrics.is_symlink());
    fs::remove_file(&wanted).expect("disable the unit");

    // The administrator's configuration stays; the rest is the new version's.
    let edited = "log-level = \"debug\"\n";
    fs::write(system.at(CONFIG), edited).expect("edit the configuration");
    system.install(later_deb());
    assert_eq!(system.version(), format!("{LATER} installed"));
    assert_eq!(
        fs::read_to_string(system.at(CONFIG)).expect("the configuration"),
        edited
    );

    assert!(!wanted.is_symlink(), "it is enabled again");

    let refused = while_a_watcher_runs(&system, "dpkg --remove oci-hotplug");
    let text = both(&refused);
    assert!(!refused.status.success(), "{text}");
    assert!(text.contains("containers are running with watchers"), "{text}");
    assert_eq!(system.version(), format!("{LATER} installed"));
    assert!(system.at(WATCHER).exists());

    system.run("dpkg --remove oci-hotplug");
    assert_eq!(system.version(), format!("{LATER} config-files"));
    assert!(!system.at(WATCHER).exists() && system.at(CONFIG).exists());
    assert_eq!(rules(), 1);
    // Otherwise an engine would fail at a request for it, because the hooks are gone.
    assert!(!system.at(CDI_DEVICE).exists());

    fs::create_dir_all(system.at("/run/oci-hotplug/containers")).expect("state");
    fs::write(system.at("/run/oci-hotplug/oci-hotplug.log"), "a line\n").expect("a log");
    system.run("dpkg --purge oci-hotplug");
    let left: Vec<String> = system.files().difference(&bare).cloned().collect();
    assert_eq!(left, Vec::<String>::new());
    assert_eq!(bare.difference(&system.files()).count(), 0);
}

/// Dashboard and alert rules, in the directory that Prometheus is configured to read them from.
fn the_monitoring_is_where_operations_md_says(system: &System) {
    let directory = "/usr/share/oci-hotplug/monitoring";
    let operations = fs::read_to_string(here("docs/operations.md")).expect("docs/operations.md");
    assert!(operations.contains(&format!("- {directory}/alerts.yaml")));
    for name in ["alerts.yaml", "dashboard.json"] {
        assert_eq!(
            fs::read(system.at(directory).join(name)).expect(name),
            fs::read(here("packaging/monitoring").join(name)).expect(name)
        );
    }
}

/// What a package brings is in order; what the machine of this test lacks is none of its business.
fn the_check_is_content(system: &System) {
    let output = system
        .command("oci-hotplug check --json")
        .output()
        .expect("start the check");
    let check: serde_json::Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", both(&output)));
    for name in [
        "user",
        "state",
        "config",
        "programs",
        "units",
        "cdi",
        "containers",
    ] {
        assert_eq!(finding(&check, name)["verdict"], "ok", "{check:#}");
    }
    assert_eq!(finding(&check, "runtimes")["verdict"], "warn", "{check:#}");
    let is_ready = check["ready"].as_bool().expect("a word");
    assert_eq!(output.status.code(), Some(i32::from(!is_ready)), "{check:#}");
}

#[test]
#[ignore = "as root, in a bare Debian: tests/run.sh --privileged"]
fn the_deb_is_tried_upgraded_removed_and_purged_on_debian_12() {
    is_tried_upgraded_removed_and_purged("bookworm");
}

#[test]
#[ignore = "as root, in a bare Debian: tests/run.sh --privileged"]
fn the_deb_is_tried_upgraded_removed_and_purged_on_debian_13() {
    is_tried_upgraded_removed_and_purged("trixie");
}

#[test]
#[ignore = "as root, in a bare Debian: tests/run.sh --privileged"]
fn a_forced_removal_of_the_deb_leaves_running_watchers_alone() {
    let system = System::new("bookworm");
    system.install(deb());
    let output = while_a_watcher_runs(
        &system,
        "OCI_HOTPLUG_REMOVE_ANYWAY=1 dpkg --purge oci-hotplug && kill -0 $watcher",
    );
    assert!(output.status.success(), "{}", both(&output));
    assert!(!system.at(WATCHER).exists());
}

#[test]
#[ignore = "as root, in a bare Debian: tests/run.sh --privileged"]
fn a_purge_leaves_the_state_of_a_container_that_is_still_watched() {
    let system = System::new("bookworm");
    system.install(deb());
    let lock = "/run/oci-hotplug/containers/web/lock";
    fs::create_dir_all(system.at(lock).parent().expect("a directory")).expect("state");
    fs::write(system.at(lock), "").expect("a lock");
    system.run(&format!("flock {lock} dpkg --purge oci-hotplug"));
    assert!(system.at(lock).exists());
}

#[test]
#[ignore = "wants lintian: tests/run.sh --privileged"]
fn lintian_accepts_the_deb() {
    let output = Command::new("lintian")
        .args(["--allow-root", "--no-cfg", "--suppress-tags"])
        // These executables are those of a test run: `package`.
        .arg("uses-no-compression-for-data-tarball,uses-no-compression-for-control-tarball")
        .arg(deb())
        .output()
        .expect("start lintian (package lintian)");
    assert_eq!(both(&output), "");
}

#[test]
#[ignore = "as root, in a bare Debian: tests/run.sh --privileged"]
fn the_rpm_has_what_the_deb_has_and_comes_and_goes() {
    let query = |what: &[&str]| {
        said(
            Command::new("rpm")
                .arg("--query")
                .arg("--package")
                .args(what)
                .arg(rpm()),
        )
    };
    assert_eq!(
        query(&["--queryformat", "%{NAME} %{VERSION} %{LICENSE}"]),
        format!("oci-hotplug {VERSION} Apache-2.0 OR MIT")
    );
    assert!(query(&["--requires"]).contains("libudev.so.1"));
    assert_eq!(query(&["--configfiles"]).trim(), CONFIG);

    // The names differ where the distributions do.
    let of_rpm: BTreeSet<String> = query(&["--queryformat", "[%{FILEMODES:perms} %{FILENAMES}\n]"])
        .lines()
        .filter(|line| line.starts_with('-'))
        .filter_map(|line| line.split_once(' '))
        .map(|(_, path)| path.to_owned())
        .filter(|path| !path.starts_with("/usr/share/licenses/"))
        .collect();
    let of_deb: BTreeSet<String> = said(Command::new("dpkg-deb").arg("--contents").arg(deb()))
        .lines()
        .filter(|line| line.starts_with('-'))
        .filter_map(|line| line.split_once(" ./"))
        .map(|(_, path)| format!("/{path}").replace("vendor-completions", "site-functions"))
        .filter(|path| !path.ends_with("/copyright") && !path.ends_with("/changelog.gz"))
        .filter(|path| !path.starts_with("/usr/share/lintian/"))
        .collect();
    assert_eq!(of_rpm, of_deb);
    assert!(query(&["--queryformat", "%{PACKAGER}"]).contains('@'));
    assert!(of_rpm.contains(WATCHER), "{of_rpm:?}");

    let system = System::new("trixie");
    let bare = system.files();
    // Debian's libraries are not in rpm's book.
    let manage = |action: &[&str]| {
        let mut command = Command::new("rpm");
        command.arg("--root").arg(system.root.path()).args(action);
        command
    };
    said(manage(&["--install", "--nodeps"]).arg(rpm()));
    assert_eq!(
        said(&mut manage(&["--verify", "--nodeps", "oci-hotplug"])),
        "",
        "as it was packed"
    );
    assert_eq!(
        system.run("oci-hotplug --version"),
        format!("oci-hotplug {VERSION}\n")
    );
    the_check_is_content(&system);
    said(&mut manage(&["--erase", "oci-hotplug"]));
    let left: Vec<String> = system.files().difference(&bare).cloned().collect();
    assert_eq!(left, Vec::<String>::new());
    assert_eq!(bare.difference(&system.files()).count(), 0);
}
