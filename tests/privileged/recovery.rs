//! Watchers that die: `oci-hotplug recover`, and further hooks. Whatever happens to its watcher, a
//! container keeps its devices, and gets new ones.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::framework::container::text;
use crate::framework::disk::number_of;
use crate::framework::hook::oci_state;
use crate::framework::tool::output_of;
use crate::framework::tracer::Tracer;
use crate::framework::{Bundle, Disk, Hierarchy, Hook, Machine, RuncContainer, Watcher, eventually};

const NOTHING: Vec<PathBuf> = Vec::new();

/// `oci-hotplug recover` for this machine's state directory.
pub fn recover(machine: &Machine, more: &[&str]) -> Output {
    recover_in(&machine.state_dir(), more)
}

pub fn recover_in(state_dir: &Path, more: &[&str]) -> Output {
    let mut arguments = vec![
        "--state-dir",
        state_dir.to_str().expect("scratch paths are text"),
        "recover",
    ];
    arguments.extend(more);
    Hook::operator().run(&arguments, "")
}

#[track_caller]
pub fn recover_well(machine: &Machine, more: &[&str]) -> String {
    let output = recover(machine, more);
    assert!(output.status.success(), "{}", text(&output));
    text(&output)
}

/// The inode of a node in the container: it changes if the node is created again.
pub fn inode(container: &RuncContainer<'_>, path: &str) -> String {
    container.inside(&format!("stat -c '%i %z' '{path}'")).output
}

/// Runs another prestart hook of a running container, as a second CDI device would.
pub fn further_hook(machine: &Machine, container: &RuncContainer<'_>, request: &str) -> Output {
    let bundle = container.bundle.to_str().expect("scratch paths are text");
    let state = oci_state(&container.id, "creating", &container.pid.into(), bundle);
    let arguments = ["--device".to_owned(), request.to_owned()];
    Hook::prestart(machine, &arguments).run(&[], &state)
}

#[apply(on_both_hierarchies)]
fn a_second_hook_after_a_crash_keeps_the_requests_of_the_first(machine: &Machine) {
    let disk = Disk::new(machine);
    let [first, second] = [1, 2].map(|partition| disk.plug(partition));
    let container = Bundle::requesting(machine, &format!("devnode:{first};link=/dev/data/first")).create();
    container.reads("/dev/data/first", &disk.content(1));
    let node = inode(&container, &first);
    container.expect_watcher().kill();
    let output = further_hook(machine, &container, &format!("devnode:{second}"));
    assert!(output.status.success(), "{output:?}");
    container.reads(&second, &disk.content(2));
    container.reads("/dev/data/first", &disk.content(1));
    assert_eq!(inode(&container, &first), node, "the node was created again");
    container.start();
    let own = number_of(&first);
    disk.unplug(1);
    container.eventually_lacks(&first);
    container.eventually_lacks("/dev/data/first");
    disk.plug(1);
    container.eventually_reads("/dev/data/first", &disk.content(1));
    assert_eq!(own.0, number_of(&first).0);
    container.delete();
    assert_eq!(machine.traces(), NOTHING);
}

/// How often a watcher is killed: tests/run.sh sets OCI_HOTPLUG_LONG for the full number.
fn kills() -> usize {
    if std::env::var_os("OCI_HOTPLUG_LONG").is_some() {
        100
    } else {
        40
    }
}

/// Pseudo-random numbers, which repeat with the same seed (xorshift, Marsaglia 2003).
struct Dice(u64);

