//! A running container of any engine: how a test runs commands inside, and which devices it gains
//! and loses.

use std::cell::RefCell;
use std::process::Output;

use crate::machine::Machine;
use crate::running_shell::RunningShell;
use crate::shell::{DEADLINE, expect_success, until};
use crate::usb::Plugged;

/// A script for `sh -c` that keeps a container running, and ends at once on SIGTERM.
pub const IDLE: &str = "trap exit TERM; while :; do sleep 3600 & wait $!; done";

/// The same with a shell in the background that [`Container::with_shell`] names. Its standard
/// streams are pipes that stay open at their other ends.
pub fn idle_with_shell(name: &str) -> String {
    format!(
        "{{ sleep 1000000 | /bin/sh -s {name} 2>&3 3>&- | sleep 1000000; }} 3>&1 | sleep 1000000 & {IDLE}"
    )
}

/// A shell command in the machine that is the shell of [`idle_with_shell`] for who runs it: copies
/// its own standard input to that of the shell, and the shell's outputs to its own. It ends when
/// its input ends, or the shell. It opens the outputs before it copies anything: while the shell
/// runs a command with a redirection, its streams are other files.
fn joined(shell: &str) -> String {
    // The output of the condition is in `words`. The newest: a container may have been restarted.
    let find = until(&format!("pgrep -nxf '/bin/sh -s {shell}'"));
    format!(
        "{find}; streams=/proc/$words/fd; exec 3< $streams/1 4< $streams/2; \
         cat <&0 > $streams/0 & cat <&3 & cat <&4 >&2 & wait -n; kill $(jobs -p) 2> /dev/null"
    )
}

/// A container, which is removed when this is dropped.
pub struct Container<'a> {
    machine: &'a Machine,
    /// The id by which its engine or runtime knows it.
    pub id: String,
    /// The name that `oci-hotplug list` must show.
    pub name: String,
    /// A shell command that runs its further arguments inside, with its own standard input.
    exec: String,
    /// The name of the shell that the container's first process started.
    shell: RefCell<Option<String>>,
    /// The shell that runs the commands, because each exec takes seconds: the one that the first
    /// process started, or another one, which the engine's exec starts.
    inside: RefCell<Option<RunningShell>>,
    /// A shell command that removes the container, also while it runs.
    remove: String,
    /// A shell command that makes the engine write the container's limits again, and with them its
    /// device filter.
    update: Option<String>,
}

/// Writes a line whenever access to `$1` begins or ends: seconds since boot, and yes or no.
const ACCESS_LOG: &str = r#"while test -e /run/logging; do if (: < $1); then now=yes; else now=no; fi;
    if [ "$now" != "$was" ]; then read up rest < /proc/uptime; echo $up $now; was=$now; fi; done"#;

/// The longest time without access in such a log, in seconds.
const LONGEST: &str = "awk '$2 == \"no\" { from = $1 } $2 == \"yes\" && from && $1 - from > most { most = $1 - from } \
    END { print most + 0 }' /run/access";

impl<'a> Container<'a> {
    /// A running container. `exec` is the engine's command that runs something inside (`podman exec
    /// -i c1`), `remove` the command that removes the container.
    pub fn new(machine: &'a Machine, exec: String, remove: String) -> Self {
        Self {
            machine,
            id: String::new(),
            name: String::new(),
            exec,
            shell: RefCell::new(None),
            inside: RefCell::new(None),
            remove,
            update: None,
        }
    }

    /// Sets its id, and the name that `oci-hotplug list` must show.
    pub fn known_as(mut self, id: &str, name: &str) -> Self {
        self.id = id.into();
        self.name = name.into();
        self
    }

    /// Its first process runs [`idle_with_shell`] with this name, which is unique in the machine.
    pub fn with_shell(self, name: &str) -> Self {
        self.shell.replace(Some(name.into()));
        self
    }

    /// Sets the engine's command that changes its limits (`podman update … c1`).
    pub fn updated_by(mut self, command: String) -> Self {
        self.update = Some(command);
        self
    }

    /// Runs a shell command inside and returns its output. Panics if it fails.
    pub fn run(&self, command: &str) -> String {
        expect_success(command, &self.output(command))
    }

    /// Runs a shell command inside that must fail, and returns its output.
    pub fn fails(&self, command: &str) -> String {
        let output = self.output(command);
        let words = [output.stdout, output.stderr].concat();
        let words = String::from_utf8_lossy(&words).into_owned();
        assert!(
            !output.status.success(),
            "in the container, {command:?} is to fail, and says {words:?}"
        );
        words
    }

    /// Runs a shell command inside, in a process of the shell there: with the cgroup, namespaces
    /// and rights of the container.
    fn output(&self, command: &str) -> Output {
        RunningShell::output(&mut self.inside.borrow_mut(), command, || self.shell())
    }

