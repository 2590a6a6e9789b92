//! The devices that untrusted requests get only by an allow rule or not at all, with the reasons:
//! one table for code and documentation.
//!
//! `packaging/policy.md` shows the same lines; a test compares the two.

mod seat;

use std::path::Path;

use seat::is_at_the_seat;

use super::subject::{Subject, is_usb_device, usb_classes};
use crate::model::device::same_data;
use crate::model::device::{DevKind, Device};
use crate::model::request::selector::Match;

/// The name of the line for hubs.
pub(crate) const USB_HUB: &str = "usb-hub";

/// The name of the line for the USB nodes of devices with a disk that the host uses.
pub(crate) const HOST_DISK_USB: &str = "host-disk-usb";

/// The name of the line for disks that the host uses.
const HOST_DISK: &str = "host-disk";

/// One line of the table.
pub struct Line {
    /// The name in messages.
    pub name: &'static str,
    /// The protected devices, in words.
    pub devices: &'static str,
    pub reason: &'static str,
    /// Whether no allow rule can lift the line: only trusted requests get such a device.
    pub always: bool,
    /// Names of the kernel: subsystem, and patterns of names with `*` for any rest and `#` for
    /// digits.
    names: &'static [(&'static str, &'static [&'static str])],
    /// Character device numbers that are the same on every host
    /// (Documentation/admin-guide/devices.txt): major, first and last minor.
    numbers: &'static [(u32, u32, u32)],
    /// Nodes below /dev, as patterns.
    nodes: &'static [&'static str],
    /// A check for devices that names and numbers do not show.
    more: Option<fn(&Subject<'_>) -> Match>,
}