impl Dice {
    /// With the seed of OCI_HOTPLUG_SEED, else with a new one, which is in the output of a failed
    /// test.
    fn new() -> Self {
        let given = std::env::var("OCI_HOTPLUG_SEED").ok();
        let seed = given.map_or_else(
            || {
                std::time::SystemTime::now()
                    .duration_since(std::time::UNIX_EPOCH)
                    .map_or(1, |now| now.as_nanos() as u64 | 1)
            },
            |text| text.parse().expect("OCI_HOTPLUG_SEED is a number"),
        );
        println!("OCI_HOTPLUG_SEED={seed}");
        // The generator never leaves 0.
        Self((seed ^ 0x9e37_79b9_7f4a_7c15).max(1))
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

const PARTITIONS: [u8; 4] = [1, 2, 3, 4];

/// The partition that the engine gives the container.
const ENGINES: u8 = 9;

/// A disk whose partitions are added and removed, and the container that requests them.
struct Scene<'m> {
    disk: &'m Disk,
    container: RuncContainer<'m>,
    plugged: BTreeSet<u8>,
    /// The number that a partition had when it was unplugged.
    gone: BTreeMap<u8, (u32, u32)>,
    engines_node: String,
    baseline: usize,
}

impl<'m> Scene<'m> {
    fn new(machine: &'m Machine, disk: &'m Disk) -> Self {
        let engines = disk.plug(ENGINES);
        let requests: Vec<String> = PARTITIONS
            .iter()
            .map(|partition| {
                let exclusive = if *partition == 1 { ";exclusive" } else { "" };
                format!(
                    "devnode:{};link=/dev/data/{partition}{exclusive}",
                    disk.partition(*partition)
                )
            })
            .collect();
        let container = Bundle::requesting(machine, &requests.join(","))
            .engine_device(&engines, "r")
            .capability("CAP_MKNOD")
            .start();
        let engines_node = inode(&container, &engines);
        let baseline = container.device_rules().lines().count();
        Self {
            disk,
            container,
            plugged: BTreeSet::new(),
            gone: BTreeMap::new(),
            engines_node,
            baseline,
        }
    }

    /// Plugs a partition in, or unplugs it.
    fn toggle(&mut self, partition: u8) {
        if self.plugged.remove(&partition) {
            self.gone
                .insert(partition, number_of(&self.disk.partition(partition)));
            self.disk.unplug(partition);
        } else {
            self.disk.plug(partition);
            self.plugged.insert(partition);
        }
    }

    /// What the container should have: node, content, and target of the link.
    fn due(&self) -> String {
        let line = |partition: &u8| {
            let (node, content) = (self.disk.partition(*partition), self.disk.content(*partition));
            if self.plugged.contains(partition) {
                format!("{node} {content} {node}\n")
            } else {
                format!("{node} -\n")
            }
        };
        PARTITIONS.iter().map(line).collect()
    }

    fn seen(&self) -> String {
        let look = |partition: &u8| {
            let (node, length) = (
                self.disk.partition(*partition),
                self.disk.content(*partition).len(),
            );
            format!(
                "if [ -e {node} ] || [ -L {node} ] || [ -L /dev/data/{partition} ]; \
                 then echo \"{node} $(head -c {length} {node}) $(readlink -f /dev/data/{partition})\"; else echo '{node} -'; fi; "
            )
        };
        let looks: String = PARTITIONS.iter().map(look).collect();
        self.container.inside(&looks).output + "\n"
    }

    #[track_caller]
    fn eventually_has_what_is_due(&self) {
        let due = self.due();
        let mut seen = String::new();
        let right = crate::framework::eventually::within(crate::framework::eventually::DEADLINE, || {
            seen = self.seen();
            (seen == due).then_some(())
        });
        assert!(right.is_some(), "due:\n{due}seen:\n{seen}");
    }

    /// Asserts that the engine's device and rules are unchanged, as they must be after any death of
    /// a watcher.
    #[track_caller]
    fn has_what_the_engine_gave(&self) {
        let node = self.disk.partition(ENGINES);
        self.container.reads(&node, &self.disk.content(ENGINES));
        assert!(self.container.is_write_refused(&node));
        assert_eq!(inode(&self.container, &node), self.engines_node);
        assert_eq!(self.container.read("/dev/zero", 1).status, 0);
    }

