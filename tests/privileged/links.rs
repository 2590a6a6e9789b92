//! Several devices claim one link. A container gets the device that the host's link points to.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use crate::framework::disk::number_of;
use crate::framework::{Bundle, Disk, Machine, Udevd};

/// A directory for links in /dev, removed by udevd or when dropped.
struct LinkDirectory(String);

impl LinkDirectory {
    fn new(machine: &Machine) -> Self {
        let path = format!("/dev/{}", machine.fresh_id());
        Self(path)
    }

    fn link(&self) -> String {
        format!("{}/stick", self.0)
    }

    /// Points the link to a node like udevd does: with a new link that replaces the old one.
    fn point_to(&self, node: &str) {
        let new = PathBuf::from(format!("{}/new", self.0));
        symlink(node, &new).expect("make a link");
        fs::rename(&new, self.link()).expect("replace the link");
    }
}

impl Drop for LinkDirectory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Case README 1.
#[apply(on_both_hierarchies)]
fn the_container_follows_a_link_that_udevd_moves(machine: &Machine) {
    let disk = Disk::new(machine);
    let links = LinkDirectory::new(machine);
    let name = links.link().replacen("/dev/", "", 1);
    let rule = |partition: u8| {
        format!(
            "KERNEL==\"{}\", SYMLINK+=\"{name}\", OPTIONS+=\"link_priority={partition}0\"\n",
            disk.name(partition)
        )
    };
    let _udevd = Udevd::start_with_rules(machine, &format!("{}{}", rule(1), rule(2)));
    let request = format!("devnode:{};path=/dev/stick", links.link());
    let container = Bundle::requesting(machine, &request)
        .capability("CAP_MKNOD")
        .start();
    let first = number_of(&disk.plug(1));
    container.eventually_reads("/dev/stick", &disk.content(1));
    let second = number_of(&disk.plug(2));
    container.eventually_reads("/dev/stick", &disk.content(2));
    let first = container.make_node("first", 'b', first);
    let second = container.make_node("second", 'b', second);
    container.eventually_refuses(&first);

    let cold = Bundle::requesting(machine, &request).start();
    cold.eventually_reads("/dev/stick", &disk.content(2));

    disk.unplug(2);
    container.eventually_reads("/dev/stick", &disk.content(1));
    container.eventually_refuses(&second);
    cold.eventually_reads("/dev/stick", &disk.content(1));
    disk.unplug(1);
    container.eventually_lacks("/dev/stick");
    assert!(!machine.log().contains("ERROR"), "{}", machine.log());
}

#[apply(on_both_hierarchies)]
fn the_container_follows_a_link_that_is_changed_by_hand(machine: &Machine) {
    let disk = Disk::new(machine);
    let links = LinkDirectory::new(machine);
    let request = format!("devnode:{};path=/dev/stick", links.link());
    let nodes = [disk.plug(1), disk.plug(2)];
    let container = Bundle::requesting(machine, &request).start();
    assert!(!container.has("/dev/stick"));
    fs::create_dir(&links.0).expect("make a directory in /dev");
    for (partition, node) in [(1, &nodes[0]), (2, &nodes[1]), (1, &nodes[0])] {
        links.point_to(node);
        container.eventually_reads("/dev/stick", &disk.content(partition));
    }
    fs::remove_dir_all(&links.0).expect("remove the directory");
    container.eventually_lacks("/dev/stick");
}
