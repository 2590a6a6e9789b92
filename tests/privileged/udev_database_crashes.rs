//! A watcher is killed at each system call with which it changes the container's udev database:
//! the next watcher leaves a database that agrees with the attached devices.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::framework::disk::number_of;
use crate::framework::tool::output_of;
use crate::framework::tracer::Tracer;
use crate::framework::{Bundle, Disk, Machine, RuncContainer, Udevd, eventually};

/// The system calls that can change files in the container's directory.
const CALLS: [&str; 5] = ["openat", "write", "renameat", "mkdirat", "unlinkat"];

/// More calls of one kind than one change takes.
const MANY: u32 = 60;

/// A container that requests one partition, and its directory in the state directory.
struct Scene<'a> {
    machine: &'a Machine,
    disk: Disk,
    container: RuncContainer<'a>,
    directory: PathBuf,
}

impl<'a> Scene<'a> {
    fn new(machine: &'a Machine) -> Self {
        let disk = Disk::new(machine);
        let container = Bundle::requesting(machine, &format!("glob:{}p*", disk.node)).start();
        let directory = machine.state_dir().join("containers").join(&container.id);
        Self {
            machine,
            disk,
            container,
            directory,
        }
    }

    fn names(&self, directory: &str) -> BTreeSet<String> {
        let entries = fs::read_dir(self.directory.join("udev").join(directory))
            .into_iter()
            .flatten();
        let names = entries.flatten().map(|entry| entry.file_name());
        names.filter_map(|name| name.into_string().ok()).collect()
    }

    /// Each pair of an entry and a tag, once as the entries and once as the directories have it.
    fn tags(&self) -> [BTreeSet<(String, String)>; 2] {
        let mut of_entries = BTreeSet::new();
        for name in self.names("data") {
            let path = self.directory.join("udev/data").join(&name);
            let text = fs::read_to_string(path).unwrap_or_default();
            let tags = text.lines().filter_map(|line| line.strip_prefix("G:"));
            of_entries.extend(tags.map(|tag| (name.clone(), tag.to_owned())));
        }
        let mut of_directories = BTreeSet::new();
        for tag in self.names("tags") {
            let names = self.names(&format!("tags/{tag}"));
            of_directories.extend(names.into_iter().map(|name| (name, tag.clone())));
        }
        [of_entries, of_directories]
    }

    /// Whether the database has the entries of this partition with its tag, or (`entry` is `None`)
    /// no entry.
    fn is_right(&self, entry: Option<&str>) -> bool {
        let [of_entries, of_directories] = self.tags();
        let is_tagged = |name: &str| of_entries.contains(&(name.to_owned(), "systemd".to_owned()));
        of_entries == of_directories
            && match entry {
                Some(entry) => is_tagged(entry) && self.container.has(&self.disk.partition(1)),
                None => {
                    of_directories.is_empty() && !self.names("data").iter().any(|name| name.starts_with('b'))
                }
            }
    }

    /// Makes a change while the watcher is traced. Returns whether the watcher was killed. In both
    /// cases the database is right at the end.
    fn change(&self, call: &str, count: u32, is_plug: bool) -> bool {
        let watcher = self.container.expect_watcher();
        let mut paths = vec![self.directory.clone()];
        for file in [
            "udev",
            "udev/data",
            "udev/tags",
            "udev/tags/systemd",
            "udev-entry.tmp",
        ] {
            paths.push(self.directory.join(file));
        }
        // The notes are not among them.
        let tracer = Tracer::attach(watcher.pid, &paths, call, count);
        let entry = self.begin(is_plug);
        eventually("the change is complete or the watcher killed", || {
            !watcher.is_alive() || self.is_right(entry.as_deref())
        });
        // What udevd still does belongs to this change.
        let settled = Command::new("udevadm").args(["settle", "--timeout=60"]).status();
        assert!(settled.expect("start udevadm").success());
        tracer.detach();
        let is_killed = !watcher.is_alive();
        if is_killed {
            output_of(self.machine, &["recover"]);
        }
        eventually("the database is right", || self.is_right(entry.as_deref()));
        is_killed
    }

    /// Plugs the partition in or out. Returns the name of the entry that it then has.
    fn begin(&self, is_plug: bool) -> Option<String> {
        if !is_plug {
            self.disk.unplug(1);
            return None;
        }
        let (major, minor) = number_of(&self.disk.plug(1));
        Some(format!("b{major}:{minor}"))
    }

    /// The same, undisturbed.
    fn change_back(&self, is_plug: bool) {
        let entry = self.begin(is_plug);
        eventually("the database is right", || self.is_right(entry.as_deref()));
    }
}

#[apply(on_cgroup_v2)]
fn a_watcher_that_is_killed_at_any_step_leaves_a_database_that_the_next_one_repairs(machine: &Machine) {
    let _udevd = Udevd::start(machine);
    let scene = Scene::new(machine);
    for (is_plug, changing) in [(true, "renameat"), (false, "unlinkat")] {
        if !is_plug {
            scene.change_back(true);
        }
        for call in CALLS {
            // Once for each call of the change, until one is not reached.
            let mut killed = 0;
            while scene.change(call, killed + 1, is_plug) {
                killed += 1;
                assert!(killed < MANY, "{call}");
                scene.change_back(!is_plug);
            }
            scene.change_back(!is_plug);
            println!("plug: {is_plug}, {call}: killed {killed} times");
            assert!(killed > 0 || call != changing, "{call} changes the database");
        }
    }
}
