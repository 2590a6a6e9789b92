//! What the operator's tool shows of containers and devices that are really there.

use crate::framework::tool::{Running, said};
use crate::framework::{Bundle, Disk, Machine, eventually};

on_both_hierarchies!(
    the_tree_says_which_container_holds_a_device_and_under_which_path,
    a_tree_that_watches_is_drawn_again_when_a_device_comes_and_goes,
    a_match_that_watches_tells_what_comes_and_goes,
);

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
