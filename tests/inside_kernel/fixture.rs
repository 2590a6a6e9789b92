//! A container without a runtime: namespaces, a root file system with a /dev, and a shell in it
//! that takes commands.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use oci_hotplug::host::container::{Container, ContainerFacts};
use oci_hotplug::host::container_dev::{ContainerDev, NodeOwner};
use oci_hotplug::host::process::start_time;
use oci_hotplug::model::device::{DevKind, DevNum};
use oci_hotplug::model::oci::ProcessUser;

use crate::silent_server::SilentServer;

/// How the container's id 0 is called on the host when it has a user namespace.
pub const MAPPED_ROOT: u32 = 100_000;

/// `/dev/zero`'s number: reading it needs no hardware.
pub const ZERO: DevNum = DevNum {
    kind: DevKind::Char,
    major: 1,
    minor: 5,
};
/// `/dev/full`'s.
pub const FULL: DevNum = DevNum {
    kind: DevKind::Char,
    major: 1,
    minor: 7,
};
/// Mode and owner in the container, none of them a default.
pub const OWNER: NodeOwner = NodeOwner {
    mode: 0o640,
    uid: 12,
    gid: 34,
};

/// What answers the shell's commands: each line runs, then its exit status follows.
const LOOP: &str = r#"while read -r line; do eval "$line" 2>&1; echo "@$?"; done"#;

/// What a container has.
#[derive(Clone, Copy, Default)]
pub struct Kind {
    pub user: bool,
    pub net: bool,
    /// /dev is the host's.
    pub host_dev: bool,
}

/// A running container. Everything that it made goes with it.
pub struct Inside {
    shell: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    _holder: Option<Reaped>,
    pub facts: ContainerFacts,
    pivoted: bool,
    _directory: tempfile::TempDir,
}

/// A child that is killed and waited for at the end.
pub struct Reaped(pub Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

impl Inside {
    /// A container whose init has its final root.
    pub fn start(kind: Kind) -> Self {
        let mut inside = Self::start_unpivoted(kind);
        inside.pivot();
        inside
    }

    /// A container as hooks of stage createRuntime see it: mounted, but not pivoted.
    pub fn start_unpivoted(kind: Kind) -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "these tests need root: run tests/run.sh as root"
        );
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let holder = kind.user.then(user_namespace);
        let mut command = match &holder {
            Some(holder) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--user=/proc/{}/ns/user", holder.0.id()));
                command.args(["--setuid", "0", "--setgid", "0", "unshare"]);
                command
            }
            None => Command::new("unshare"),
        };
        command.args(["--mount", "--propagation", "private"]);
        if kind.net {
            command.arg("--net");
        }
        let dev = if kind.host_dev {
            "--rbind /dev"
        } else {
            "-t tmpfs -o mode=755 dev"
        };
        let setup = format!(
            "set -e; umask 022; cd {root}; mount -t tmpfs -o mode=755 rootfs .; cd {root}; mkdir dev bin mnt opt proc; \
             cp /bin/busybox bin/; bin/busybox --install bin; mount {dev} dev; mount --rbind /proc proc; \
             set +e; echo ready; {LOOP}",
            root = directory.path().display()
        );
        let shell = command
            .args(["sh", "-c", &setup])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut shell = shell.expect("util-linux's unshare and nsenter are installed");
        let stdin = shell.stdin.take().unwrap();
        let mut stdout = BufReader::new(shell.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "the container did not start");
        let pid = shell.id() as i32;
        let facts = ContainerFacts {
            id: "inside".into(),
            pid,
            start_time: start_time(pid).unwrap(),
            bundle: directory.path().into(),
            rootfs: directory.path().into(),
            cgroups_path: None,
            user: ProcessUser::default(),
            read_only_sys: false,
        };
        Self {
            shell,
            stdin,
            stdout,
            _holder: holder,
            facts,
            pivoted: false,
            _directory: directory,
        }
    }

    /// Makes the root file system the process's root, as runtimes do after the createRuntime hooks.
    pub fn pivot(&mut self) {
        let command =
            format!("cd . && pivot_root . mnt && exec chroot . /bin/sh -c 'umount -l /mnt; echo @0; {LOOP}'");
        self.pivoted = true;
        let (output, status) = self.command(&command);
        assert_eq!(status, 0, "pivot_root: {output}");
    }

    /// Runs a command in the container: its output and exit status.
    pub fn command(&mut self, command: &str) -> (String, i32) {
        writeln!(self.stdin, "{command}").unwrap();
        let mut output = String::new();
        loop {
            let mut line = String::new();
            assert!(
                self.stdout.read_line(&mut line).unwrap() > 0,
                "the container's shell ended at: {command}"
            );
            // Output without a newline at its end comes in front of the status.
            if let Some((before, status)) = line.trim_end().rsplit_once('@') {
                output.push_str(before);
                return (output, status.parse().unwrap());
            }
            output.push_str(&line);
        }
    }

    /// Runs a command that must succeed, and returns its output without the last newline.
    pub fn sh(&mut self, command: &str) -> String {
        let (output, status) = self.command(command);
        assert_eq!(status, 0, "{command}: {output}");
        output.trim_end().to_owned()
    }

    /// Whether there is anything at a path of the container; links are not followed.
    pub fn has(&mut self, path: &str) -> bool {
        let path = self.at(path);
        self.command(&format!("test -e {path} || test -L {path}")).1 == 0
    }

    /// `type mode uid gid major:minor`, as the container's own stat tells it.
    pub fn stat(&mut self, path: &str) -> String {
        let path = self.at(path);
        self.sh(&format!("stat -c '%F %a %u %g %t:%T' {path}"))
    }

    /// The first byte that reading the file gives, in octal.
    pub fn first_byte(&mut self, path: &str) -> String {
        let path = self.at(path);
        self.sh(&format!("dd if={path} bs=1 count=1 status=none | od -An -to1"))
            .trim()
            .to_owned()
    }

    /// A container's path as the shell has it now.
    pub fn at(&self, path: &str) -> String {
        if self.pivoted {
            path.to_owned()
        } else {
            format!("{}{path}", self.facts.rootfs.display())
        }
    }

    /// Waits for the end of its init, of which nothing is left then.
    pub fn reap(&mut self) {
        self.shell.wait().unwrap();
    }

    pub fn container(&self) -> Container {
        Container::open(&self.facts).unwrap()
    }

    pub fn dev(&self) -> ContainerDev {
        ContainerDev::open(&self.container(), Default::default()).unwrap()
    }
}

