//! The device plugin as a separate process, in separate directories.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::time::sleep;

use crate::kubelet::{Behaviour, DEADLINE, Kubelet};
use crate::release;

/// The interval of checking a condition.
const STEP: std::time::Duration = std::time::Duration::from_millis(10);

/// Directories for a plugin and its kubelet.
pub struct Node {
    scratch: TempDir,
}

/// A running plugin; ended when it is dropped.
pub struct Plugin {
    child: Child,
    log: PathBuf,
}

impl Node {
    pub fn new() -> Self {
        let scratch = TempDir::with_prefix("oci-hotplug-k8s.").expect("a scratch directory");
        fs::create_dir(scratch.path().join("kubelet")).expect("kubelet's directory");
        Self { scratch }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    pub fn kubelet_dir(&self) -> PathBuf {
        self.path("kubelet")
    }

    pub fn cdi_dir(&self) -> PathBuf {
        self.path("cdi")
    }

    /// Starts kubelet.
    pub fn kubelet(&self, behaviour: Behaviour) -> Kubelet {
        Kubelet::start(&self.kubelet_dir(), &self.cdi_dir(), behaviour)
    }

    /// Writes a file, complete or not at all, as a ConfigMap changes.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let temporary = self.path(".new");
        fs::write(&temporary, text).expect("write a file");
        let path = self.path(name);
        fs::rename(temporary, &path).expect("put a file in place");
        path
    }

    fn command(&self, arguments: &[&str]) -> Command {
        self.command_of(
            Path::new(env!("CARGO_BIN_EXE_oci-hotplug-device-plugin")),
            arguments,
        )
    }

    fn command_of(&self, executable: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(executable);
        command
            .env_clear()
            .arg("--kubelet-dir")
            .arg(self.kubelet_dir())
            .arg("--cdi-dir")
            .arg(self.cdi_dir())
            .args([
                "--engine-socket",
                "/nowhere",
                "--containerd-config",
                "/nowhere",
                "--cdi",
                "on",
                "--pod-resources",
                "",
            ])
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    /// Starts a plugin, without a port.
    pub fn plugin(&self, arguments: &[&str]) -> Plugin {
        let mut all = vec!["--listen", ""];
        all.extend(arguments);
        self.plugin_that_listens(&all)
    }

    /// Starts a plugin with nothing but these arguments and this environment.
    pub fn plugin_of(&self, environment: &[(&str, &str)], arguments: &[&str]) -> Plugin {
        let mut command = Command::new(env!("CARGO_BIN_EXE_oci-hotplug-device-plugin"));
        command
            .env_clear()
            .envs(environment.iter().copied())
            .args(arguments);
        command.stdin(Stdio::null());
        self.start(command)
    }

    /// The same, with these variables in its environment, and nothing else.
    pub fn plugin_with(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Plugin {
        let mut command = self.command(&["--listen", ""]);
        command.envs(variables.iter().copied()).args(arguments);
        self.start(command)
    }

    pub fn plugin_that_listens(&self, arguments: &[&str]) -> Plugin {
        self.start(self.command(arguments))
    }

    /// The plugin as it is shipped: what it costs is only true of that one.
    pub fn release_plugin(&self, arguments: &[&str]) -> Plugin {
        let release = release::executable("oci-hotplug-device-plugin");
        let mut all = vec!["--listen", ""];
        all.extend(arguments);
        self.start(self.command_of(&release, &all))
    }

    fn start(&self, mut command: Command) -> Plugin {
        let log = self.path(&format!(
            "plugin.{}.log",
            fs::read_dir(self.scratch.path()).unwrap().count()
        ));
        let child = command
            .stdout(Stdio::null())
            .stderr(File::create(&log).expect("a log file"))
            .spawn()
            .expect("start the plugin");
        Plugin { child, log }
    }

    /// Runs it to its end: success, standard output, standard error.
    pub fn run(&self, arguments: &[&str]) -> (ExitStatus, String, String) {
        self.run_with(&[], arguments)
    }

    /// The same with these variables in its environment, and nothing else.
    pub fn run_with(&self, variables: &[(&str, &str)], arguments: &[&str]) -> (ExitStatus, String, String) {
        let mut command = self.command(arguments);
        let output = command
            .envs(variables.iter().copied())
            .output()
            .expect("run the plugin");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        (output.status, text(output.stdout), text(output.stderr))
    }

    /// The names of the sockets of plugins in kubelet's directory.
    pub fn sockets(&self) -> Vec<String> {
        let entries = fs::read_dir(self.kubelet_dir()).expect("list kubelet's directory");
        let names = entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with("oci-hotplug-")).collect()
    }
}

impl Plugin {
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).expect("read the log")
    }

    /// Waits until the log has something.
    pub async fn logs(&self, part: &str) {
        eventually(&format!("the log says {part:?}"), || self.log().contains(part)).await;
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a process id")
    }

    /// Sends SIGTERM and waits for the end.
    pub async fn terminate(&mut self) -> ExitStatus {
        kill(Pid::from_raw(self.pid()), Signal::SIGTERM).expect("send SIGTERM");
        let mut status = None;
        eventually("the plugin ends", || {
            status = self.child.try_wait().expect("look at the plugin");
            status.is_some()
        })
        .await;
        status.expect("it ended")
    }

    /// What it has in memory now, and the most that it ever had, with its code: KiB
    /// (proc_pid_status(5)).
    pub fn resident(&self) -> (u64, u64) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("its status");
        let of = |key: &str| -> u64 {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix(key))
                .expect("a line");
            line.trim().trim_end_matches(" kB").parse().expect("a number")
        };
        (of("VmRSS:"), of("VmHWM:"))
    }

    /// How long it has used a processor, in clock ticks, and its memory in KiB (proc_pid_stat(5),
    /// proc_pid_smaps(5)); without its code, which in a test is ten times the product's.
    pub fn costs(&self) -> (u64, u64) {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("its stat");
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        let ticks = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid())).expect("its memory");
        let pss = rollup
            .lines()
            .find_map(|line| line.strip_prefix("Pss_Anon:"))
            .expect("a PSS");
        (ticks, pss.trim().trim_end_matches(" kB").parse().unwrap())
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the plugin's log:\n{}", self.log());
        }
    }
}

/// Waits until something holds; panics at the deadline.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < end, "not within {DEADLINE:?}: {what}");
        sleep(STEP).await;
    }
}

/// The response to a GET: status line and body. Blocks: the server is another process.
pub fn get(address: &str, path: &str) -> Option<(String, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.lines().next()?.to_owned(), body.to_owned()))
}

/// The pace of a burst of changes: on a busy machine it becomes several bursts.
pub struct Pace {
    begin: Instant,
    last: Instant,
    gaps: usize,
}

impl Pace {
    pub fn start() -> Self {
        let now = Instant::now();
        Self {
            begin: now,
            last: now,
            gaps: 0,
        }
    }

    /// A change was made.
    pub fn step(&mut self) {
        let now = Instant::now();
        // A burst ends after 150 ms without a change.
        self.gaps += usize::from(now - self.last > std::time::Duration::from_millis(75));
        self.last = now;
    }

    /// There were not more lists before the last one than bursts may have ended before the last: at
    /// gaps, and every 3 seconds.
    #[track_caller]
    pub fn allows(&self, before: usize) {
        let ends = self.gaps + (self.last - self.begin).as_secs() as usize / 3;
        assert!(before <= ends, "{before} lists before the last, not {ends}");
    }
}

/// Whether a path is there.
pub fn exists(path: &Path) -> bool {
    fs::exists(path).expect("look for a file")
}
