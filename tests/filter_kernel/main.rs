//! The device filter on the real kernel: cgroups of our own, engine programs of our own, and a
//! process that opens device nodes in them. This is not a real container, just a process in the
//! cgroup.
//!
//! Needs root. Hierarchies are mounted in a private mount namespace, so that it runs alike on v1,
//! v2 and hybrid hosts.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use oci_hotplug::host::container::{CgroupPaths, ContainerFacts};
use oci_hotplug::host::filter::{self, CgroupFilter, FilterError, FilterMemory};
use oci_hotplug::host::process::start_time;
use oci_hotplug::host::state::cgroup_owners::Owner;
use oci_hotplug::model::cgroup::filter_program::Insn;
use oci_hotplug::model::cgroup::grants::GrantSet;
use oci_hotplug::model::device::{DevKind, DevNum};
use oci_hotplug::model::oci::ProcessUser;

mod engine;
#[path = "../support/engine_program.rs"]
mod engine_program;
#[path = "../support/owners.rs"]
mod owners;
mod v1;
mod v2;
mod v2_cgroups;

const NULL: DevNum = DevNum {
    kind: DevKind::Char,
    major: 1,
    minor: 3,
};
const ZERO: DevNum = DevNum {
    kind: DevKind::Char,
    major: 1,
    minor: 5,
};
const FULL: DevNum = DevNum {
    kind: DevKind::Char,
    major: 1,
    minor: 7,
};

/// Held by the test that runs: the tests count this process's descriptors and the kernel's
/// programs, and their cgroups have the same names.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A directory with the hierarchies and nodes of one test, and cgroups that are removed with it.
/// While it exists, no other test has one.
struct Lab {
    cgroups: Vec<PathBuf>,
    mounts: Vec<PathBuf>,
    dir: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Lab {
    /// Mounts the v1 devices hierarchy (`"cgroup"`) or cgroup v2 (`"cgroup2"`) and makes nodes.
    fn new(hierarchy: &str) -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "this test makes cgroups and device nodes: run it as root"
        );
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        unshare(CloneFlags::CLONE_NEWNS).expect("unsharing the mount namespace: needs CAP_SYS_ADMIN");
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut lab = Self {
            cgroups: Vec::new(),
            mounts: Vec::new(),
            dir,
            _turn: turn,
        };
        let nodes = lab.dir.path().join("dev");
        lab.mount("tmpfs", &nodes, "mode=755");
        lab.mount(
            hierarchy,
            &lab.hierarchy(),
            if hierarchy == "cgroup" { "devices" } else { "" },
        );
        for (name, num) in [("null", NULL), ("zero", ZERO), ("full", FULL)] {
            lab.node(name, num);
        }
        lab
    }

    fn mount(&mut self, kind: &str, target: &Path, options: &str) {
        fs::create_dir(target).unwrap();
        mount(Some(kind), target, Some(kind), MsFlags::empty(), Some(options))
            .unwrap_or_else(|error| panic!("mounting {kind} ({options}), which this test needs: {error}"));
        self.mounts.push(target.to_owned());
    }

    fn hierarchy(&self) -> PathBuf {
        self.dir.path().join("cgroup")
    }

    fn node(&self, name: &str, num: DevNum) -> PathBuf {
        let path = self.dir.path().join("dev").join(name);
        let kind = if num.kind == DevKind::Char {
            SFlag::S_IFCHR
        } else {
            SFlag::S_IFBLK
        };
        let number = makedev(u64::from(num.major), u64::from(num.minor));
        mknod(&path, kind, Mode::from_bits_truncate(0o666), number).unwrap();
        path
    }

    /// Makes a cgroup; its parents must have been made before.
    fn cgroup(&mut self, name: &str) -> PathBuf {
        let path = self
            .hierarchy()
            .join(format!("oci-hotplug-test-{}{name}", std::process::id()));
        fs::create_dir(&path).unwrap_or_else(|error| panic!("making cgroup {}: {error}", path.display()));
        self.cgroups.push(path.clone());
        path
    }

    /// A process in this cgroup that opens nodes on request.
    fn prober(&self, cgroup: &Path) -> Prober {
        Prober::start(cgroup, &self.dir.path().join("dev"))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for cgroup in self.cgroups.iter().rev().filter(|cgroup| cgroup.exists()) {
            // A process that has just been reaped may count for a moment more.
            let removed = within_a_moment(|| fs::remove_dir(cgroup).is_ok());
            if !removed {
                eprintln!("cgroup {} cannot be removed", cgroup.display());
            }
        }
        for mounted in self.mounts.iter().rev() {
            let _ = umount2(mounted, MntFlags::MNT_DETACH);
        }
    }
}

