//! A program that runs in the machine beside a test.

use crate::machine::Machine;

/// A running program of the machine; its output is in a file. Dropping this ends it.
pub struct Background<'a> {
    machine: &'a Machine,
    pid: String,
    /// The file with standard output and standard error.
    pub output: String,
}

impl<'a> Background<'a> {
    /// Starts a program with its arguments, as the shell divides them.
    pub fn start(machine: &'a Machine, program: &str) -> Self {
        let output = format!("/run/test/{}", machine.new_name("output"));
        let pid = machine.run(&format!("setsid {program} > {output} 2>&1 < /dev/null & echo $!"));
        Self { machine, pid, output }
    }

    /// `udevadm monitor` for events of the kernel and of udevd. Returns when it listens to both.
    pub fn udevadm_monitor(machine: &'a Machine, options: &str) -> Self {
        let monitor = Self::start(machine, &format!("udevadm monitor {options}"));
        let output = &monitor.output;
        machine.wait_until(&format!("grep 'KERNEL - ' {output} && grep 'UDEV - ' {output}"));
        monitor
    }
}

impl Drop for Background<'_> {
    fn drop(&mut self) {
        let _ = self.machine.output(&format!("kill {}", self.pid));
    }
}
