//! A shell in the machine, through ssh: commands, files and conditions, and a report after a
//! failure.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::machine::poll;

/// The deadline from power-on to a shell, under emulation, on a machine with other work.
const BOOT: Duration = Duration::from_secs(300);

/// The deadline of every wait inside the machine, in seconds. No test waits for it to pass. On a
/// host with four compilers, kubelet has taken more than 60 s to start the container of a pod.
pub const DEADLINE: u32 = 180;

/// The same for waits outside of the machine.
pub const PATIENCE: Duration = Duration::from_secs(DEADLINE as u64);

/// How to reach a machine.
#[derive(Debug, Clone)]
pub struct Shell {
    /// The directory of sockets, overlay and console.
    pub directory: PathBuf,
    /// The directory that image.sh prints; it has the key.
    pub image: PathBuf,
    /// The port of this host that leads to the machine's ssh.
    pub port: u16,
}

impl Shell {
    /// Waits until there is a shell, and keeps the connection for all further commands. `Err` has
    /// the last lines of the console if the kernel panicked, or if there is no shell in time.
    pub fn connect(&self) -> Result<(), String> {
        let master = || {
            let status = self
                .ssh()
                .args([
                    "-o",
                    "ControlMaster=yes",
                    "-o",
                    "ControlPersist=yes",
                    "-o",
                    "ConnectTimeout=10",
                    "-fN",
                    "machine",
                ])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            status.is_ok_and(|status| status.success())
        };
        let panics = || self.console().matches("Kernel panic").count();
        let before = panics();
        let is_up = poll(BOOT, || match master() {
            true => Some(true),
            false => (panics() > before).then_some(false),
        });
        if is_up == Some(true) {
            Ok(())
        } else {
            Err(tail(&self.console(), 40))
        }
    }

    fn ssh(&self) -> Command {
        let mut ssh = Command::new("ssh");
        ssh.arg("-F").arg("none").arg("-i").arg(self.image.join("key"));
        ssh.arg("-o")
            .arg(format!("ControlPath={}", self.directory.join("ssh").display()));
        ssh.args([
            "-o",
            "HostName=127.0.0.1",
            "-o",
            "User=root",
            "-o",
            "BatchMode=yes",
            "-o",
            "LogLevel=ERROR",
        ]);
        ssh.args([
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
            // Makes commands fail when the machine hangs.
            "-o",
            "ServerAliveInterval=30",
            "-o",
            "ServerAliveCountMax=6",
        ]);
        ssh.arg("-p").arg(self.port.to_string());
        ssh
    }

    /// Forwards a port of the machine's loopback to `port` of this host, and returns its number
    /// there. It ends with the machine.
    pub fn forward(&self, port: u16) -> u16 {
        let answer = self.forward_from("127.0.0.1:0", port);
        answer
            .trim()
            .parse()
            .unwrap_or_else(|_| panic!("forwarding a port: {answer}"))
    }

    /// The same for an address from before a reboot.
    pub fn forward_at(&self, address: &str, port: u16) {
        let answer = self.forward_from(address, port);
        assert!(answer.trim().is_empty(), "forwarding {address}: {answer}");
    }

    fn forward_from(&self, address: &str, port: u16) -> String {
        let output = self
            .ssh()
            .args(["-O", "forward", "-R"])
            .arg(format!("{address}:127.0.0.1:{port}"))
            .arg("machine")
            .output()
            .expect("running ssh");
        text(&output)
    }

    /// Forwards a Unix socket of this host to the one at `path` in the machine, and returns its
    /// path. It ends with the machine.
    pub fn forward_socket(&self, path: &str) -> PathBuf {
        let here = self
            .directory
            .join(path.trim_start_matches('/').replace('/', "-"));
        // A socket from before a reboot has no listener.
        if UnixStream::connect(&here).is_err() {
            let _ = fs::remove_file(&here);
            let output = self
                .ssh()
                .args(["-O", "forward", "-L"])
                .arg(format!("{}:{path}", here.display()))
                .arg("machine")
                .output()
                .expect("running ssh");
            assert!(output.status.success(), "forwarding {path}: {}", text(&output));
        }
        here
    }

    /// The command that gives a person a shell in this machine.
    pub fn by_hand(&self) -> String {
        format!(
            "ssh -i {} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -p {} root@127.0.0.1",
            self.image.join("key").display(),
            self.port
        )
    }

    /// Runs a shell command in the machine over a separate connection, and returns its status and
    /// output.
    pub fn output(&self, command: &str) -> Output {
        self.output_given(command, &[])
    }