    /// Asserts that no removed device can be used, not even with a node that the container has
    /// created.
    #[track_caller]
    fn has_no_stray_grant(&self, machine: &Machine) {
        let taken: Vec<_> = self
            .plugged
            .iter()
            .map(|partition| number_of(&self.disk.partition(*partition)))
            .collect();
        let engines = number_of(&self.disk.partition(ENGINES));
        for number in self
            .gone
            .values()
            .filter(|number| !taken.contains(number) && **number != engines)
        {
            self.container.inside("rm -f /nodes/gone");
            let own = self.container.make_node("gone", 'b', *number);
            let result = self.container.read(&own, 1);
            assert!(
                result.status != 0 && result.output.contains("not permitted"),
                "{number:?} is still granted: {result:?}"
            );
        }
        if machine.hierarchy == Hierarchy::V1 {
            let rules = self.container.device_rules();
            assert_eq!(
                rules.lines().count(),
                self.baseline + self.plugged.len(),
                "{rules}"
            );
        }
    }
}

#[apply(on_both_hierarchies)]
fn recover_repairs_everything_after_a_watcher_was_killed_at_any_time(machine: &Machine) {
    let mut dice = Dice::new();
    let disk = Disk::new(machine);
    let mut scene = Scene::new(machine, &disk);
    for round in 0..kills() {
        let watcher = scene.container.expect_watcher();
        if round % 4 == 0 {
            // If nothing changes, the container has the same before and after.
            scene.toggle(PARTITIONS[dice.below(4) as usize]);
            scene.eventually_has_what_is_due();
            // The node is removed before the grant.
            watcher.eventually_waits_for_events();
            watcher.kill();
            assert_eq!(scene.seen(), scene.due());
            scene.has_no_stray_grant(machine);
        } else {
            let moment = Duration::from_micros(dice.below(20_000));
            let began = Instant::now();
            let killer = thread::spawn(move || {
                while began.elapsed() < moment {
                    thread::yield_now();
                }
                watcher.kill();
            });
            while !killer.is_finished() {
                scene.toggle(PARTITIONS[dice.below(4) as usize]);
            }
            killer.join().expect("kill the watcher");
        }
        scene.has_what_the_engine_gave();
        // The next watcher finds out what has happened in the meantime.
        if dice.below(2) == 0 {
            scene.toggle(PARTITIONS[dice.below(4) as usize]);
        }
        let message = recover_well(machine, &[]);
        assert!(message.contains("watcher started, process"), "{message}");
        scene.eventually_has_what_is_due();
        // The node is removed before the grant.
        scene.container.expect_watcher().eventually_waits_for_events();
        scene.has_no_stray_grant(machine);
        scene.has_what_the_engine_gave();
    }
    for partition in scene.plugged.clone() {
        scene.toggle(partition);
    }
    scene.eventually_has_what_is_due();
    let left = scene.container.inside("ls -A /dev/data 2>/dev/null").output;
    assert_eq!(left, "", "links are left");
    scene.container.delete();
    assert_eq!(machine.traces(), NOTHING);
}

/// More calls of one kind than it takes to attach a device.
const MANY: u32 = 40;

/// Kills the watcher at each system call of these kinds with which it attaches a device, and
/// unplugs the device before the next watcher starts. Returns how often it was killed at each.
fn kill_at_each(
    machine: &Machine,
    container: &RuncContainer<'_>,
    disk: &Disk,
) -> BTreeMap<&'static str, u32> {
    let calls = [
        "mkdirat",
        "mknodat",
        "move_mount",
        "fchownat",
        "renameat2",
        "symlinkat",
        "write",
    ];
    let mut killed = BTreeMap::new();
    for call in calls {
        for count in 1..MANY {
            let watcher = container.expect_watcher();
            let tracer = Tracer::attach(watcher.pid, &[], call, count);
            disk.plug(1);
            let is_over = || !watcher.is_alive() || container.has("/dev/three/link");
            eventually("the device is attached or the watcher killed", is_over);
            tracer.detach();
            disk.unplug(1);
            let is_gone = || ["/dev/one", "/dev/three"].iter().all(|path| !container.has(path));
            eventually("the device is detached or the watcher dead", || {
                !watcher.is_alive() || is_gone()
            });
            if watcher.is_alive() {
                break;
            }
            *killed.entry(call).or_insert(0) += 1;
            output_of(machine, &["recover"]);
            eventually(&format!("nothing is left after call {count} of {call}"), is_gone);
        }
    }
    println!("killed at {killed:?}");
    killed
}

fn nothing_is_left_by_killed_watchers(machine: &Machine, has_user_namespace: bool, expected: &[&str]) {
    let disk = Disk::new(machine);
    let request = format!(
        "devnode:{};path=/dev/one/two/node;link=/dev/three/link",
        disk.partition(1)
    );
    let mut bundle = Bundle::requesting(machine, &request);
    if has_user_namespace {
        bundle = bundle.user_namespace();
    }
    let container = bundle.start();
    let killed = kill_at_each(machine, &container, &disk);
    for call in expected {
        assert!(killed.contains_key(call), "{call} was not reached: {killed:?}");
    }
    container.delete();
    assert_eq!(machine.traces(), NOTHING);
}

