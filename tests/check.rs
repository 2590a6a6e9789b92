//! `oci-hotplug check` from outside, over a host that is made of files: tests/fixtures/host, with
//! every engine. (With containers and the running kernel: tests/privileged; in clean systems:
//! tests/packages.rs.)

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// A copy of the host, to be spoilt.
struct Host {
    root: tempfile::TempDir,
}

impl Host {
    /// All is well in it.
    fn new() -> Self {
        let host = Self::bare();
        // By cp(1): a script that this process has written itself can't be started while another
        // thread forks.
        let done = Command::new("cp")
            .args(["--archive", "--no-target-directory"])
            .arg(fixture("tests/fixtures/host"))
            .arg(host.root.path())
            .status();
        assert!(done.is_ok_and(|status| status.success()), "copy the host");
        for program in [
            env!("CARGO_BIN_EXE_oci-hotplug-prestart"),
            env!("CARGO_BIN_EXE_oci-hotplug-poststop"),
            env!("CARGO_BIN_EXE_oci-hotplug-watcher"),
            env!("CARGO_BIN_EXE_oci-hotplug-usbip"),
        ] {
            host.link(Path::new(program), "usr/libexec/oci/hooks.d");
        }
        for hook in ["oci-hotplug-prestart.json", "oci-hotplug-poststop.json"] {
            host.link(&fixture("hooks.d").join(hook), "usr/share/containers/oci/hooks.d");
        }
        host
    }

    /// Nothing is in it.
    fn bare() -> Self {
        Self {
            root: tempfile::tempdir().expect("a scratch directory"),
        }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn link(&self, file: &Path, dir: &str) {
        fs::create_dir_all(self.at(dir)).expect("a directory");
        symlink(file, self.at(dir).join(file.file_name().expect("a name"))).expect("a link");
    }

    fn write(&self, path: &str, text: &str) {
        fs::create_dir_all(self.at(path).parent().expect("a directory")).expect("a directory");
        fs::write(self.at(path), text).expect("a file");
    }

    fn remove(&self, path: &str) {
        fs::remove_file(self.at(path)).expect("remove a file");
    }

    fn check(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_oci-hotplug"))
            .args(["check", "--root"])
            .arg(self.root.path())
            .args(arguments)
            .output()
            .expect("start oci-hotplug")
    }

    /// What it says, and its exit code.
    fn told(&self) -> (String, Option<i32>) {
        let output = self.check(&[]);
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        let text = String::from_utf8(output.stdout).expect("text");
        (text, output.status.code())
    }
}

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The line of one check.
#[track_caller]
fn line<'t>(text: &'t str, check: &str) -> &'t str {
    let mut lines = text.lines();
    lines
        .find(|line| line.split_ascii_whitespace().nth(1) == Some(check))
        .unwrap_or_else(|| panic!("{check} in:\n{text}"))
}

const READY: &str = "\
ok    kernel      Linux 6.12.48+deb13-amd64
ok    cgroup      v2 at /sys/fs/cgroup
ok    udevd       runs
ok    security    AppArmor is on; the engines' own profiles leave /dev alone
ok    inotify     128 instances for root; each watcher needs one
ok    state       /run/oci-hotplug, created with the first container
ok    config      /etc/oci-hotplug/config.toml: 1 class, 1 rule
ok    programs    hooks and watcher in /usr/libexec/oci/hooks.d
ok    units       systemd restarts watchers
ok    cdi         oci-hotplug.dev/device=annotated in /etc/cdi/oci-hotplug.dev-device_annotated.json
ok    containers  0 have a watcher
ok    podman      5.4.2, starts the hooks of /usr/share/containers/oci/hooks.d and /etc/containers/oci/hooks.d
ok    docker      26.1.5, CDI is on
ok    containerd  1.7.24, CDI is on
ok    cri-o       1.36.0, starts the hooks of /usr/share/containers/oci/hooks.d
ok    runc        1.1.15
ok    crun        1.21.0

This host is ready.
";

#[test]
fn a_complete_host_is_ready() {
    assert_eq!(Host::new().told(), (READY.to_owned(), Some(0)));
}

