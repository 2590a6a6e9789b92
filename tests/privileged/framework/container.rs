//! One container under plain runc, from create to delete, and what it sees. It is removed when this
//! is dropped, whatever happened to the test.

use std::cell::{Cell, RefCell};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::activity::activity;
use super::eventually::{eventually, wait_within};
use super::kernel;
use super::machine::{Hierarchy, Machine};
use super::shell::{Shell, ShellOutput};
use super::watcher::Watcher;

/// How long runc may take for one command, including our hooks.
const RUNC_DEADLINE: Duration = Duration::from_secs(30);

/// A container that runc has created.
pub struct RuncContainer<'m> {
    machine: &'m Machine,
    pub id: String,
    pub bundle: PathBuf,
    /// The process id of its init, as the host sees it.
    pub pid: i32,
    /// How long `runc create` took.
    pub creation: Duration,
    cgroup: String,
    words: PathBuf,
    shell: RefCell<Option<Shell>>,
    deleted: Cell<bool>,
}

/// runc did not create the container.
#[derive(Debug)]
pub struct Refusal {
    /// runc's output, which includes the hook's.
    pub message: String,
}

/// The output of `stat` for a file in the container.
#[derive(Debug, PartialEq, Eq, Clone)]
pub struct Inside {
    /// In the words of stat: `block special file`, `symbolic link` ...
    pub kind: String,
    /// Permission bits.
    pub mode: u32,
    /// Owner, as the container sees it.
    pub uid: u32,
    /// Group, as the container sees it.
    pub gid: u32,
    pub number: (u32, u32),
}

