//! The device filter on the real kernel: cgroups of our own, engine programs of our own, and a
//! process that opens device nodes in them. This is not a real container, just a process in the
//! cgroup.
//!
//! Needs root. Hierarchies are mounted in a private mount namespace, so that it runs alike on v1,
//! v2 and hybrid hosts.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use oci_hotplug::host::container::{CgroupPaths, ContainerFacts};
use oci_hotplug::host::filter::{self, CgroupFilter, DeviceFilter, FilterError, FilterMemory};
use oci_hotplug::host::process::start_time;
use oci_hotplug::host::state::cgroup_owners::Owner;
use oci_hotplug::model::cgroup::filter_program::{Insn, encode};
use oci_hotplug::model::cgroup::grants::{Change, GrantSet};
use oci_hotplug::model::device::{DevKind, DevNum};
use oci_hotplug::model::oci::ProcessUser;
use oci_hotplug::sys::bpf::{self, BPF_F_ALLOW_MULTI};

#[path = "support/engine_program.rs"]
mod engine_program;
use engine_program::{EngineRule, engine_program};
#[path = "support/owners.rs"]
mod owners;
use owners::Owners;

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

// cgroup v2

/// An engine that manages the device program of one cgroup, as runc does.
struct Engine {
    dir: OwnedFd,
}

impl Engine {
    fn of(cgroup: &Path) -> Self {
        Self {
            dir: fs::File::open(cgroup).unwrap().into(),
        }
    }

    fn load(program: &[Insn]) -> OwnedFd {
        bpf::prog_load(&encode(program), c"Apache", "engine").unwrap()
    }

    /// What runc allows every container, cut down: the null device, and making any node.
    fn defaults() -> Vec<Insn> {
        let any = EngineRule {
            kind: None,
            major: None,
            minor: None,
            access: 1,
            allow: true,
        };
        engine_program(&[any, EngineRule::char(1, 3, 7)])
    }

    fn attach(&self, program: &[Insn]) {
        bpf::prog_attach(self.dir.as_fd(), Self::load(program).as_fd(), BPF_F_ALLOW_MULTI).unwrap();
    }

    /// Replaces the program that is there by a new one, as `runc update` does.
    fn rewrite(&self, program: &[Insn]) {
        let ours = Self::load(program);
        let replaced = within_a_moment(|| {
            let id = self.ids()[0];
            bpf::prog_get_fd_by_id(id)
                .and_then(|old| bpf::prog_replace(self.dir.as_fd(), ours.as_fd(), old.as_fd()))
                .is_ok()
        });
        assert!(replaced, "the engine's program never got in");
    }

    fn ids(&self) -> Vec<u32> {
        bpf::prog_query(self.dir.as_fd()).unwrap().ids
    }

    fn infos(&self) -> Vec<bpf::ProgInfo> {
        let info = |id: &u32| bpf::prog_info(bpf::prog_get_fd_by_id(*id).unwrap().as_fd()).unwrap();
        self.ids().iter().map(info).collect()
    }

    /// The one map that the one program here looks into.
    fn map_id(&self) -> u32 {
        let infos = self.infos();
        assert_eq!(
            (infos.len(), infos[0].name.as_str()),
            (1, "oci_hotplug"),
            "{infos:?}"
        );
        assert_eq!(infos[0].map_ids.len(), 1);
        infos[0].map_ids[0]
    }
}

fn own(v2: &[&Path]) -> CgroupPaths {
    CgroupPaths {
        v1_devices: None,
        v2: v2.iter().map(|path| path.to_path_buf()).collect(),
    }
}