/// All lines. Lines that no rule lifts are first, because the first line that protects a device
/// counts.
pub static LINES: [Line; 13] = [
    Line {
        name: HOST_DISK,
        devices: "disks that hold a mounted file system, swap or a part of another device of the host, with all their partitions and control nodes",
        reason: "writing to them gives control of the host, and reading them reveals its secrets",
        always: true,
        names: &[],
        numbers: &[],
        nodes: &[],
        more: Some(is_used_by_the_host),
    },
    Line {
        name: "memory",
        devices: "mem, kmem, port, kmsg, core memory and model-specific registers",
        reason: "they give access to the host's memory, I/O ports and kernel log",
        always: true,
        names: &[
            ("mem", &["mem", "kmem", "port", "core", "oldmem", "kmsg"]),
            ("msr", &["*"]),
            ("misc", &["nvram", "mcelog", "snapshot"]),
        ],
        numbers: &[
            (1, 1, 2),
            (1, 4, 4),
            (1, 6, 6),
            (1, 11, 12),
            (10, 144, 144),
            (10, 231, 231),
            (202, 0, 4095),
        ],
        nodes: &[
            "mem",
            "kmem",
            "port",
            "core",
            "oldmem",
            "kmsg",
            "nvram",
            "mcelog",
            "snapshot",
            "cpu/#/msr",
        ],
        more: None,
    },
    Line {
        name: HOST_DISK_USB,
        devices: "the USB nodes of devices with a disk that the host uses",
        reason: "the USB node gives access to the disk",
        always: false,
        names: &[],
        numbers: &[],
        nodes: &[],
        more: Some(has_a_disk_of_the_host),
    },
    Line {
        name: "console",
        devices: "consoles, virtual terminals and their screens",
        reason: "they carry the host's keyboard input and screen output",
        always: false,
        names: &[("tty", &["console", "tty", "tty#", "ptmx"]), ("vc", &["*"])],
        numbers: &[(4, 0, 63), (5, 0, 2), (7, 0, 255)],
        nodes: &["console", "tty", "tty#", "vcs*"],
        more: None,
    },
    Line {
        name: "seat-input",
        devices: "keyboards, keypads, mice, touchpads, touch screens and tablets, by event, hidraw and USB node",
        reason: "reading them reveals passwords, and writing to them types on the host",
        always: false,
        names: &[("input", &["mice"])],
        numbers: &[(13, 63, 63)],
        nodes: &["input/mice"],
        more: Some(is_at_the_seat),
    },
    Line {
        name: "virtualization",
        devices: "kvm, vhost and vfio",
        reason: "they give access to memory and devices of the host",
        always: false,
        names: &[
            ("misc", &["kvm", "vhost-*", "vfio", "iommu", "sev", "sgx_*"]),
            ("vfio", &["*"]),
            ("vfio-dev", &["*"]),
            ("vhost-vdpa", &["*"]),
        ],
        numbers: &[(10, 196, 196), (10, 232, 232), (10, 238, 238), (10, 241, 241)],
        nodes: &["kvm", "vhost-*", "vfio/*", "iommu"],
        more: None,
    },
    Line {
        name: "block-control",
        devices: "loop-control, the device mapper's and btrfs' control nodes",
        reason: "they create and change block devices of the host",
        always: false,
        names: &[("misc", &["loop-control", "device-mapper", "btrfs-control", "zfs"])],
        numbers: &[(10, 234, 234), (10, 236, 237)],
        nodes: &["loop-control", "mapper/control", "btrfs-control", "zfs"],
        more: None,
    },
    Line {
        name: "fuse",
        devices: "fuse and cuse",
        reason: "they create file systems and devices that the host's kernel trusts",
        always: false,
        names: &[("misc", &["fuse", "cuse", "autofs"])],
        numbers: &[(10, 203, 203), (10, 229, 229), (10, 235, 235)],
        nodes: &["fuse", "cuse", "autofs"],
        more: None,
    },
    Line {
        name: "input-injection",
        devices: "uinput, uhid and userio",
        reason: "they create keyboards that type on the host",
        always: false,
        names: &[("misc", &["uinput", "uhid", "userio"])],
        numbers: &[(10, 223, 223), (10, 239, 240)],
        nodes: &["uinput", "uhid", "userio"],
        more: None,
    },
    Line {
        name: "clock",
        devices: "real-time clocks",
        reason: "the clock is shared by the whole host",
        always: false,
        names: &[("rtc", &["*"]), ("misc", &["rtc", "efirtc"])],
        numbers: &[(10, 135, 136)],
        nodes: &["rtc", "rtc#"],
        more: None,
    },
    Line {
        name: "watchdog",
        devices: "watchdogs",
        reason: "a watchdog that is opened and not fed resets the host",
        always: false,
        names: &[("watchdog", &["*"]), ("misc", &["watchdog"])],
        numbers: &[(10, 130, 130)],
        nodes: &["watchdog", "watchdog#"],
        more: None,
    },
    Line {
        name: "tpm",
        devices: "TPMs",
        reason: "they hold the host's keys",
        always: false,
        names: &[("tpm", &["*"]), ("tpmrm", &["*"]), ("misc", &["tpm#", "vtpmx"])],
        numbers: &[(10, 224, 224)],
        nodes: &["tpm#", "tpmrm#", "vtpmx"],
        more: None,
    },
    Line {
        name: USB_HUB,
        devices: "the USB nodes of hubs and host controllers, and usbmon",
        reason: "they switch, reset and monitor devices that belong to others",
        always: false,
        names: &[("usbmon", &["*"])],
        numbers: &[],
        nodes: &["usbmon#"],
        more: Some(is_hub),
    },
];

impl Line {
    fn finds(&self, subject: &Subject<'_>) -> Match {
        if self.names_it(subject.device()) || subject.own().iter().any(|device| self.numbers_it(device)) {
            return Match::Yes;
        }
        self.more.map_or(Match::No, |more| more(subject))
    }

    fn names_it(&self, device: &Device) -> bool {
        device.node.is_some()
            && self.names.iter().any(|(subsystem, names)| {
                device.subsystem.as_deref() == Some(*subsystem)
                    && names.iter().any(|name| fits(name, device.syspath.name()))
            })
    }

    fn numbers_it(&self, device: &Device) -> bool {
        device.node.as_ref().is_some_and(|node| {
            let num = node.num;
            num.kind == DevKind::Char
                && self
                    .numbers
                    .iter()
                    .any(|(major, first, last)| num.major == *major && (*first..=*last).contains(&num.minor))
        })
    }
}

