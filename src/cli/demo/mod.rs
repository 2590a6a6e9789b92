//! `oci-hotplug demo`: a small container under plain runc with our two hooks in its config.json,
//! and a block device (a partition of a loop device) that is plugged, read in the container, and
//! unplugged. The demo removes everything that it creates, also when a step fails.

mod bundle;
mod container;
mod disk;
mod setup;

use std::fs;

use anyhow::{Result, ensure};

use self::container::DemoContainer;
use self::disk::{Disk, TEXT};
use self::setup::{Scratch, Tools};
use crate::model::request::annotations;

/// Runs the demo.
pub(super) fn run() -> Result<()> {
    let tools = Tools::find()?;
    let scratch = Scratch::new()?;
    let disk = Disk::new(&scratch.dir)?;
    let node = disk.partition_node();

    say(&format!(
        "A container under plain runc that requests {node} by the annotation"
    ));
    say(&format!(
        "{} = \"devnode:{node}\"; the device does not exist yet.",
        annotations::DEVICES
    ));
    let container = DemoContainer::start(&tools, &scratch, &node)?;
    plug_and_unplug(&container, &disk, &node)?;

    say("Stopping the container.");
    drop(container);
    drop(disk);
    let left = fs::read_dir(scratch.state_dir().join("containers")).map_or(0, Iterator::count);
    ensure!(
        left == 0,
        "{left} records are left in {}",
        scratch.state_dir().display()
    );
    drop(scratch);
    say("Nothing is left. README.md describes the setup for your containers.");
    Ok(())
}

/// Shows the container before, with and after the device.
fn plug_and_unplug(container: &DemoContainer, disk: &Disk, node: &str) -> Result<()> {
    container.shows(&format!("ls {node}"), "No such file or directory")?;

    say(&format!(
        "Plugging the device: the partition {node} appears on the host."
    ));
    let (major, minor) = disk.plug()?;
    container.eventually(&format!("head -c {} {node}", TEXT.len()), |output| {
        output.status.success() && output.stdout == TEXT.as_bytes()
    })?;
    container.shows(&format!("ls -l {node}"), node)?;
    container.shows(&format!("head -c {} {node}", TEXT.len()), TEXT)?;

    say("What oci-hotplug inspect shows on the host:");
    print!("{}", container.inspect()?);

    say("Unplugging the device.");
    disk.unplug()?;
    container.eventually(&format!("ls {node}"), |output| !output.status.success())?;
    container.shows(&format!("ls {node}"), "No such file or directory")?;
    say("A node that the container keeps or creates itself gives no access:");
    container.shows(
        &format!("mknod /dev/kept b {major} {minor} && ls -l /dev/kept"),
        "/dev/kept",
    )?;
    container.shows("head -c 1 /dev/kept", "/dev/kept: Operation not permitted")
}

fn say(text: &str) {
    println!("==> {text}");
}