    /// Runs a shell command in the machine with `input` as its standard input.
    pub fn output_given(&self, command: &str, input: &[u8]) -> Output {
        let mut child = self.spawn(command);
        let mut stdin = child.stdin.take().expect("a pipe");
        // If a command does not read all of its input, only its status counts.
        let _ = stdin.write_all(input);
        drop(stdin);
        child.wait_with_output().expect("running ssh")
    }

    /// Starts a shell command in the machine, with pipes.
    pub fn spawn(&self, command: &str) -> std::process::Child {
        self.ssh()
            .arg("machine")
            .arg(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starting ssh")
    }

    /// Writes a file in the machine, and creates its directories.
    pub fn write(&self, path: &str, content: &str) {
        let command = format!("mkdir -p \"$(dirname {path})\" && cat > {path}");
        expect_success(&command, &self.output_given(&command, content.as_bytes()));
    }

    /// Calls `end`, which ends the machine's run, and returns when there is a shell in the next
    /// run.
    pub fn is_rebooted_by(&self, end: impl FnOnce(), reset: impl Fn()) {
        const BOOT_ID: &str = "cat /proc/sys/kernel/random/boot_id";
        let boot = expect_success(BOOT_ID, &self.output(BOOT_ID));
        end();
        // The old connection must be gone before the new one can create its socket.
        let _ = self.ssh().args(["-O", "exit", "machine"]).output();
        let again = poll(BOOT, || {
            if self.connect().is_err() {
                reset();
                return None;
            }
            let now = self.output(BOOT_ID);
            let changed = now.status.success() && String::from_utf8_lossy(&now.stdout).trim() != boot;
            if !changed {
                let _ = self.ssh().args(["-O", "exit", "machine"]).output();
            }
            changed.then_some(())
        });
        assert!(
            again.is_some(),
            "the machine does not come back: {}",
            tail(&self.console(), 40)
        );
    }

    fn console(&self) -> String {
        read(&self.directory.join("console.log"))
    }

    /// Reports a failure: the journal since the test began and the console into target/vm, and our
    /// programs' messages to standard error. With OCI_HOTPLUG_VM_HOLD, also waits so that a person
    /// can look around.
    pub fn tell_what_happened(&self) {
        let thread = std::thread::current();
        let directory = Path::new("target/vm").join(thread.name().unwrap_or("test").replace("::", "."));
        let words = self.output(
            "oci-hotplug list; journalctl --no-pager -o short-precise --cursor-file=/run/test/cursor; ps axf; \
             podman ps -a; systemctl is-active --quiet docker && docker ps -a",
        );
        let journal = String::from_utf8_lossy(&words.stdout).into_owned();
        let _ = fs::create_dir_all(&directory);
        let _ = fs::write(directory.join("machine.txt"), &journal);
        let _ = fs::write(directory.join("console.txt"), self.console());
        let ours = ["prestart[", "poststop[", "watcher[", "device-plugin["]
            .map(|name| format!(" oci-hotplug-{name}"));
        let lines: Vec<&str> = journal
            .lines()
            .filter(|line| ours.iter().any(|name| line.contains(name)))
            .collect();
        eprintln!(
            "vm: {}\nvm: more in {}",
            lines.join("\nvm: "),
            directory.display()
        );
        if std::env::var_os("OCI_HOTPLUG_VM_HOLD").is_some() {
            eprintln!("vm: held until return is pressed: {}", self.by_hand());
            let _ = std::io::stdin().read_line(&mut String::new());
        }
    }
}

/// A shell command that waits until `condition` succeeds, and fails after [`DEADLINE`] with its
/// last output. Then the variable `words` has the output.
pub fn until(condition: &str) -> String {
    // The output is in a variable: a container may have no writable file system. The time is read
    // without another process: that would take processor time from what the test waits for.
    format!(
        "read up rest < /proc/uptime; end=$((${{up%.*}} + {DEADLINE})); until words=$( {{ {condition}\n}} 2>&1 ); do \
         read up rest < /proc/uptime; \
         if [ ${{up%.*}} -gt $end ]; then echo \"$words\"; echo 'not within {DEADLINE} s'; exit 1; fi; sleep 0.1; done"
    )
}

/// The output of a shell command in the machine, without the last newline. Panics if it failed.
pub fn expect_success(command: &str, output: &Output) -> String {
    assert!(
        output.status.success(),
        "in the machine: {command}\n{}: {}",
        output.status,
        text(output)
    );
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// The content of a file; empty if there is none.
pub fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