const SPOILT: &str = "\
fail  kernel      Linux 5.4.0-42-generic (update it to Linux 5.6 or newer)
ok    cgroup      v2 at /sys/fs/cgroup
warn  udevd       does not run, but its socket exists: requests by tag:, property: and udev's links (/dev/serial/by-id) select nothing (start it: systemctl restart systemd-udevd)
warn  security    SELinux enforces: containers may not open devices that their label does not allow (setsebool -P container_use_devices 1, or run them with --security-opt label=disable)
warn  inotify     8 instances for root; each watcher needs one (0 now) (sysctl fs.inotify.max_user_instances=1024, and in /etc/sysctl.d)
ok    state       /run/oci-hotplug, created with the first container
fail  config      users other than root can write /etc/oci-hotplug/config.toml (chown root:root /etc/oci-hotplug/config.toml && chmod 0644 /etc/oci-hotplug/config.toml)
fail  programs    oci-hotplug-watcher missing in /usr/libexec/oci/hooks.d (install oci-hotplug again)
warn  units       systemd has no unit oci-hotplug-watcher@.service: a watcher that crashes is not restarted (install oci-hotplug again, or run \"oci-hotplug recover\" regularly)
warn  cdi         no device oci-hotplug.dev/device=annotated: Docker, Compose and the CRI need it (oci-hotplug cdi generate annotated)
ok    containers  0 have a watcher
fail  podman      5.4.2: no file starts oci-hotplug-prestart, in /opt/hooks.d (add \"/usr/share/containers/oci/hooks.d\" to hooks_dir under [engine] of /etc/containers/containers.conf)
warn  docker      26.1.5, CDI is off ({\"features\": {\"cdi\": true}} in /etc/docker/daemon.json, then systemctl restart docker)
warn  containerd  1.7.24, CDI is off in its CRI plugin, which Docker does not use (for Kubernetes: enable_cdi = true under [plugins.\"io.containerd.grpc.v1.cri\"] in /etc/containerd/config.toml, then systemctl restart containerd)
fail  cri-o       1.36.0: no file starts oci-hotplug-prestart, in /opt/hooks.d (add \"/usr/share/containers/oci/hooks.d\" to hooks_dir under [crio.runtime] in a file of /etc/crio/crio.conf.d)
ok    runc        1.1.15
ok    crun        1.21.0

This host is not ready: 5 failed, with 7 warnings.
";

#[test]
fn every_fault_is_reported_with_a_hint() {
    let host = Host::new();
    host.write("proc/sys/kernel/osrelease", "5.4.0-42-generic\n");
    host.write(
        "proc/thread-self/net/unix",
        "Num       RefCount Protocol Flags    Type St Inode Path\n",
    );
    host.write("sys/fs/selinux/enforce", "1");
    host.write("proc/sys/fs/inotify/max_user_instances", "8\n");
    let config = host.at("etc/oci-hotplug/config.toml");
    fs::set_permissions(config, std::os::unix::fs::PermissionsExt::from_mode(0o666)).expect("chmod");
    host.remove("usr/libexec/oci/hooks.d/oci-hotplug-watcher");
    host.remove("usr/lib/systemd/system/oci-hotplug-watcher@.service");
    host.remove("etc/cdi/oci-hotplug.dev-device_annotated.json");
    host.write(
        "etc/containers/containers.conf",
        "[engine]\nhooks_dir = [\"/opt/hooks.d\"]\n",
    );
    host.remove("etc/containers/containers.conf.d/hooks.conf");
    host.remove("etc/docker/daemon.json");
    host.remove("etc/containerd/conf.d/cdi.toml");
    host.write(
        "etc/crio/crio.conf.d/20-hooks.conf",
        "[crio.runtime]\nhooks_dir = [\"/opt/hooks.d\"]\n",
    );
    assert_eq!(host.told(), (SPOILT.to_owned(), Some(1)));
}

#[test]
fn json_has_the_same_findings() {
    let host = Host::new();
    host.remove("etc/docker/daemon.json");
    let output = host.check(&["--json"]);
    assert_eq!(output.status.code(), Some(0), "a warning is not a failure");
    let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(told["ready"], true);
    let findings = told["findings"].as_array().expect("findings");
    assert_eq!(findings.len(), READY.lines().count() - 2);
    assert_eq!(
        findings[0],
        serde_json::json!({ "check": "kernel", "verdict": "ok", "found": "Linux 6.12.48+deb13-amd64", "hint": null, "caused_by": null })
    );
    let docker = findings
        .iter()
        .find(|finding| finding["check"] == "docker")
        .expect("docker");
    assert_eq!(
        (&docker["verdict"], &docker["found"]),
        (&"warn".into(), &"26.1.5, CDI is off".into())
    );
    assert!(
        docker["hint"]
            .as_str()
            .expect("a hint")
            .contains("/etc/docker/daemon.json")
    );
}

#[test]
fn engines_that_are_not_installed_are_not_checked() {
    let (text, code) = Host::bare().told();
    assert_eq!(code, Some(1), "{text}");
    assert_eq!(
        line(&text, "engines"),
        "ok    engines     none of podman, Docker, containerd and CRI-O is installed"
    );
    assert!(line(&text, "runtimes").starts_with("warn"), "{text}");
    for engine in ["podman", "docker", "containerd", "cri-o", "runc"] {
        let judged = text
            .lines()
            .any(|line| line.split_ascii_whitespace().nth(1) == Some(engine));
        assert!(!judged, "{engine} in:\n{text}");
    }
}

#[test]
fn files_that_cannot_be_read_are_reported_with_their_path() {
    let host = Host::new();
    host.write(
        "etc/oci-hotplug/config.toml",
        "log-level = \"info\"\nlog_level = 1\n",
    );
    host.write(
        "etc/docker/daemon.json",
        "{\n  \"features\": {\"cdi\": true},\n}\n",
    );
    host.write("etc/containerd/conf.d/cdi.toml", "version = 2\n[plugins\n");
    host.write(
        "etc/crio/crio.conf.d/10-crio.conf",
        "[crio.runtime]\nhooks_dir = 7\n",
    );
    host.write("etc/containers/containers.conf", "[engine]\n= 1\n");
    let (text, code) = host.told();
    assert_eq!(code, Some(1), "{text}");
    for (check, words) in [
        ("config", "etc/oci-hotplug/config.toml: line 2, column 1: "),
        ("docker", "26.1.5: /etc/docker/daemon.json: "),
        ("containerd", "1.7.24: /etc/containerd/conf.d/cdi.toml: "),
        ("cri-o", "1.36.0: /etc/crio/crio.conf.d/10-crio.conf: "),
        ("podman", "5.4.2: /etc/containers/containers.conf: "),
    ] {
        let line = line(&text, check);
        assert!(line.starts_with("fail") && line.contains(words), "{line}");
        assert!(line.contains("line "), "{line}");
    }
}

#[test]
fn a_device_annotated_that_two_files_define_is_reported() {
    let host = Host::new();
    let ours = host.at("etc/cdi/oci-hotplug.dev-device_annotated.json");
    fs::copy(ours, host.at("etc/cdi/copy.json")).expect("a copy");
    let (text, code) = host.told();
    assert_eq!(code, Some(1));
    assert!(
        line(&text, "cdi").starts_with("fail") && line(&text, "cdi").contains("another file defines"),
        "{text}"
    );
}

#[test]
fn leftovers_of_an_ended_container_are_reported() {
    let host = Host::new();
    // No process has started at the first tick of the clock and has this number.
    host.write(
        "run/oci-hotplug/containers/web/record.json",
        r#"{"version":1,"container":{"id":"web","pid":2147483647,"start_time":1,"bundle":"/b","rootfs":"/b/rootfs","cgroups_path":null,"user":{"uid":0,"gid":0}},"requests":[],"symlinks":[],"enrolled":0}"#,
    );
    host.write("run/oci-hotplug/containers/torn/record.json", "{");
    let state = host.at("run/oci-hotplug");
    fs::set_permissions(state, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("chmod");
    let (text, code) = host.told();
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("ok    state       /run/oci-hotplug, for root only\n"),
        "{text}"
    );
    assert!(
        text.contains("warn  containers  records of containers that are gone: web (run oci-hotplug recover"),
        "{text}"
    );
    assert!(text.contains("torn/record.json: EOF"), "{text}");
}

/// Case newcomer: podman with crun shows only the exit code.
#[test]
fn a_container_that_was_not_started_is_reported_with_the_reason() {
    let host = Host::new();
    host.write(
        "run/oci-hotplug/refused-starts.json",
        r#"[{"time":0,"id":"c1","name":null,"reason":"first"},{"time":0,"id":"c2","name":"lab","reason":"device request \"usb:1\": no"}]"#,
    );
    let state = host.at("run/oci-hotplug");
    fs::set_permissions(state, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("chmod");
    let (text, code) = host.told();
    assert_eq!(code, Some(0), "{text}");
    let told: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("was not started"))
        .collect();
    assert!(
        told[0].starts_with("warn  containers  container lab was not started, "),
        "{text}"
    );
    assert!(
        told[0].contains("d ago: device request \"usb:1\": no ("),
        "{text}"
    );
    assert!(told[1].contains("container c1 was not started"), "{text}");
}

#[test]
fn a_program_that_does_not_answer_is_not_waited_for() {
    let host = Host::new();
    host.remove("usr/bin/crun");
    host.link(&fixture("tests/fixtures/silent"), "usr/bin");
    fs::rename(host.at("usr/bin/silent"), host.at("usr/bin/crun")).expect("a name");
    assert_eq!(line(&host.told().0, "crun"), "ok    crun        unknown version");
}