/// A lab with one cgroup, an engine with its program on it, and a process in it.
fn v2_lab() -> (Lab, PathBuf, Engine, Prober) {
    let mut lab = Lab::new("cgroup2");
    let cgroup = lab.cgroup("");
    let engine = Engine::of(&cgroup);
    engine.attach(&Engine::defaults());
    let prober = lab.prober(&cgroup);
    (lab, cgroup, engine, prober)
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn v2_a_device_opens_as_granted_and_no_longer_after_the_revoke() {
    let (_lab, cgroup, _engine, mut prober) = v2_lab();
    assert!(
        !prober.opens("r", "zero"),
        "refused before: the test would prove nothing"
    );
    let mut filter = open(&own(&[&cgroup]));
    assert_eq!(
        filter.ensure(&grants(&[(ZERO, "r"), (FULL, "rw")])).unwrap(),
        Change::Made
    );
    assert!(prober.opens("r", "zero"));
    assert!(!prober.opens("w", "zero"));
    assert!(!prober.opens("rw", "zero"));
    assert!(prober.opens("rw", "full"));
    assert_eq!(
        filter.ensure(&grants(&[(FULL, "rw"), (ZERO, "r")])).unwrap(),
        Change::None
    );
    assert_eq!(filter.ensure(&grants(&[(ZERO, "w")])).unwrap(), Change::Made);
    assert!(prober.opens("w", "zero"), "the grant was changed");
    assert!(!prober.opens("r", "zero"));
    assert!(!prober.opens("r", "full"), "revoked");
    assert_eq!(filter.ensure(&GrantSet::new()).unwrap(), Change::Made);
    assert!(!prober.opens("w", "zero"), "revoked");
    assert!(prober.opens("rw", "null"), "the engine's own");
    assert_eq!(filter.ensure(&GrantSet::new()).unwrap(), Change::None);
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn v2_a_block_device_opens_as_granted() {
    let (lab, cgroup, _engine, mut prober) = v2_lab();
    let name = Command::new("losetup")
        .arg("--find")
        .output()
        .expect("losetup (package mount)")
        .stdout;
    let name = String::from_utf8(name).unwrap();
    let minor = name
        .trim()
        .strip_prefix("/dev/loop")
        .expect("a free loop device")
        .parse()
        .unwrap();
    let disk = DevNum {
        kind: DevKind::Block,
        major: 7,
        minor,
    };
    lab.node("disk", disk);
    lab.node(
        "twin",
        DevNum {
            kind: DevKind::Char,
            ..disk
        },
    );
    let mut filter = open(&own(&[&cgroup]));
    assert!(!prober.opens("r", "disk"));
    assert_eq!(filter.ensure(&grants(&[(disk, "r")])).unwrap(), Change::Made);
    assert!(prober.opens("r", "disk"));
    assert!(!prober.opens("w", "disk"));
    assert!(
        !prober.opens("r", "twin"),
        "the character device of the same number"
    );
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn v2_the_engines_device_always_opens_and_a_rewritten_program_gets_the_prologue_again() {
    let (lab, cgroup, engine, mut prober) = v2_lab();
    let mut other = lab.prober(&cgroup);
    let mut filter = open(&own(&[&cgroup]));
    let wanted = grants(&[(ZERO, "rw")]);
    assert_eq!(filter.ensure(&wanted).unwrap(), Change::Made);
    // On a busy machine the other one is let in only now and then: until it was often enough to
    // prove something.
    let (begin, mut opened) = (Instant::now(), 0);
    while opened <= 100 {
        other.keep_opening("null");
        for _ in 0..100 {
            engine.rewrite(&Engine::defaults());
            assert!(
                !prober.opens("r", "zero"),
                "the engine's rewrite took the grant away"
            );
            assert_eq!(filter.ensure(&wanted).unwrap(), Change::Made);
            assert!(prober.opens("r", "zero"));
            assert_eq!(filter.ensure(&wanted).unwrap(), Change::None);
        }
        opened += other.stop_opening("null");
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "opened only {opened} times: no proof"
        );
    }
    assert_eq!(engine.ids().len(), 1);
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn v2_grants_are_set_although_an_engine_rewrites_its_program_meanwhile() {
    let (_lab, cgroup, engine, mut prober) = v2_lab();
    let mut filter = open(&own(&[&cgroup]));
    let wanted = grants(&[(ZERO, "rw")]);
    std::thread::scope(|scope| {
        let rewriting = scope.spawn(|| (0..300).for_each(|_| engine.rewrite(&Engine::defaults())));
        while !rewriting.is_finished() {
            match filter.ensure(&wanted) {
                Ok(_) | Err(FilterError::KeepsChanging { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    });
    let _ = filter.ensure(&wanted).unwrap();
    assert!(prober.opens("rw", "zero"));
    assert!(prober.opens("rw", "null"));
    assert_eq!(engine.ids().len(), 1, "none was added, none was lost");
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn v2_a_device_opens_only_when_leaf_and_parent_both_have_the_prologue() {
    let mut lab = Lab::new("cgroup2");
    let (parent, leaf) = (lab.cgroup(""), lab.cgroup("/container"));
    let (outer, inner) = (Engine::of(&parent), Engine::of(&leaf));
    outer.attach(&Engine::defaults());
    inner.attach(&Engine::defaults());
    // Two on one cgroup must both allow, too.
    inner.attach(&Engine::defaults());
    let mut prober = lab.prober(&leaf);
    let wanted = grants(&[(ZERO, "rw")]);
    let refused = open(&own(&[&leaf])).ensure(&wanted).unwrap_err().to_string();
    let expected = format!(
        "cgroup {}, which the container is in, denies c 1:5 (access rw) by its device program {} (engine): \
         allow the device there (in a systemd unit: DeviceAllow=)",
        parent.display(),
        outer.ids()[0]
    );
    assert_eq!(refused, expected);
    assert!(!prober.opens("r", "zero"), "the parent's program denies");
    let mut both = open(&own(&[&leaf, &parent]));
    assert_eq!(both.ensure(&wanted).unwrap(), Change::Made);
    assert!(prober.opens("rw", "zero"));
    assert!(prober.opens("rw", "null"));
    assert_eq!((outer.ids().len(), inner.ids().len()), (1, 2));
    outer.rewrite(&Engine::defaults());
    assert!(!prober.opens("r", "zero"));
    assert_eq!(both.ensure(&wanted).unwrap(), Change::Made);
    assert!(prober.opens("rw", "zero"));
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn v2_a_watcher_that_starts_again_finds_the_map_and_its_grants() {
    let (_lab, cgroup, engine, mut prober) = v2_lab();
    let wanted = grants(&[(ZERO, "r"), (FULL, "rw")]);
    let mut filter = open(&own(&[&cgroup]));
    assert_eq!(filter.ensure(&wanted).unwrap(), Change::Made);
    let (memory, map) = (filter.memory(), engine.map_id());
    assert_eq!(memory.held, wanted);
    drop(filter);
    assert!(prober.opens("r", "zero"), "grants outlive their watcher");
    assert!(prober.opens("rw", "null"), "and so does what the engine allows");
    let mut filter = filter::open(&own(&[&cgroup]), memory.clone()).unwrap();
    assert_eq!(filter.memory(), memory);
    assert_eq!(filter.ensure(&wanted).unwrap(), Change::None);
    assert_eq!(engine.map_id(), map);
    assert_eq!(filter.ensure(&GrantSet::new()).unwrap(), Change::Made);
    assert!(!prober.opens("r", "zero"), "its successor can revoke");
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn v2_a_prologue_with_the_map_of_a_dead_watcher_is_replaced() {
    let mut lab = Lab::new("cgroup2");
    let (parent, leaf) = (lab.cgroup(""), lab.cgroup("/container"));
    let (outer, inner) = (Engine::of(&parent), Engine::of(&leaf));
    outer.attach(&Engine::defaults());
    inner.attach(&Engine::defaults());
    let mut prober = lab.prober(&leaf);
    let old = grants(&[(ZERO, "rw")]);
    // Given in the leaf, and refused by the parent's program as yet.
    let refused = open(&own(&[&leaf])).ensure(&old).unwrap_err();
    assert!(matches!(refused, FilterError::Refused { .. }), "{refused}");
    assert_eq!(open(&own(&[&parent])).ensure(&old).unwrap(), Change::Made);
    assert_ne!(outer.map_id(), inner.map_id());
    let mut filter = open(&own(&[&leaf, &parent]));
    assert_eq!(filter.ensure(&GrantSet::new()).unwrap(), Change::Made);
    assert_eq!(
        outer.map_id(),
        inner.map_id(),
        "even without grants: the old map must grant nothing"
    );
    assert!(!prober.opens("r", "zero"));
    assert_eq!(filter.ensure(&grants(&[(FULL, "r")])).unwrap(), Change::Made);
    assert!(prober.opens("r", "full"));
    let original =
        oci_hotplug::model::cgroup::filter_program::decode(outer.infos()[0].xlated.as_ref().unwrap());
    let original = original.unwrap();
    let original = oci_hotplug::model::cgroup::filter_program::strip(&original).unwrap();
    assert_eq!(
        original,
        Engine::defaults(),
        "one prologue only, and the engine's program behind it"
    );
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn v2_a_thousand_cycles_leave_no_program_map_or_descriptor() {
    let (_lab, cgroup, engine, mut prober) = v2_lab();
    let mut filter = open(&own(&[&cgroup]));
    assert_eq!(filter.ensure(&grants(&[(FULL, "r")])).unwrap(), Change::Made);
    let map = engine.map_id();
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = descriptors();
    for round in 0..1000 {
        let wanted = match round % 3 {
            0 => grants(&[(ZERO, "rw")]),
            1 => GrantSet::new(),
            _ => grants(&[(ZERO, "r"), (FULL, "rw")]),
        };
        assert_eq!(filter.ensure(&wanted).unwrap(), Change::Made);
        if round % 10 == 0 {
            engine.rewrite(&Engine::defaults());
        }
    }
    assert_eq!(
        filter.ensure(&grants(&[(ZERO, "rw")])).unwrap(),
        Change::None,
        "as the last round left it"
    );
    assert_eq!(descriptors(), before);
    assert_eq!(
        engine.map_id(),
        map,
        "it is the same map, and there is one program"
    );
    let over_our_map = || {
        let info = |id| bpf::prog_get_fd_by_id(id).and_then(|fd| bpf::prog_info(fd.as_fd()));
        let last = engine.ids()[0];
        (1..=last)
            .filter_map(|id| info(id).ok())
            .filter(|info| info.map_ids.contains(&map))
            .count()
    };
    assert!(
        within_a_moment(|| over_our_map() == 1),
        "{} programs look into our map",
        over_our_map()
    );
    assert!(prober.opens("rw", "zero"));
    assert!(!prober.opens("r", "full"));
    drop(filter);
    engine.rewrite(&Engine::defaults());
    let gone = || bpf::HashMap::open_by_id(map).is_err();
    assert!(
        within_a_moment(gone),
        "the map goes with the last program and watcher"
    );
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn v2_a_program_that_calls_a_helper_is_reported_and_the_parent_is_changed_anyway() {
    let mut lab = Lab::new("cgroup2");
    let (parent, leaf) = (lab.cgroup(""), lab.cgroup("/container"));
    let (outer, inner) = (Engine::of(&parent), Engine::of(&leaf));
    let insn = |code, dst, imm| Insn {
        code,
        dst,
        src: 0,
        off: 0,
        imm,
    };
    // call bpf_get_prandom_u32; r0 = 1; exit
    inner.attach(&[insn(0x85, 0, 7), insn(0xb7, 0, 1), insn(0x95, 0, 0)]);
    outer.attach(&Engine::defaults());
    let mut filter = open(&own(&[&leaf, &parent]));
    assert_eq!(
        filter.ensure(&GrantSet::new()).unwrap(),
        Change::None,
        "nothing to grant: no error yet"
    );
    let error = filter.ensure(&grants(&[(ZERO, "rw")])).unwrap_err();
    let expected = format!(
        "cannot extend device program {} (engine) of cgroup {} by our grants: \
         instruction 0 calls a kernel helper (let the program that attached it grant the devices itself)",
        inner.ids()[0],
        leaf.display()
    );
    assert_eq!(error.to_string(), expected);
    assert_eq!(outer.infos()[0].name, "oci_hotplug");
    assert!(
        lab.prober(&leaf).opens("rw", "zero"),
        "this helper's program allows everything"
    );
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn v2_without_a_program_or_without_grants_nothing_is_changed() {
    let mut lab = Lab::new("cgroup2");
    let cgroup = lab.cgroup("");
    let engine = Engine::of(&cgroup);
    let wanted = grants(&[(ZERO, "rw")]);
    let mut filter = open(&own(&[&cgroup]));
    assert_eq!(
        filter.ensure(&wanted).unwrap(),
        Change::None,
        "a privileged container"
    );
    assert!(engine.ids().is_empty());
    assert!(lab.prober(&cgroup).opens("rw", "zero"));
    engine.attach(&Engine::defaults());
    let ids = engine.ids();
    assert_eq!(filter.ensure(&GrantSet::new()).unwrap(), Change::None);
    assert_eq!(engine.ids(), ids, "a container without devices keeps its program");
    assert_eq!(filter.ensure(&wanted).unwrap(), Change::Made);
    assert!(lab.prober(&cgroup).opens("rw", "zero"));
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn v2_a_program_that_is_attached_alone_gets_the_prologue() {
    let mut lab = Lab::new("cgroup2");
    let cgroup = lab.cgroup("");
    let engine = Engine::of(&cgroup);
    let program = Engine::load(&Engine::defaults());
    bpf::prog_attach(engine.dir.as_fd(), program.as_fd(), 0).unwrap();
    let mut prober = lab.prober(&cgroup);
    let mut filter = open(&own(&[&cgroup]));
    assert_eq!(filter.ensure(&grants(&[(ZERO, "r")])).unwrap(), Change::Made);
    assert!(prober.opens("r", "zero"));
    assert!(prober.opens("rw", "null"));
    assert!(!prober.opens("w", "zero"));
    assert_eq!(bpf::prog_query(engine.dir.as_fd()).unwrap().flags, 0);
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn v2_grants_beyond_the_limit_are_an_error_and_the_others_are_granted() {
    let (_lab, cgroup, _engine, mut prober) = v2_lab();
    let mut wanted: GrantSet = (0..4096)
        .map(|minor| {
            (
                DevNum {
                    kind: DevKind::Char,
                    major: 240,
                    minor,
                },
                "r".parse().unwrap(),
            )
        })
        .collect();
    wanted.insert(ZERO, "rw".parse().unwrap());
    let mut filter = open(&own(&[&cgroup]));
    let error = filter.ensure(&wanted).unwrap_err();
    assert!(matches!(error, FilterError::Full { limit: 4096, .. }), "{error}");
    assert!(prober.opens("rw", "zero"));
    let num = |minor| DevNum {
        kind: DevKind::Char,
        major: 240,
        minor,
    };
    wanted.remove(&num(4095));
    assert_eq!(
        filter.ensure(&wanted).unwrap(),
        Change::None,
        "the others are all in"
    );
    wanted.remove(&num(0));
    wanted.insert(num(4096), "r".parse().unwrap());
    assert_eq!(
        filter.ensure(&wanted).unwrap(),
        Change::Made,
        "one that goes makes room for one that comes"
    );
    assert!(prober.opens("rw", "zero"));
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn v2_a_removed_cgroup_is_reported_as_gone() {
    let (_lab, cgroup, _engine, prober) = v2_lab();
    let mut filter = open(&own(&[&cgroup]));
    drop(prober);
    assert!(within_a_moment(|| fs::remove_dir(&cgroup).is_ok()));
    for wanted in [grants(&[(ZERO, "r")]), GrantSet::new()] {
        let error = filter.ensure(&wanted).unwrap_err();
        assert!(
            matches!(&error, FilterError::Gone { cgroup: gone } if *gone == cgroup),
            "{error}"
        );
    }
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn v2_a_directory_outside_a_cgroup_hierarchy_is_refused() {
    let lab = Lab::new("cgroup2");
    let error = filter::open(&own(&[lab.dir.path()]), FilterMemory::default()).unwrap_err();
    assert!(matches!(error, FilterError::Query { .. }), "{error}");
}

// cgroup v1

/// Case security 7. As with `podman run --cgroups=disabled`: nothing is restricted there, until an
/// engine does.
#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn v2_a_cgroup_has_an_owner_once_it_restricts_something() {
    let mut lab = Lab::new("cgroup2");
    let (cgroup, mut owners) = (lab.cgroup(""), Owners::new());
    let [mut first, mut second] = ["first", "second"].map(|id| {
        let owner = owners.container(id);
        open(&own(&[&cgroup])).owned_by(owner).unwrap()
    });
    let (zero, full) = (grants(&[(ZERO, "r")]), grants(&[(FULL, "r")]));
    assert_eq!(first.ensure(&zero).unwrap(), Change::None);
    assert_eq!(second.ensure(&full).unwrap(), Change::None);

    Engine::of(&cgroup).attach(&Engine::defaults());
    let mut prober = lab.prober(&cgroup);
    assert_eq!(first.ensure(&zero).unwrap(), Change::Made);
    for _ in 0..3 {
        is_owned(second.ensure(&full), "first");
        assert_eq!(first.ensure(&zero).unwrap(), Change::None);
        assert!(prober.opens("r", "zero") && !prober.opens("r", "full"));
    }
    is_owned(
        open(&own(&[&cgroup])).owned_by(owners.container("third")),
        "first",
    );

    // The first ends without having taken its grants back.
    owners.end(0);
    assert_eq!(second.ensure(&full).unwrap(), Change::Made);
    assert!(prober.opens("r", "full") && !prober.opens("r", "zero"));
    filter::revoke(&first.memory(), &owners.container("first")).unwrap();
    assert!(prober.opens("r", "full"), "what the next owner has is left alone");
}

/// Case security 7. A container inside a container, and two containers of one pod.
#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn v2_only_the_same_cgroup_conflicts_and_not_one_above_or_beside_it() {
    let mut lab = Lab::new("cgroup2");
    let pod = lab.cgroup("");
    let [outer, sibling] = ["/outer", "/sibling"].map(|name| lab.cgroup(name));
    let inner = lab.cgroup("/outer/inner");
    let mut owners = Owners::new();
    let mut filters = Vec::new();
    for (index, cgroup) in [&pod, &outer, &sibling, &inner].into_iter().enumerate() {
        Engine::of(cgroup).attach(&Engine::defaults());
        if index > 0 {
            let owner = owners.container(&format!("c{index}"));
            filters.push(open(&own(&[cgroup])).owned_by(owner).unwrap());
        }
    }
    // crun's leaf and scope: one of them is enough for a conflict, and then neither is taken.
    is_owned(open(&own(&[&inner, &pod])).owned_by(owners.container("d")), "c3");
    let whole = open(&own(&[&pod])).owned_by(owners.container("e"));
    assert!(whole.is_ok(), "{whole:?}");
    is_owned(open(&own(&[&outer])).owned_by(owners.container("f")), "c1");
}

fn write(cgroup: &Path, file: &str, rule: &str) {
    fs::write(cgroup.join(file), rule)
        .unwrap_or_else(|error| panic!("writing {rule:?} to {file} of {}: {error}", cgroup.display()));
}

fn rules(cgroup: &Path) -> String {
    fs::read_to_string(cgroup.join("devices.list")).unwrap()
}

fn own_v1(cgroup: &Path) -> CgroupPaths {
    CgroupPaths {
        v1_devices: Some(cgroup.to_owned()),
        v2: Vec::new(),
    }
}

/// A lab with one cgroup that allows what an engine allows, and a process in it.
fn v1_lab(engine: &[&str]) -> (Lab, PathBuf, Prober) {
    let mut lab = Lab::new("cgroup");
    let cgroup = lab.cgroup("");
    write(&cgroup, "devices.deny", "a");
    for rule in engine {
        write(&cgroup, "devices.allow", rule);
    }
    let prober = lab.prober(&cgroup);
    (lab, cgroup, prober)
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn v1_a_device_opens_as_granted_and_no_longer_after_the_revoke() {
    let (lab, cgroup, mut prober) = v1_lab(&["c 1:3 rwm", "c *:* m"]);
    let mut other = lab.prober(&cgroup);
    other.keep_opening("null");
    assert!(
        !prober.opens("r", "zero"),
        "refused before: the test would prove nothing"
    );
    let before = rules(&cgroup);
    let mut filter = open(&own_v1(&cgroup));
    assert_eq!(
        filter.ensure(&grants(&[(ZERO, "r"), (FULL, "rw")])).unwrap(),
        Change::Made
    );
    assert!(prober.opens("r", "zero"));
    assert!(!prober.opens("rw", "zero"));
    assert!(prober.opens("rw", "full"));
    assert_eq!(
        filter.ensure(&grants(&[(FULL, "rw"), (ZERO, "r")])).unwrap(),
        Change::None
    );
    assert_eq!(filter.ensure(&grants(&[(ZERO, "w")])).unwrap(), Change::Made);
    assert!(prober.opens("w", "zero"));
    assert!(!prober.opens("r", "zero"));
    assert!(!prober.opens("r", "full"), "revoked");
    assert_eq!(filter.ensure(&GrantSet::new()).unwrap(), Change::Made);
    assert!(!prober.opens("w", "zero"), "revoked");
    assert_eq!(rules(&cgroup), before, "the engine's rules are as they were");
    assert!(other.stop_opening("null") > 0);
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn v1_access_that_the_engine_allows_stays_after_the_revoke() {
    let (_lab, cgroup, mut prober) = v1_lab(&["c 1:3 rwm", "c 1:7 r", "c 1:* m"]);
    let mut filter = open(&own_v1(&cgroup));
    assert_eq!(
        filter.ensure(&grants(&[(FULL, "rwm"), (NULL, "rw")])).unwrap(),
        Change::Made
    );
    assert!(prober.opens("rw", "full"));
    assert_eq!(filter.ensure(&GrantSet::new()).unwrap(), Change::Made);
    assert!(prober.opens("r", "full"), "the engine's");
    assert!(!prober.opens("w", "full"), "ours");
    assert!(prober.opens("rw", "null"), "the engine's");
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn v1_a_watcher_that_starts_again_distinguishes_our_rules_from_the_engines() {
    let (_lab, cgroup, mut prober) = v1_lab(&["c 1:3 rwm"]);
    let before = rules(&cgroup);
    let wanted = grants(&[(ZERO, "rw")]);
    let mut filter = open(&own_v1(&cgroup));
    // What a watcher stores before it acts, so that even one that dies meanwhile is cleaned up
    // after.
    let memory = filter.memory().ahead_of(&wanted);
    assert_eq!(filter.ensure(&wanted).unwrap(), Change::Made);
    assert_eq!(filter.memory(), memory);
    drop(filter);
    assert!(prober.opens("rw", "zero"));
    let mut filter = filter::open(&own_v1(&cgroup), memory).unwrap();
    assert_eq!(filter.ensure(&wanted).unwrap(), Change::None);
    assert_eq!(filter.ensure(&GrantSet::new()).unwrap(), Change::Made);
    assert!(!prober.opens("r", "zero"));
    assert_eq!(rules(&cgroup), before);
    assert_eq!(filter.memory().held, GrantSet::new());
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn v1_rules_are_restored_after_an_engine_rewrote_them() {
    let (_lab, cgroup, mut prober) = v1_lab(&["c 1:3 rwm"]);
    let wanted = grants(&[(ZERO, "rw")]);
    let mut filter = open(&own_v1(&cgroup));
    assert_eq!(filter.ensure(&wanted).unwrap(), Change::Made);
    for _ in 0..100 {
        write(&cgroup, "devices.deny", "a");
        write(&cgroup, "devices.allow", "c 1:3 rwm");
        assert!(!prober.opens("r", "zero"));
        assert_eq!(filter.ensure(&wanted).unwrap(), Change::Made);
        assert!(prober.opens("rw", "zero"));
        assert_eq!(filter.ensure(&wanted).unwrap(), Change::None);
    }
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn v1_a_parent_that_denies_is_reported_as_the_cause_and_other_grants_are_made() {
    let mut lab = Lab::new("cgroup");
    let parent = lab.cgroup("");
    write(&parent, "devices.deny", "a");
    write(&parent, "devices.allow", "c 1:3 rwm");
    write(&parent, "devices.allow", "c 1:7 rwm");
    let child = lab.cgroup("/container");
    write(&child, "devices.deny", "c 1:7 rwm");
    let mut prober = lab.prober(&child);
    let mut filter = open(&own_v1(&child));
    let error = filter.ensure(&grants(&[(ZERO, "r"), (FULL, "rw")])).unwrap_err();
    let expected = format!(
        "cannot write \"c 1:5 r\" to devices.allow of cgroup {}: Operation not permitted (os error 1); \
         a parent cgroup denies this device: allow it there (or in the slice or pod that the container is in)",
        child.display()
    );
    assert_eq!(error.to_string(), expected);
    assert!(
        prober.opens("rw", "full"),
        "one refused grant keeps no other from being made"
    );
    assert_eq!(filter.ensure(&GrantSet::new()).unwrap(), Change::Made);
    assert!(!prober.opens("r", "full"));
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn v1_denied_devices_are_not_listed_if_all_others_are_allowed() {
    let mut lab = Lab::new("cgroup");
    let cgroup = lab.cgroup("");
    write(&cgroup, "devices.deny", "c 1:5 rwm");
    assert_eq!(
        rules(&cgroup),
        "a *:* rwm\n",
        "which is why no transition is computed from such a list"
    );
    assert!(!lab.prober(&cgroup).opens("r", "zero"));
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn v1_nothing_is_written_if_everything_is_allowed() {
    let mut lab = Lab::new("cgroup");
    let cgroup = lab.cgroup("");
    let mut filter = open(&own_v1(&cgroup));
    assert_eq!(filter.ensure(&grants(&[(ZERO, "rw")])).unwrap(), Change::None);
    assert_eq!(filter.ensure(&GrantSet::new()).unwrap(), Change::None);
    assert!(
        lab.prober(&cgroup).opens("rw", "zero"),
        "and nothing is denied at the end"
    );
}

/// Case security 7.
#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn v1_a_cgroup_has_an_owner_once_it_restricts_something() {
    let mut lab = Lab::new("cgroup");
    let (cgroup, mut owners) = (lab.cgroup(""), Owners::new());
    let [mut first, mut second] = ["first", "second"].map(|id| {
        let owner = owners.container(id);
        open(&own_v1(&cgroup)).owned_by(owner).unwrap()
    });
    let (zero, full) = (grants(&[(ZERO, "r")]), grants(&[(FULL, "r")]));
    assert_eq!(first.ensure(&zero).unwrap(), Change::None);
    assert_eq!(second.ensure(&full).unwrap(), Change::None);
    write(&cgroup, "devices.deny", "a");
    assert_eq!(first.ensure(&zero).unwrap(), Change::Made);
    is_owned(second.ensure(&full), "first");
    let mut prober = lab.prober(&cgroup);
    assert!(prober.opens("r", "zero") && !prober.opens("r", "full"));
    owners.end(0);
    // Its memory is that of a container that has ended: what it had is taken back before the next
    // one begins.
    filter::revoke(&first.memory(), &owners.container("first")).unwrap();
    assert_eq!(second.ensure(&full).unwrap(), Change::Made);
    assert!(prober.opens("r", "full") && !prober.opens("r", "zero"));
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn v1_a_removed_cgroup_is_reported_as_gone() {
    let (_lab, cgroup, prober) = v1_lab(&[]);
    let mut filter = open(&own_v1(&cgroup));
    drop(prober);
    assert!(within_a_moment(|| fs::remove_dir(&cgroup).is_ok()));
    let error = filter.ensure(&grants(&[(ZERO, "r")])).unwrap_err();
    assert!(
        matches!(&error, FilterError::Gone { cgroup: gone } if *gone == cgroup),
        "{error}"
    );
}