#[apply(on_both_hierarchies)]
fn nothing_is_left_if_a_watcher_is_killed_at_any_step_and_its_device_is_gone_afterwards(machine: &Machine) {
    nothing_is_left_by_killed_watchers(machine, false, &["mkdirat", "mknodat", "symlinkat", "write"]);
}

#[apply(on_cgroup_v2)]
fn nothing_is_left_of_a_mounted_node_if_a_watcher_is_killed_at_any_step(machine: &Machine) {
    let calls = [
        "mkdirat",
        "mknodat",
        "move_mount",
        "renameat2",
        "symlinkat",
        "write",
    ];
    nothing_is_left_by_killed_watchers(machine, true, &calls);
}

pub fn record_of(machine: &Machine, id: &str) -> PathBuf {
    machine
        .state_dir()
        .join("containers")
        .join(id)
        .join("record.json")
}

/// Changes a file of ours as another version would have written it.
pub fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&fs::read(path).expect("read a note")).expect("a note is JSON");
    change(&mut value);
    fs::write(path, value.to_string()).expect("write a note");
}

/// A watcher that is stopped until this is dropped.
struct Stopped(Watcher);

impl Stopped {
    fn new(watcher: Watcher) -> Self {
        watcher.pause();
        Self(watcher)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.0.resume();
    }
}

#[apply(on_both_hierarchies)]
fn recover_starts_watchers_sweeps_and_reports_failures(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    let request = format!("devnode:{node};exclusive");
    let elsewhere = "devnode:/dev/oci-hotplug-nothing";
    let orphan = Bundle::requesting(machine, &request).start();
    let [gone, stopped, newer, torn] =
        [(); 4].map(|()| Bundle::requesting(machine, elsewhere).without_poststop().start());
    for container in [&orphan, &gone, &newer, &torn] {
        container.expect_watcher().kill();
    }
    gone.delete();
    edit(&record_of(machine, &newer.id), |record| {
        record["version"] = json!(99)
    });
    let torn_record = fs::read(record_of(machine, &torn.id)).expect("read a record");
    fs::write(
        record_of(machine, &torn.id),
        &torn_record[..torn_record.len() / 2],
    )
    .expect("tear a record");
    let sleeping = Stopped::new(stopped.expect_watcher());

    let output = recover(machine, &[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let message = text(&output);
    let line_of = |container: &RuncContainer<'_>| {
        message
            .lines()
            .find(|line| line.starts_with(&format!("{} ", container.id)))
            .unwrap_or_default()
            .to_owned()
    };
    assert!(line_of(&orphan).contains("watcher started, process"), "{message}");
    assert!(
        line_of(&gone).contains("the container has ended: its record was removed"),
        "{message}"
    );
    assert!(
        line_of(&stopped).contains(&format!("kill -CONT {}", sleeping.0.pid)),
        "{message}"
    );
    assert!(line_of(&newer).contains("it has version 99"), "{message}");
    assert!(line_of(&torn).contains("FAILED: cannot read"), "{message}");
    assert!(
        message.contains("3 of 5 containers could not be recovered"),
        "{message}"
    );
    orphan.reads(&node, &disk.content(1));
    disk.unplug(1);
    orphan.eventually_lacks(&node);

    drop(sleeping);
    fs::write(record_of(machine, &torn.id), &torn_record).expect("write a record");
    edit(&record_of(machine, &newer.id), |record| {
        record["version"] = json!(1)
    });
    let json: Value = serde_json::from_str(&recover_well(machine, &["--json"])).expect("JSON");
    let done_for = |container: &RuncContainer<'_>| {
        let all = json["containers"].as_array().expect("a list");
        all.iter()
            .find(|entry| entry["id"] == container.id.as_str())
            .expect("an entry")
            .clone()
    };
    assert_eq!(done_for(&orphan)["result"], "watched");
    assert_eq!(done_for(&torn)["result"], "started");
    assert_eq!(done_for(&newer)["watcher"], newer.expect_watcher().pid);
}
