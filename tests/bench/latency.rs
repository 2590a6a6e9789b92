//! How soon after a uevent a device opens inside, and how soon it is refused.

use crate::figures::{Figure, cpu, head, row};
use crate::framework::disk::number_of;
use crate::framework::{Bundle, Disk, Machine, RuncContainer, Terminal, Udevd};
use crate::probe::{Probe, now};
use crate::uevents::{Speaker, Uevents};

const ROUNDS: usize = 50;

/// The device that is plugged in and unplugged.
enum Plug {
    Character(Terminal),
    Block(Disk),
}

/// One variant's measurements.
#[derive(Default)]
struct Measured {
    udevd_alone: Figure,
    opens: Figure,
    opens_since_call: Figure,
    refused: Figure,
    /// The processor time of the watcher for one plug and unplug.
    cpu: Figure,
}

/// Prints the table.
pub fn measure(machine: &Machine) {
    head("ratio to udevd alone");
    {
        let _udevd = Udevd::start(machine);
        for (device, make) in KINDS {
            let kernel = rounds(machine, &make(machine), "kernel", Speaker::Kernel, true);
            let udev = rounds(machine, &make(machine), "udev", Speaker::Udevd, true);
            let base = Some(&udev.udevd_alone);
            row(
                &format!("{device}: kernel's event → udevd's event (udevd alone)"),
                "",
                &udev.udevd_alone,
                base,
            );
            row(
                &format!("{device}: kernel's event → opens, ready=kernel"),
                "≤ 0.2",
                &kernel.opens,
                base,
            );
            row(
                &format!("{device}: plug called → opens, ready=kernel"),
                "",
                &kernel.opens_since_call,
                base,
            );
            row(
                &format!("{device}: udevd's event → opens, ready=udev"),
                "≤ 0.2; p95 ≤ 0.4",
                &udev.opens,
                base,
            );
            row(
                &format!("{device}: kernel's remove event → refused, ready=kernel"),
                "≤ 0.3",
                &kernel.refused,
                base,
            );
            row(
                &format!("{device}: kernel's remove event → refused, ready=udev"),
                "≤ 0.3",
                &udev.refused,
                base,
            );
            for (ready, measured) in [("kernel", &kernel), ("udev", &udev)] {
                let name = format!("{device}: CPU of plug and unplug, ready={ready}");
                row(&name, "≤ 0.45", &measured.cpu, None);
            }
        }
    }
    for (device, make) in KINDS {
        let alone = rounds(machine, &make(machine), "kernel", Speaker::Kernel, false);
        row(
            &format!("{device}, no udevd: kernel's event → opens"),
            "≤ 0.2",
            &alone.opens,
            None,
        );
        row(
            &format!("{device}, no udevd: kernel's remove event → refused"),
            "≤ 0.3",
            &alone.refused,
            None,
        );
    }
}

type Make = fn(&Machine) -> Plug;

const KINDS: [(&str, Make); 2] = [
    ("character", |_| Plug::Character(Terminal::new())),
    ("block", |machine| Plug::Block(Disk::new(machine))),
];

impl Plug {
    fn node(&self) -> String {
        match self {
            Self::Character(terminal) => terminal.node(),
            Self::Block(disk) => disk.partition(1),
        }
    }

    fn kind(&self) -> char {
        match self {
            Self::Character(_) => 'c',
            Self::Block(_) => 'b',
        }
    }

    fn plug(&self) {
        match self {
            Self::Character(terminal) => terminal.plug(),
            Self::Block(disk) => disk.plug(1),
        };
    }

    fn unplug(&self) {
        match self {
            Self::Character(terminal) => terminal.unplug(),
            Self::Block(disk) => disk.unplug(1),
        }
    }
}

fn rounds(machine: &Machine, plug: &Plug, ready: &str, speaker: Speaker, udevd: bool) -> Measured {
    let node = plug.node();
    let request = format!("devnode:{node};ready={ready}");
    let container = Bundle::requesting(machine, &request)
        .capability("CAP_MKNOD")
        .start();
    let mut probe = Probe::enter(&container);
    let uevents = Uevents::listen();
    let mut measured = Measured::default();
    let watcher = container.expect_watcher();
    for _ in 0..ROUNDS {
        let before = cpu(&watcher);
        round(
            plug,
            &container,
            &mut probe,
            &uevents,
            speaker,
            udevd,
            &mut measured,
        );
        measured.cpu.add(cpu(&watcher) - before);
    }
    measured
}

fn round(
    plug: &Plug,
    container: &RuncContainer<'_>,
    probe: &mut Probe,
    uevents: &Uevents,
    speaker: Speaker,
    udevd: bool,
    measured: &mut Measured,
) {
    let node = plug.node();
    let name = node.trim_start_matches("/dev/").to_owned();
    probe.try_to_open(&node);
    let called = now();
    plug.plug();
    let opened = probe.when();
    let kernel = uevents.when(Speaker::Kernel, "add", &name);
    measured.opens_since_call.add_between(called, opened);
    if udevd {
        let by_udevd = uevents.when(Speaker::Udevd, "add", &name);
        measured.udevd_alone.add_between(kernel, by_udevd);
        measured.opens.add_between(
            if speaker == Speaker::Udevd {
                by_udevd
            } else {
                kernel
            },
            opened,
        );
    } else {
        measured.opens.add_between(kernel, opened);
    }
    // The container's own node stays when ours is removed: the device cgroup refuses it.
    container.inside("rm -f /nodes/own");
    let own = container.make_node("own", plug.kind(), number_of(&node));
    probe.wait_for_refusal(&own);
    plug.unplug();
    let refused = probe.when();
    measured
        .refused
        .add_between(uevents.when(Speaker::Kernel, "remove", &name), refused);
    if udevd {
        uevents.when(Speaker::Udevd, "remove", &name);
    }
    container.eventually_lacks(&node);
}