/// The first line that protects this device, or may protect it. Facts that udevd will not deliver
/// soon count as protecting.
pub(crate) fn find(subject: &Subject<'_>) -> Option<(&'static Line, Match)> {
    let certain = |found| match found {
        Match::Unknown(whose) if !subject.is_awaited(&whose) => Match::Yes,
        found => found,
    };
    LINES
        .iter()
        .map(|line| (line, certain(line.finds(subject))))
        .find(|(_, found)| *found != Match::No)
}

/// Why a line protects a device, and how to change that.
pub(crate) struct Because {
    /// `/dev/sdb1 is mounted at "/media/probe"`.
    pub reason: String,
    /// `unmount it`.
    pub hint: Option<&'static str>,
}

/// Why the line protects this device; `None` if the reason is the device itself.
pub(crate) fn because(line: &Line, subject: &Subject<'_>) -> Option<Because> {
    match line.name {
        HOST_DISK | HOST_DISK_USB => used_by_the_host(subject),
        "seat-input" => {
            let Match::Unknown(whose) = is_at_the_seat(subject) else {
                return None;
            };
            let reason = format!("udevd has not processed {whose}, which counts as protected until then");
            Some(Because { reason, hint: None })
        }
        _ => None,
    }
}

/// The line that protects any node at this path.
pub(crate) fn by_node(path: &Path) -> Option<&'static Line> {
    let name = path.strip_prefix("/dev").ok()?.to_str()?;
    LINES
        .iter()
        .find(|line| line.nodes.iter().any(|pattern| fits(pattern, name)))
}

/// Matches a name; `*` stands for any rest, `#` for one or more digits.
fn fits(pattern: &str, name: &str) -> bool {
    if let Some(start) = pattern.strip_suffix('*') {
        return name.starts_with(start);
    }
    let Some((start, end)) = pattern.split_once('#') else {
        return pattern == name;
    };
    name.strip_prefix(start)
        .and_then(|rest| rest.strip_suffix(end))
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit()))
}

/// Protects a disk's own nodes: they give access to the disk.
fn is_used_by_the_host(subject: &Subject<'_>) -> Match {
    Match::certain(!is_usb_device(subject.device()) && used_by_the_host(subject).is_some())
}

/// Protects the node of a USB device: through it, a process can unbind the disk's driver and access
/// the disk directly.
fn has_a_disk_of_the_host(subject: &Subject<'_>) -> Match {
    Match::certain(is_usb_device(subject.device()) && used_by_the_host(subject).is_some())
}

/// The block device among those that decide which the host uses, and how.
fn used_by_the_host(subject: &Subject<'_>) -> Option<Because> {
    let blocks = subject.blocks();
    let own = subject.own();
    let used = blocks.iter().chain([&own[0]]).find_map(|device| {
        let node = device.node.as_ref()?;
        let use_of = subject.host_use.use_of(node.num)?;
        Some(Because {
            reason: format!("{} {}", node.path.display(), use_of.text),
            hint: use_of.hint,
        })
    });
    // A loop device uses the devices that back it.
    let over = || {
        let loops = same_data::loops_over(&blocks, subject.inventory);
        loops.into_iter().find_map(|(over, device)| {
            let its_own = over.syspath == subject.device().syspath
                || subject
                    .ancestors()
                    .iter()
                    .any(|above| above.syspath == over.syspath);
            (!its_own).then(|| Because {
                reason: format!("{} is over {}", over.syspath.name(), device.syspath.name()),
                hint: Some("detach the loop device (losetup -d)"),
            })
        })
    };
    used.or_else(over)
}

/// A device without readable descriptors may be a hub, so it counts as one.
fn is_hub(subject: &Subject<'_>) -> Match {
    let device = subject.device();
    let hub = || usb_classes(device).is_none_or(|classes| classes.is_hub());
    Match::certain(is_usb_device(device) && device.node.is_some() && hub())
}
