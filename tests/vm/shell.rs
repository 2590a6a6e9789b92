//! A shell in the machine, by ssh: commands, files, conditions, and after a failure what happened
//! there.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::machine::poll;

/// From power-on to a shell, under emulation, on a machine that does other things as well.
const BOOT: Duration = Duration::from_secs(300);

/// The deadline of whatever a test waits for inside the machine, in seconds. Nothing waits for it
/// to pass.
pub const DEADLINE: u32 = 60;

/// The same for what waits outside of the machine.
pub const PATIENCE: Duration = Duration::from_secs(DEADLINE as u64);

/// How to get into a machine.
#[derive(Debug, Clone)]
pub struct Shell {
    /// Sockets, overlay, console.
    pub directory: PathBuf,
    /// What image.sh built: the key is there.
    pub image: PathBuf,
    /// Where ssh is forwarded from.
    pub port: u16,
}

impl Shell {
    /// Waits until there is a shell, and keeps the connection for all commands to come. The last
    /// lines of the console when the kernel panicked, or when there is none in time.
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
            // A machine that hangs ends its commands.
            "-o",
            "ServerAliveInterval=30",
            "-o",
            "ServerAliveCountMax=6",
        ]);
        ssh.arg("-p").arg(self.port.to_string());
        ssh
    }

    /// Makes a port of the machine's loopback lead to `port` of this host's, and gives its number
    /// there. It ends with the machine.
    pub fn forward(&self, port: u16) -> u16 {
        let answer = self.forward_from("127.0.0.1:0", port);
        answer
            .trim()
            .parse()
            .unwrap_or_else(|_| panic!("forwarding a port: {answer}"))
    }

    /// The same for an address that was given before a reboot.
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

    /// Makes a Unix socket of this host's lead to the one at `path` in the machine, and gives its
    /// path. It ends with the machine.
    pub fn forward_socket(&self, path: &str) -> PathBuf {
        let here = self
            .directory
            .join(path.trim_start_matches('/').replace('/', "-"));
        // One that a machine left behind before it rebooted answers nobody.
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

    /// The command with which a person gets a shell in this machine.
    pub fn by_hand(&self) -> String {
        format!(
            "ssh -i {} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -p {} root@127.0.0.1",
            self.image.join("key").display(),
            self.port
        )
    }

    /// Runs a shell command in the machine by a connection of its own: its status, and what it
    /// wrote.
    pub fn output(&self, command: &str) -> Output {
        self.output_given(command, &[])
    }

    /// Runs a shell command in the machine with `input` as its standard input.
    pub fn output_given(&self, command: &str, input: &[u8]) -> Output {
        let mut child = self.spawn(command);
        let mut stdin = child.stdin.take().expect("a pipe");
        // A command that does not read all of it fails by its status, or not at all.
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

    /// Writes a file in the machine, and the directories above it.
    pub fn write(&self, path: &str, content: &str) {
        let command = format!("mkdir -p \"$(dirname {path})\" && cat > {path}");
        expect_success(&command, &self.output_given(&command, content.as_bytes()));
    }

    /// Does what ends the machine's run, and returns when there is a shell in the next one.
    pub fn is_rebooted_by(&self, end: impl FnOnce(), reset: impl Fn()) {
        const BOOT_ID: &str = "cat /proc/sys/kernel/random/boot_id";
        let boot = expect_success(BOOT_ID, &self.output(BOOT_ID));
        end();
        // The old connection must be gone before the new one has a place for its socket.
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

    /// After a failure: the journal since the test began and the console in target/vm, and our
    /// programs' words here. With OCI_HOTPLUG_VM_HOLD set, also a pause in which a person can look
    /// around.
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
/// last words.
pub fn until(condition: &str) -> String {
    // No file is needed for the words: a container may have none that it can write to.
    format!(
        "end=$(($(date +%s) + {DEADLINE})); until words=$( ({condition}) 2>&1 ); do \
         if [ $(date +%s) -gt $end ]; then echo \"$words\"; echo 'not within {DEADLINE} s'; exit 1; fi; sleep 0.1; done"
    )
}

/// What a shell command in the machine wrote, without the last newline. Panics when it failed.
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

/// What is in a file; nothing when there is none.
pub fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
