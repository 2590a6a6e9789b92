//! What a user puts into the state directory in the place of a file: a FIFO, which open(2) waits
//! for, a symbolic link, a directory, a device. All programs end, and say what is wrong.

#[path = "support/record.rs"]
mod record;

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::mkfifo;

use record::write_record;

const OPERATOR: &str = env!("CARGO_BIN_EXE_oci-hotplug");
const PRESTART: &str = env!("CARGO_BIN_EXE_oci-hotplug-prestart");
const POSTSTOP: &str = env!("CARGO_BIN_EXE_oci-hotplug-poststop");
const WATCHER: &str = env!("CARGO_BIN_EXE_oci-hotplug-watcher");

/// Far more than any of the programs takes, on a busy machine, and less than a watcher waits for
/// the one before it (`watcher::handover`): no program waits for a file that cannot be locked.
const PATIENCE: Duration = Duration::from_secs(12);

/// The files of the state directory.
const PLACES: [&str; 15] = [
    "containers/alpha/record.json",
    "containers/alpha/attached.jsonl",
    "containers/alpha/lock",
    "containers/alpha/control",
    "containers/alpha/udev",
    "containers/alpha",
    "containers",
    "refused-starts.json",
    "refused-starts.lock",
    "oci-hotplug.log",
    "oci-hotplug.log.old",
    "leases/sda-0123",
    "cgroups/v2-1",
    "usbip/port-0.json",
    "usbip/hubs.json",
];

/// Those where what does not wait is put as well.
const SOME_PLACES: std::ops::Range<usize> = 0..4;

/// What is put there, with its name in messages.
const KINDS: [&str; 4] = ["a FIFO", "a symbolic link", "a directory", "a device"];

/// Puts it there; `false` if this user cannot.
fn put(kind: &str, path: &Path) -> bool {
    fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
    match path.symlink_metadata() {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path).expect("remove a directory"),
        Ok(_) => fs::remove_file(path).expect("remove a file"),
        Err(_) => {}
    }
    match kind {
        "a FIFO" => mkfifo(path, Mode::S_IRWXU).expect("a FIFO"),
        "a symbolic link" => symlink("/etc/passwd", path).expect("a link"),
        "a directory" => fs::create_dir(path).expect("a directory"),
        // That of /dev/null. Only root can make it.
        _ => return mknod(path, SFlag::S_IFCHR, Mode::S_IRWXU, makedev(1, 3)).is_ok(),
    }
    true
}

struct Scene {
    scratch: tempfile::TempDir,
}

impl Scene {
    /// A state directory with a container that has ended.
    fn new() -> Self {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let scene = Self { scratch };
        let dir = write_record(&scene.state_dir(), "alpha", |_| {});
        fs::write(dir.join("lock"), "").expect("a lock");
        fs::create_dir_all(scene.scratch.path().join("bundle/rootfs")).expect("a bundle");
        fs::write(scene.scratch.path().join("config.toml"), "").expect("a configuration");
        scene
    }

    fn state_dir(&self) -> PathBuf {
        self.scratch.path().join("state")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env_clear().current_dir(self.scratch.path());
        command.arg("--state-dir").arg(self.state_dir());
        command
            .arg("--config")
            .arg(self.scratch.path().join("config.toml"));
        command
    }

    /// The state of a container that a runtime creates, for a hook. No process has the pid.
    fn hook_state(&self) -> String {
        let bundle = self.scratch.path().join("bundle");
        let config = r#"{"ociVersion":"1.0.2","root":{"path":"rootfs"},"process":{"cwd":"/","args":["sh"],"user":{"uid":0,"gid":0}},
            "annotations":{"io.oci-hotplug.devices":"usb:0403:6001"}}"#;
        fs::write(bundle.join("config.json"), config).expect("a config.json");
        format!(
            r#"{{"ociVersion":"1.0.2","id":"alpha","status":"created","pid":2147483646,"bundle":"{}"}}"#,
            bundle.display()
        )
    }
}

/// The program's output, which it must have in time.
fn ends(mut command: Command, input: &str, what: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start a program");
    let _ = child.stdin.take().expect("its input").write_all(input.as_bytes());
    let start = Instant::now();
    while child.try_wait().expect("its state").is_none() {
        if start.elapsed() > PATIENCE {
            child.kill().expect("end the program");
            panic!("{what}: it does not end");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    child.wait_with_output().expect("its output")
}

fn said(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    format!("{out}{err}")
}

#[test]
fn no_program_waits_for_what_is_in_the_place_of_a_state_file() {
    for kind in KINDS {
        let places = match kind {
            "a FIFO" => &PLACES[..],
            _ => &PLACES[SOME_PLACES],
        };
        for place in places {
            let scene = Scene::new();
            let path = scene.state_dir().join(place);
            if !put(kind, &path) {
                continue;
            }
            let what = |program: &str| format!("{program}, {kind} at {place}");
            for words in [
                &["list"][..],
                &["list", "--json"],
                &["inspect", "alpha"],
                &["explain", "alpha", "/dev/null"],
                &["events"],
                &["metrics"],
                &["reload"],
                &["attach", "alpha", "usb:0403:6001"],
                &["detach", "alpha", "usb:0403:6001"],
                &["recover"],
            ] {
                let mut command = scene.command(OPERATOR);
                command.args(words);
                ends(command, "", &what(words[0]));
            }
            put(kind, &path);
            let state = scene.hook_state();
            for hook in [PRESTART, POSTSTOP] {
                ends(scene.command(hook), &state, &what(hook));
                put(kind, &path);
            }
            let mut watcher = scene.command(WATCHER);
            watcher.args(["--take-over", "alpha"]);
            ends(watcher, "", &what(WATCHER));
        }
    }
}

#[test]
fn the_message_names_the_file_what_it_is_and_the_hint() {
    for (place, words) in [
        ("containers/alpha/record.json", &["inspect", "alpha"][..]),
        ("containers/alpha/record.json", &["list"]),
    ] {
        for kind in KINDS {
            let scene = Scene::new();
            let path = scene.state_dir().join(place);
            if !put(kind, &path) {
                continue;
            }
            let mut command = scene.command(OPERATOR);
            command.args(words);
            let said = said(&ends(command, "", place));
            let expected = format!("{}: it is {kind}, not a regular file", path.display());
            assert!(said.contains(&expected), "{words:?}, {kind}: {said}");
        }
    }
}
