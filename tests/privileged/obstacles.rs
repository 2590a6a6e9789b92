//! Containers and images with obstacles at the paths of nodes and links: the host stays unchanged,
//! and other devices work.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use crate::framework::{Bundle, Disk, Machine, RuncContainer};

/// A directory and a file of the host that must not change: a program that follows a container's
/// link by name from the host would reach them.
struct Bait {
    directory: PathBuf,
}

impl Bait {
    fn lay(machine: &Machine) -> Self {
        let directory = machine.scratch("bait");
        fs::create_dir(&directory).expect("make a directory");
        fs::write(directory.join("file"), "untouched").expect("write a file");
        Self { directory }
    }

    fn path(&self) -> &str {
        self.directory.to_str().expect("scratch paths are text")
    }

    #[track_caller]
    fn is_untouched(&self) {
        let entries: Vec<_> = fs::read_dir(&self.directory)
            .expect("list")
            .flatten()
            .map(|found| found.file_name())
            .collect();
        assert_eq!(
            entries,
            ["file"],
            "something was made in or removed from the host's directory"
        );
        let content = fs::read_to_string(self.directory.join("file")).expect("read");
        assert_eq!(content, "untouched");
    }
}

/// Asserts that the container still gets other devices than partition 1.
fn the_other_device_goes_on(container: &RuncContainer<'_>, disk: &Disk) {
    disk.plug(2);
    container.eventually_reads(&disk.partition(2), &disk.content(2));
    disk.unplug(2);
    container.eventually_lacks(&disk.partition(2));
    container.expect_watcher();
}

/// Plugs and unplugs partition 1, and asserts each time that other devices are not affected.
fn its_plug_and_unplug_affect_no_other(container: &RuncContainer<'_>, disk: &Disk) {
    disk.plug(1);
    the_other_device_goes_on(container, disk);
    disk.unplug(1);
    the_other_device_goes_on(container, disk);
}

fn asking_for_two<'m>(machine: &'m Machine, disk: &Disk, path: &str) -> Bundle<'m> {
    let request = format!(
        "devnode:{};path={path},devnode:{}",
        disk.partition(1),
        disk.partition(2)
    );
    Bundle::requesting(machine, &request)
}

#[track_caller]
fn inside(container: &RuncContainer<'_>, command: &str) {
    let result = container.inside(command);
    assert_eq!(result.status, 0, "{command}: {}", result.output);
}

#[apply(on_both_hierarchies)]
fn a_link_at_the_nodes_path_is_not_followed(machine: &Machine) {
    let bait = Bait::lay(machine);
    for target in ["file", "new"] {
        let disk = Disk::new(machine);
        let container = asking_for_two(machine, &disk, "/dev/trap").start();
        inside(&container, &format!("ln -s {}/{target} /dev/trap", bait.path()));
        its_plug_and_unplug_affect_no_other(&container, &disk);
        bait.is_untouched();
    }
}

#[apply(on_both_hierarchies)]
fn a_link_in_a_parent_of_the_node_is_not_followed(machine: &Machine) {
    let bait = Bait::lay(machine);
    for user_namespace in [false, true] {
        let disk = Disk::new(machine);
        let bundle = asking_for_two(machine, &disk, "/dev/way/trap");
        let container = bundle.with_user_namespace(user_namespace).start();
        inside(&container, &format!("ln -s {} /dev/way", bait.path()));
        its_plug_and_unplug_affect_no_other(&container, &disk);
        bait.is_untouched();
    }
}

#[apply(on_both_hierarchies)]
fn a_directory_at_the_nodes_path_affects_only_that_device(machine: &Machine) {
    let disk = Disk::new(machine);
    let container = asking_for_two(machine, &disk, "/dev/trap").start();
    inside(&container, "mkdir /dev/trap && echo mine >/dev/trap/mine");
    its_plug_and_unplug_affect_no_other(&container, &disk);
    assert_eq!(container.inside("cat /dev/trap/mine").output, "mine");
}

#[apply(on_both_hierarchies)]
fn a_fifo_at_the_nodes_path_blocks_nothing(machine: &Machine) {
    let disk = Disk::new(machine);
    let container = asking_for_two(machine, &disk, "/dev/trap").start();
    inside(&container, "mkfifo /dev/trap");
    its_plug_and_unplug_affect_no_other(&container, &disk);
}

#[apply(on_both_hierarchies)]
fn an_image_whose_dev_is_a_link_cannot_change_the_host(machine: &Machine) {
    let bait = Bait::lay(machine);
    let disk = Disk::new(machine);
    disk.plug(1);
    let bundle = asking_for_two(machine, &disk, "/dev/way/trap").image_dev();
    symlink(bait.path(), bundle.rootfs().join("dev/way")).expect("make a link in the image");
    let container = bundle.start();
    the_other_device_goes_on(&container, &disk);
    disk.unplug(1);
    the_other_device_goes_on(&container, &disk);
    container.delete();
    bait.is_untouched();
}

#[apply(on_both_hierarchies)]
fn an_image_with_a_link_at_the_links_path_cannot_change_the_host(machine: &Machine) {
    let bait = Bait::lay(machine);
    let disk = Disk::new(machine);
    disk.plug(1);
    let request = format!(
        "devnode:{};link=/dev/way/link,devnode:{}",
        disk.partition(1),
        disk.partition(2)
    );
    let bundle = Bundle::requesting(machine, &request).image_dev();
    symlink(bait.path(), bundle.rootfs().join("dev/way")).expect("make a link in the image");
    let container = bundle.start();
    the_other_device_goes_on(&container, &disk);
    disk.unplug(1);
    the_other_device_goes_on(&container, &disk);
    container.delete();
    bait.is_untouched();
}

#[apply(on_both_hierarchies)]
fn a_container_that_removes_or_replaces_a_node_affects_only_itself(machine: &Machine) {
    let disk = Disk::new(machine);
    let container = asking_for_two(machine, &disk, "/dev/one").start();
    for (command, is_elsewhere) in [
        ("rm /dev/one", false),
        ("rm /dev/one && echo mine >/dev/one", false),
        ("mv /dev/one /dev/elsewhere", true),
    ] {
        inside(&container, "rm -f /dev/one");
        disk.plug(1);
        container.eventually_reads("/dev/one", &disk.content(1));
        inside(&container, command);
        disk.unplug(1);
        the_other_device_goes_on(&container, &disk);
        if is_elsewhere {
            container.eventually_refuses("/dev/elsewhere");
        }
    }
}

#[apply(on_both_hierarchies)]
fn a_file_of_the_container_at_the_nodes_path_stays(machine: &Machine) {
    let disk = Disk::new(machine);
    let container = asking_for_two(machine, &disk, "/dev/one").start();
    inside(&container, "echo mine >/dev/one");
    its_plug_and_unplug_affect_no_other(&container, &disk);
    assert_eq!(
        container.inside("cat /dev/one").output,
        "mine",
        "a file of the container's own was taken away"
    );
}