fn within_a_moment(condition: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

/// A shell in a cgroup.
struct Prober {
    shell: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    nodes: PathBuf,
}

impl Prober {
    const SCRIPT: &str = r#"
        LC_ALL=C
        export LC_ALL
        while read -r mode path; do
            case $mode in
                r) answer=$( { : <"$path"; } 2>&1 ) ;;
                w) answer=$( { : >"$path"; } 2>&1 ) ;;
                rw) answer=$( { : <>"$path"; } 2>&1 ) ;;
                loop) count=0; answer=
                    while [ -z "$answer" ] && [ ! -e "$path.stop" ]; do
                        answer=$( { : <>"$path"; } 2>&1 )
                        count=$((count + 1))
                    done
                    echo "count $count" ;;
            esac
            echo "answer $answer"
        done"#;

    fn start(cgroup: &Path, nodes: &Path) -> Self {
        let mut shell = Command::new("sh")
            .args(["-c", Self::SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let requests = shell.stdin.take().unwrap();
        let answers = BufReader::new(shell.stdout.take().unwrap());
        let prober = Self {
            shell,
            requests,
            answers,
            nodes: nodes.to_owned(),
        };
        fs::write(cgroup.join("cgroup.procs"), prober.shell.id().to_string()).unwrap();
        prober
    }

    fn ask(&mut self, mode: &str, name: &str) {
        writeln!(self.requests, "{mode} {}", self.nodes.join(name).display()).unwrap();
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Whether the node opens for "r", "w" or "rw"; any failure but EPERM fails the test.
    fn opens(&mut self, mode: &str, name: &str) -> bool {
        self.ask(mode, name);
        let answer = self.answer();
        match answer.strip_prefix("answer").map(str::trim) {
            Some("") => true,
            Some(message) if message.contains("Operation not permitted") => false,
            _ => panic!("opening {name} for {mode}: {answer}"),
        }
    }

    /// Opens the node again and again until [`Prober::stop_opening`], or until that is refused.
    fn keep_opening(&mut self, name: &str) {
        let _ = fs::remove_file(self.nodes.join(format!("{name}.stop")));
        self.ask("loop", name);
    }

    /// How often the node was opened; fails the test if it was ever refused.
    fn stop_opening(&mut self, name: &str) -> u32 {
        fs::write(self.nodes.join(format!("{name}.stop")), "").unwrap();
        let count = self.answer();
        assert_eq!(self.answer().trim(), "answer", "{name} was refused meanwhile");
        count.strip_prefix("count ").unwrap().parse().unwrap()
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

fn grants(list: &[(DevNum, &str)]) -> GrantSet {
    list.iter()
        .map(|(num, access)| (*num, access.parse().unwrap()))
        .collect()
}

fn open(cgroups: &CgroupPaths) -> CgroupFilter {
    filter::open(cgroups, FilterMemory::default()).unwrap()
}

#[track_caller]
fn is_owned<T>(result: Result<T, FilterError>, id: &str) {
    match result {
        Err(FilterError::Owned { owner, .. }) => assert_eq!(owner.container, id),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it has no owner"),
    }
}
