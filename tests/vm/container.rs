//! A running container of any engine, as a test sees it: a way to run commands inside, and what it gains and loses.

use std::io::Read;

use crate::machine::Machine;
use crate::shell::{DEADLINE, until};
use crate::usb::Plugged;

/// Keeps a container alive, and lets it end at once when it is asked to.
pub const IDLE: &str = "sh -c 'trap exit TERM; while :; do sleep 3600 & wait $!; done'";

/// The same for who wants the shell's words alone.
pub const IDLE_SCRIPT: &str = "trap exit TERM; while :; do sleep 3600 & wait $!; done";

/// A container that is removed when the test is done with it.
pub struct Container<'a> {
    machine: &'a Machine,
    /// A shell command that runs its further words inside.
    exec: String,
    /// A shell command that removes it, also when it runs.
    remove: String,
}

impl<'a> Container<'a> {
    /// A container that is running: `exec` is the engine's command that runs something inside (`podman exec c1`),
    /// `remove` the one that removes it.
    pub fn new(machine: &'a Machine, exec: String, remove: String) -> Self {
        Self {
            machine,
            exec,
            remove,
        }
    }

    /// Runs a shell command inside and returns its output. Panics when it fails.
    pub fn run(&self, command: &str) -> String {
        self.machine.run(&self.inside(command))
    }

    /// Runs a shell command inside that is to fail, and returns what it says.
    pub fn fails(&self, command: &str) -> String {
        let output = self.machine.output(&self.inside(command));
        let words = [output.stdout, output.stderr].concat();
        let words = String::from_utf8_lossy(&words).into_owned();
        assert!(
            !output.status.success(),
            "in the container, {command:?} is to fail, and says {words:?}"
        );
        words
    }

    fn inside(&self, command: &str) -> String {
        format!("{} sh -c {}", self.exec, quoted(command))
    }

    /// Waits until a shell command succeeds inside.
    pub fn wait_until(&self, condition: &str) {
        self.run(&until(condition).replace("/tmp/.until", "/run/.until"));
    }

    /// Waits until there is a device node at `path`, and it can be opened.
    pub fn gains(&self, path: &str) {
        self.wait_until(&format!("test -c {path} || test -b {path}; : < {path}"));
    }

    /// Waits until there is nothing at `path`, not even a link.
    pub fn loses(&self, path: &str) {
        self.wait_until(&format!("! test -e {path} && ! test -L {path}"));
    }

    /// Makes a device node of the container's own, with the numbers of the node at `path`.
    pub fn makes_its_own_node(&self, node: &str, path: &str) {
        self.run(&format!(
            "set -- $(stat -Lc '%t %T' {path}); rm -f {node}; mknod {node} c $((0x$1)) $((0x$2)) && : < {node}"
        ));
    }

    /// The kernel refuses the container the device at `node`, which is there.
    pub fn is_refused(&self, node: &str) {
        let words = self.fails(&format!("test -c {node} || exit 0; : < {node}"));
        assert!(
            words.contains("Operation not permitted"),
            "refused, but so: {words}"
        );
    }

    /// Bytes from the other end of the adapter's line arrive inside at `path`, and the container's arrive there.
    pub fn talks_through(&self, adapter: &Plugged, path: &str) {
        let mut line = adapter.line();
        let program = format!(
            "exec 3<>{path}; stty raw -echo <&3; echo ready >&3; read -t {DEADLINE} words <&3; echo \"heard $words\" >&3"
        );
        let mut inside = self.machine.spawn(&self.inside(&program));
        line.expect("ready");
        line.send("good morning\n");
        line.expect("heard good morning");
        let status = inside.wait().expect("waiting for ssh");
        let mut words = String::new();
        let _ = inside
            .stderr
            .take()
            .map(|mut stderr| stderr.read_to_string(&mut words));
        assert!(status.success(), "talking through {path}: {words}");
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
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

/// `word` for a shell, as it is.
pub fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}