    /// A shell inside.
    fn shell(&self) -> RunningShell {
        // Prefer busybox's shell: its `read` has a timeout.
        let start = match &*self.shell.borrow() {
            Some(shell) => joined(shell),
            None => format!("{} /bin/sh", self.exec),
        };
        RunningShell::new(self.machine.spawn(&start), "/bin/sh")
    }

    /// Runs a shell command in the machine, with `$pid` set to the process id of one of the
    /// container's processes.
    pub fn run_outside(&self, command: &str) -> String {
        let namespace = self.run("stat -Lc %i /proc/self/ns/mnt");
        // One program reads all links: a `readlink` for each process takes 5 s under emulation.
        self.machine.run(&format!(
            "set -e; pid=$(stat -Lc '%i %n' /proc/[0-9]*/ns/mnt 2> /dev/null | \
             sed -n 's|^{namespace} /proc/\\([0-9]*\\)/.*|\\1|p' | tail -n 1); test -n \"$pid\"; {command}"
        ))
    }

    /// Waits until a shell command succeeds inside.
    pub fn wait_until(&self, condition: &str) {
        self.run(&until(condition));
    }

    /// Waits until there is a device node at `path` that can be opened.
    pub fn gains(&self, path: &str) {
        self.wait_until(&format!("{{ test -c {path} || test -b {path}; }} && : < {path}"));
    }

    /// Waits until there is nothing at `path`, not even a dangling link.
    pub fn loses(&self, path: &str) {
        self.wait_until(&format!("! test -e {path} && ! test -L {path}"));
    }

    /// Creates another device node inside, with the numbers of the node at `path`.
    pub fn makes_its_own_node(&self, node: &str, path: &str) {
        self.run(&format!(
            "set -- $(stat -Lc '%t %T' {path}); rm -f {node}; mknod {node} c $((0x$1)) $((0x$2)) && : < {node}"
        ));
    }

    /// Checks that the kernel refuses to open the existing node at `node`.
    pub fn is_refused(&self, node: &str) {
        let words = self.fails(&format!("test -c {node} || exit 0; : < {node}"));
        assert!(
            words.contains("Operation not permitted"),
            "refused, but so: {words}"
        );
    }

    /// Makes the engine change the container's limits.
    pub fn update(&self) {
        self.machine
            .run(self.update.as_ref().expect("an engine's command for it"));
    }

    /// Waits until the engine runs commands inside (again). From now on, its exec runs them.
    pub fn is_reachable(&self) {
        self.shell.take();
        self.inside.take();
        self.machine.wait_until(&format!("{} /bin/sh -c true", self.exec));
    }

    /// Checks that a process that opens `path` again and again is never without access for much
    /// longer than a second, whatever `disturb` does.
    pub fn keeps(&self, path: &str, disturb: impl FnOnce()) {
        let program = quoted(ACCESS_LOG);
        self.run(&format!(
            "touch /run/logging; setsid /bin/sh -c {program} log {path} > /run/access 2> /dev/null < /dev/null & {}",
            until("grep yes /run/access")
        ));
        disturb();
        let now = self.machine.run("cut -d. -f1 /proc/uptime");
        let settled = format!(
            "tail -n 1 /run/access | grep yes && test $(cut -d. -f1 /proc/uptime) -gt $(({now} + 2))"
        );
        let longest = self.run(&format!("{} && rm /run/logging && {LONGEST}", until(&settled)));
        eprintln!("vm: without access for {longest} s");
        // The watcher checks every second; the rest is the time that the emulation takes.
        assert!(
            longest.parse::<f64>().expect("seconds") < 1.5,
            "without access for {longest} s"
        );
    }

    /// Sends bytes through the adapter in both directions: from the other end of its line to `path`
    /// inside, and back.
    pub fn talks_through(&self, adapter: &Plugged, path: &str) {
        let mut line = adapter.line();
        let program = format!(
            "exec 3<>{path}; stty raw -echo <&3; echo ready >&3; read -t {DEADLINE} words <&3; echo \"heard $words\" >&3"
        );
        let mut inside = self.inside.borrow_mut();
        let talks = RunningShell::begin(&mut inside, &program, || self.shell());
        line.expect("ready");
        line.send("good morning\n");
        line.expect("heard good morning");
        let output = RunningShell::end(&mut inside, talks, &program);
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "talking through {path}: {words}");
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        // The shell ends with the container at the latest; the engine takes a moment to notice.
        let mut inside = self.inside.take();
        if let Some(shell) = &mut inside {
            shell.let_go();
        }
        let output = self.machine.output(&self.remove);
        if !std::thread::panicking() {
            assert!(
                output.status.success(),
                "{}: {}",
                self.remove,
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
}

/// `word`, quoted for a shell.
pub fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}
