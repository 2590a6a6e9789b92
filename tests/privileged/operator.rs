//! What the operator's tool shows of containers and devices that are really there.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Stdio};

use crate::framework::{Bundle, Disk, Hook, Machine, eventually};

on_both_hierarchies!(
    the_tree_says_which_container_holds_a_device_and_under_which_path,
    a_tree_that_watches_is_drawn_again_when_a_device_comes_and_goes,
    a_match_that_watches_tells_what_comes_and_goes,
);

/// A verb of the tool, with this machine's state directory.
fn tool(machine: &Machine, verb: &[&str]) -> Vec<String> {
    let mut words: Vec<String> = verb.iter().map(|word| (*word).to_owned()).collect();
    words.push("--state-dir".into());
    words.push(
        machine
            .state_dir()
            .to_str()
            .expect("scratch paths are text")
            .to_owned(),
    );
    words
}

fn said(machine: &Machine, verb: &[&str]) -> String {
    let words = tool(machine, verb);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let output = Hook::operator().run(&words, "");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("the tool writes text")
}

/// A verb that goes on until it is dropped.
struct Running {
    process: Child,
    output: PathBuf,
}

impl Running {
    fn start(machine: &Machine, verb: &[&str]) -> Self {
        let output = machine.scratch("tool.out");
        let file = File::create(&output).expect("make a file for the tool's output");
        let process = Hook::operator()
            .command()
            .args(tool(machine, verb))
            .stdin(Stdio::null())
            .stdout(file)
            .spawn()
            .expect("start the tool");
        Self { process, output }
    }

    fn eventually_says(&self, text: &str) {
        eventually(&format!("the tool says {text:?}"), || self.said().contains(text));
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.output).expect("read the tool's output")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn the_tree_says_which_container_holds_a_device_and_under_which_path(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    let request = format!("devnode:{node};path=/dev/board");
    let container = Bundle::asking(machine, &request).start();
    let tree = said(machine, &["tree"]);
    let line = tree.lines().find(|line| line.contains(&node));
    let line = line.unwrap_or_else(|| panic!("{node} is not in\n{tree}"));
    assert!(
        line.ends_with(&format!("{} as /dev/board", container.id)),
        "{line}"
    );
    // Of all loop devices only the one that is held.
    assert_eq!(tree.matches("/dev/loop").count(), 1, "{tree}");
    disk.unplug(1);
    container.eventually_lacks("/dev/board");
    assert!(!said(machine, &["tree"]).contains(&container.id));
}

fn a_tree_that_watches_is_drawn_again_when_a_device_comes_and_goes(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.partition(1);
    let container = Bundle::asking(machine, &format!("devnode:{node}")).start();
    let watching = Running::start(machine, &["tree", "--watch"]);
    watching.eventually_says("DEVICE");
    assert!(!watching.said().contains(&container.id), "{}", watching.said());
    disk.plug(1);
    watching.eventually_says(&container.id);
    disk.unplug(1);
    eventually("the last tree that is drawn has nothing of the container", || {
        let said = watching.said();
        let last = said.rsplit("DEVICE").next().unwrap_or_default();
        said.contains(&container.id) && !last.is_empty() && !last.contains(&container.id)
    });
}

fn a_match_that_watches_tells_what_comes_and_goes(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.partition(1);
    let watching = Running::start(machine, &["match", "--watch", &format!("glob:{}p*", disk.node)]);
    watching.eventually_says("no such device is present now");
    disk.plug(1);
    watching.eventually_says(&format!("+ {node}  b "));
    disk.unplug(1);
    watching.eventually_says(&format!("- {node}  b "));
}