impl<'m> RuncContainer<'m> {
    /// `runc create`; `command` is what [`runtime`] returns.
    pub(super) fn create(
        machine: &'m Machine,
        id: &str,
        cgroup: &str,
        bundle: &Path,
        words: PathBuf,
        mut command: Command,
    ) -> Result<Self, Refusal> {
        let message = bundle.join("runc-create.log");
        let output = File::create(&message).expect("make a log for runc create");
        command.args(["create", "--bundle"]).arg(bundle).arg(id);
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("share a log"))
            .stderr(output);
        let begin = Instant::now();
        let mut child = command.spawn().expect("start runc (package runc)");
        let status = wait_within(&mut child, RUNC_DEADLINE);
        let creation = begin.elapsed();
        let message = fs::read_to_string(&message).unwrap_or_default();
        let status = status.unwrap_or_else(|| panic!("runc create hung for {RUNC_DEADLINE:?}: {message}"));
        if !status.success() {
            return Err(Refusal { message });
        }
        let mut container = Self {
            machine,
            id: id.to_owned(),
            cgroup: cgroup.to_owned(),
            bundle: bundle.to_owned(),
            pid: 0,
            creation,
            words,
            shell: RefCell::new(None),
            deleted: Cell::new(false),
        };
        let state = container.state().expect("a created container has a state");
        container.pid = i32::try_from(state["pid"].as_i64().expect("a pid")).expect("a pid fits");
        Ok(container)
    }

    /// `runc start`.
    #[track_caller]
    pub fn start(&self) {
        let output = self.runc(&["start"], &[]);
        assert!(output.status.success(), "runc start: {}", text(&output));
        // The first process of a pid namespace ignores signals that it has no handler for.
        super::eventually("the container's process listens", || {
            !self.last_output().is_empty() || !self.is_running()
        });
    }

    /// Creates and starts the container again from its bundle, after it was deleted.
    #[track_caller]
    pub fn start_again(&mut self) {
        let words = self.words.clone();
        let command = runc(self.machine, None);
        let again = Self::create(self.machine, &self.id, &self.cgroup, &self.bundle, words, command);
        let again = again.unwrap_or_else(|refusal| panic!("runc create failed: {refusal:?}"));
        again.start();
        self.pid = again.pid;
        self.deleted.set(false);
        std::mem::forget(again);
    }

    /// `runc state`; `None` if runc does not know the container.
    pub fn state(&self) -> Option<Value> {
        let output = self.runc(&["state"], &[]);
        output
            .status
            .success()
            .then(|| serde_json::from_slice(&output.stdout).expect("a state is JSON"))
    }

    /// Whether its process runs.
    pub fn is_running(&self) -> bool {
        self.state().is_some_and(|state| state["status"] == "running")
    }

    /// `runc kill ID SIGNAL`.
    #[track_caller]
    pub fn kill(&self, signal: &str) {
        let output = self.runc(&["kill"], &[signal]);
        assert!(output.status.success(), "runc kill {signal}: {}", text(&output));
    }

    /// `runc update`, which makes runc write the resources again.
    pub fn update(&self, options: &[&str]) -> Output {
        let mut arguments = vec!["update"];
        arguments.extend(options);
        self.runc(&arguments, &[])
    }

    /// `runc delete --force`; the poststop hook has run when this returns.
    pub fn delete(&self) -> Output {
        self.shell.borrow_mut().take();
        self.deleted.set(true);
        self.runc(&["delete", "--force"], &[])
    }

    /// Runs a command line in a shell that was started once with `runc exec`.
    #[track_caller]
    pub fn inside(&self, command: &str) -> ShellOutput {
        let mut shell = self.shell.borrow_mut();
        shell
            .get_or_insert_with(|| Shell::enter(self.command(&["exec"], &["/bin/sh"])))
            .run(command)
    }

    /// Runs one command with a separate `runc exec`, as the container's root.
    pub fn exec_as_root(&self, command: &str) -> ShellOutput {
        let output = self
            .command(&["exec", "--user", "0:0"], &["/bin/sh", "-c", command])
            .stdin(Stdio::null())
            .output()
            .expect("start runc exec");
        ShellOutput {
            output: text(&output).trim_end().to_owned(),
            status: output.status.code().unwrap_or(-1),
        }
    }

    /// Whether a file exists at `path` in the container, including a dangling link.
    #[track_caller]
    pub fn has(&self, path: &str) -> bool {
        self.inside(&format!("[ -e '{path}' ] || [ -L '{path}' ]")).status == 0
    }

    /// The file at `path` in the container. Links are not followed.
    #[track_caller]
    pub fn stat(&self, path: &str) -> Inside {
        let result = self.inside(&format!("stat -c '%a %u %g %t %T %F' '{path}'"));
        assert_eq!(result.status, 0, "stat {path} inside: {}", result.output);
        let mut words = result.output.splitn(6, ' ');
        let mut number = |radix| {
            let word = words.next().expect("stat prints six words");
            u32::from_str_radix(word, radix).unwrap_or_else(|_| panic!("stat printed {:?}", result.output))
        };
        let (mode, uid, gid, major, minor) = (number(8), number(10), number(10), number(16), number(16));
        let kind = words.next().expect("stat prints six words").to_owned();
        Inside {
            kind,
            mode,
            uid,
            gid,
            number: (major, minor),
        }
    }

    /// The first `length` bytes that can be read from `path` in the container.
    #[track_caller]
    pub fn read(&self, path: &str, length: usize) -> ShellOutput {
        self.inside(&format!("head -c {length} '{path}'"))
    }

    /// Waits until `path` in the container has this content.
    #[track_caller]
    pub fn eventually_reads(&self, path: &str, content: &str) {
        let mut last = None;
        let done = super::eventually::within(super::eventually::DEADLINE, || {
            let result = self.read(path, content.len());
            let done = result.output == content;
            if !done && last.as_ref() != Some(&result) {
                println!("  reading {path} inside {}: {result:?}", self.id);
                last = Some(result);
            }
            done.then_some(())
        });
        assert!(
            done.is_some(),
            "not within {:?}: {path} inside {} reads as {content:?}; the last result is {last:?}; watcher: {:?}; {}",
            super::eventually::DEADLINE,
            self.id,
            self.watcher(),
            self.machine.end_of_log()
        );
    }

    /// Asserts that `path` has this content now.
    #[track_caller]
    pub fn reads(&self, path: &str, content: &str) {
        assert_eq!(
            self.read(path, content.len()).output,
            content,
            "reading {path} inside {}",
            self.id
        );
    }

    /// Waits until nothing is at `path` in the container.
    #[track_caller]
    pub fn eventually_lacks(&self, path: &str) {
        eventually(&format!("{path} inside {} is gone", self.id), || !self.has(path));
    }

    /// Whether the device cgroup denies opening `path` for reading.
    #[track_caller]
    pub fn is_refused(&self, path: &str) -> bool {
        let result = self.inside(&format!("head -c 1 '{path}'"));
        result.status != 0 && result.output.contains("Operation not permitted")
    }

    /// Waits until the device cgroup denies opening `path`.
    #[track_caller]
    pub fn eventually_refuses(&self, path: &str) {
        let mut message = None;
        let refused = super::eventually::within(super::eventually::DEADLINE, || {
            let result = self.inside(&format!("head -c 20 '{path}'"));
            let is_refused = result.status != 0 && result.output.contains("Operation not permitted");
            message = Some(result);
            is_refused.then_some(())
        });
        assert!(
            refused.is_some(),
            "{path} can be opened inside {}: {message:?}",
            self.id
        );
    }

    /// Whether the device cgroup denies opening `path` for writing.
    #[track_caller]
    pub fn is_write_refused(&self, path: &str) -> bool {
        let result = self.inside(&format!(": >>'{path}'"));
        result.status != 0 && result.output.to_lowercase().contains("operation not permitted")
    }

    /// Whether `path` can be opened for writing.
    #[track_caller]
    pub fn can_write(&self, path: &str) -> bool {
        self.inside(&format!(": >>'{path}'")).status == 0
    }

    /// Creates a block (`b`) or character (`c`) node below /nodes, as the container itself could.
    /// Needs CAP_MKNOD.
    #[track_caller]
    pub fn make_node(&self, name: &str, kind: char, number: (u32, u32)) -> String {
        let path = format!("/nodes/{name}");
        let result = self.inside(&format!("mknod '{path}' {kind} {} {}", number.0, number.1));
        assert_eq!(
            result.status, 0,
            "the container makes its own node: {}",
            result.output
        );
        path
    }

    /// What the container's process has written last: `listening` when its handlers are set,
    /// `stopped` after SIGTERM, `usr1` after SIGUSR1.
    pub fn last_output(&self) -> String {
        fs::read_to_string(self.words.join("last"))
            .unwrap_or_default()
            .trim_end()
            .to_owned()
    }

    /// This container's watcher, if one runs.
    pub fn watcher(&self) -> Option<Watcher> {
        Watcher::of(&self.id)
    }

    /// This container's watcher, which must run.
    #[track_caller]
    pub fn expect_watcher(&self) -> Watcher {
        self.watcher()
            .unwrap_or_else(|| panic!("no watcher runs for {}", self.id))
    }

    /// The cgroup that controls its device access.
    pub fn cgroup(&self) -> PathBuf {
        self.machine.cgroup_of(&self.cgroup)
    }

    /// The device rules of the container in the kernel: the rules (v1), or the ids of the programs
    /// (v2).
    pub fn device_rules(&self) -> String {
        match self.machine.hierarchy {
            Hierarchy::V1 => fs::read_to_string(self.cgroup().join("devices.list")).unwrap_or_default(),
            Hierarchy::V2 => format!("{:?}", kernel::device_programs(&self.cgroup())),
        }
    }

    /// A runc command for this container.
    pub fn command(&self, before: &[&str], after: &[&str]) -> Command {
        let mut command = runc(self.machine, None);
        command.args(before).arg(&self.id).args(after);
        command
    }

    fn runc(&self, before: &[&str], after: &[&str]) -> Output {
        self.command(before, after)
            .stdin(Stdio::null())
            .output()
            .expect("start runc")
    }

    fn tell_all(&self) {
        println!(
            "--- container {}: {}",
            self.id,
            fs::read_to_string(self.bundle.join("runc-create.log")).unwrap_or_default()
        );
        println!(
            "    state: {:?}",
            self.state().map(|state| state["status"].clone())
        );
        for watcher in Watcher::all_of(&self.id) {
            println!("    {watcher:?}");
            println!("    {}", activity(watcher.pid));
        }
        println!("    state directory: {:#?}", self.machine.traces());
        println!("    devices: {}", self.device_rules());
        if self.is_running() {
            println!("    /dev: {}", self.exec_as_root("ls -ln /dev").output);
        }
    }
}

impl Drop for RuncContainer<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.tell_all();
        }
        if !self.deleted.get() {
            let output = self.delete();
            if !output.status.success() && !thread::panicking() {
                println!("runc delete {}: {}", self.id, text(&output));
            }
        }
        // A watcher that still runs must not disturb the next test; tests that check this have done
        // so before.
        if let Some(watcher) = super::eventually::within(Duration::ZERO, || self.watcher()) {
            watcher.kill();
        }
    }
}

/// The runc command of this machine, through a shell if the caller's umask is to be another.
pub fn runc(machine: &Machine, umask: Option<u32>) -> Command {
    runtime(Path::new("runc"), machine, umask)
}

/// The same for another runtime with runc's command line.
pub fn runtime(program: &Path, machine: &Machine, umask: Option<u32>) -> Command {
    let mut command = match umask {
        None => Command::new(program),
        Some(umask) => {
            let mut command = Command::new("sh");
            command.args(["-c", "umask \"$0\"; exec \"$@\"", &format!("{umask:04o}")]);
            command.arg(program);
            command
        }
    };
    command.arg("--root").arg(machine.runc_root());
    command
}

/// The complete output of a command.
pub fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