/// A process that keeps a user namespace with 65536 ids mapped.
fn user_namespace() -> Reaped {
    let child = Command::new("unshare")
        .args(["--user", "sleep", "infinity"])
        .spawn()
        .unwrap();
    let holder = Reaped(child);
    let proc = PathBuf::from(format!("/proc/{}", holder.0.id()));
    let own = std::fs::read_link("/proc/self/ns/user").unwrap();
    wait_until("the user namespace is there", || {
        std::fs::read_link(proc.join("ns/user")).is_ok_and(|namespace| namespace != own)
    });
    for map in ["uid_map", "gid_map"] {
        std::fs::write(proc.join(map), format!("0 {MAPPED_ROOT} 65536\n")).unwrap();
    }
    holder
}

/// Waits for a condition, at most half a minute: the machine may be busy.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::yield_now();
    }
}

pub fn path(text: &str) -> &Path {
    Path::new(text)
}

/// Mounts a file system that never answers over `path`, which is made first: a directory, or a
/// file.
pub fn mount_silent(
    inside: &mut Inside,
    dev: &mut ContainerDev,
    path: &str,
    is_directory: bool,
) -> SilentServer {
    let fuse = DevNum {
        kind: DevKind::Char,
        major: 10,
        minor: 229,
    };
    let owner = NodeOwner {
        mode: 0o666,
        uid: 0,
        gid: 0,
    };
    dev.add_node(Path::new("/dev/fuse"), fuse, &owner, false).unwrap();
    let make = if is_directory { "mkdir -p" } else { "touch" };
    let options = SilentServer::options(7, is_directory);
    inside.sh(&format!(
        "{make} {path} && exec 7<>/dev/fuse && mount -i -t fuse -o {options} silent {path}"
    ));
    let pid = rustix::process::Pid::from_raw(inside.facts.pid).unwrap();
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    let device = rustix::process::pidfd_getfd(pidfd, 7, rustix::process::PidfdGetfdFlags::empty());
    inside.sh("exec 7>&-");
    SilentServer::start(device.expect("the server's end of the connection").into())
}
