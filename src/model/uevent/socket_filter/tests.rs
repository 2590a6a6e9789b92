//! The filters in an interpreter: what they drop, and that no request, rule or link misses it.

mod virtual_blocks;

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::model::device::inventory::Inventory;
use crate::model::device::{DevKind, DevNode, DevNum, Device, SysPath};
use crate::model::oci::ProcessUser;
use crate::model::plan::Planner;
use crate::model::request::entry::{Origin, RequestEntry};
use crate::model::request::facts_needed::FactsNeeded;
use crate::model::uevent::nodeless::is_nodeless;
use crate::model::uevent::received::ReceivedUevent;
use crate::model::uevent::{UeventAction, kernel_message, udev_message};

const FORMS: [UeventForm; 2] = [UeventForm::Kernel, UeventForm::Udev];

/// Only devices without a node are dropped.
const NODELESS: Unneeded = Unneeded {
    nodeless: true,
    virtual_blocks: false,
};

/// All that can be dropped together.
const GROUPS: [Unneeded; 3] = [
    NODELESS,
    Unneeded {
        nodeless: true,
        virtual_blocks: true,
    },
    Unneeded {
        nodeless: false,
        virtual_blocks: true,
    },
];

/// What the kernel does with a message: the number of bytes that the program lets pass. A load
/// beyond the end lets nothing pass, as in the kernel.
fn run(program: &[Instruction], message: &[u8]) -> u32 {
    let (mut a, mut x, mut at) = (0_u32, 0_usize, 0);
    let load = |from: usize, size: usize| {
        let bytes = message.get(from..from + size)?;
        Some(bytes.iter().fold(0, |word, byte| word << 8 | u32::from(*byte)))
    };
    loop {
        let instruction = program[at];
        let operand = instruction.operand;
        let offset = operand as usize;
        let loaded = match instruction.code {
            code::LOAD_WORD => load(offset, 4),
            code::LOAD_BYTE => load(offset, 1),
            code::LOAD_WORD_AFTER_X => load(x + offset, 4),
            code::LOAD_BYTE_AFTER_X => load(x + offset, 1),
            code::LOAD_LENGTH => Some(message.len() as u32),
            _ => Some(a),
        };
        match loaded {
            Some(value) => a = value,
            None => return 0,
        }
        at += 1 + match instruction.code {
            code::SET_X => {
                x = offset;
                0
            }
            code::JUMP => offset,
            code::JUMP_IF_EQUAL if a == operand => usize::from(instruction.jump_true),
            code::JUMP_IF_GREATER_OR_EQUAL if a >= operand => usize::from(instruction.jump_true),
            code::JUMP_IF_EQUAL | code::JUMP_IF_GREATER_OR_EQUAL => usize::from(instruction.jump_false),
            code::RETURN => return operand,
            _ => 0,
        };
    }
}

fn is_dropped(form: UeventForm, message: &[u8]) -> bool {
    run(&program(form, NODELESS), message) == 0
}

fn device(place: &str, subsystem: &str) -> Device {
    let mut device = Device::new(SysPath::new(format!("/sys{place}")));
    device.subsystem = Some(subsystem.to_owned());
    if subsystem == "net" {
        for (key, value) in [("IFINDEX", "2"), ("INTERFACE", device.syspath.name())] {
            device.properties.insert(key.to_owned(), value.to_owned());
        }
    }
    device
}

fn message(form: UeventForm, action: UeventAction, device: &Device) -> Vec<u8> {
    match form {
        UeventForm::Kernel => kernel_message(action, device, None, Some(7)),
        UeventForm::Udev => udev_message(action, device, None, 7),
    }
}

/// Which forms of an `add` of this device are dropped.
fn dropped(place: &str, subsystem: &str) -> Vec<UeventForm> {
    let device = device(place, subsystem);
    let is_dropped = |form: &UeventForm| is_dropped(*form, &message(*form, UeventAction::Add, &device));
    FORMS.into_iter().filter(is_dropped).collect()
}

#[test]
fn every_jump_ends_in_the_program() {
    for (form, unneeded) in FORMS
        .into_iter()
        .flat_map(|form| GROUPS.map(|unneeded| (form, unneeded)))
    {
        let program = program(form, unneeded);
        assert!(program.len() <= 255, "{} instructions", program.len());
        for (at, instruction) in program.iter().enumerate() {
            let skip = instruction.jump_true.max(instruction.jump_false);
            assert!(at + 1 + usize::from(skip) < program.len() || instruction.code == code::RETURN);
        }
    }
}

#[test]
fn interfaces_their_queues_and_backing_devices_are_dropped_in_both_forms() {
    for (place, subsystem) in [
        ("/devices/virtual/net/veth1a2b3c4", "net"),
        ("/devices/virtual/net/a", "net"),
        ("/devices/virtual/net/fifteen-letters", "net"),
        ("/devices/virtual/net/veth0/queues/rx-0", "queues"),
        ("/devices/virtual/net/fifteen-letters/queues/tx-12", "queues"),
        ("/devices/virtual/bdi/7:0", "bdi"),
    ] {
        assert_eq!(dropped(place, subsystem), FORMS, "{place}");
        for action in [UeventAction::Remove, UeventAction::Change] {
            let of = device(place, subsystem);
            for form in FORMS {
                assert!(is_dropped(form, &message(form, action, &of)), "{form:?} {place}");
            }
        }
    }
}

#[test]
fn interfaces_of_hardware_pass_in_both_forms() {
    for place in [
        "/devices/pci0000:00/0000:00:14.0/usb1/1-1/1-1:1.0/net/eth1",
        "/devices/virtual/netx/eth1",
        "/devices/virtua1/net/eth1",
    ] {
        assert_eq!(dropped(place, "net"), [], "{place}");
    }
}

#[test]
fn events_of_virtual_interfaces_are_dropped_as_udevd_sends_them() {
    let udev = |action: &str, place: &str, prefix: &str| {
        let of = device(place, "net");
        let header = &udev_message(UeventAction::Add, &of, None, 7)[..HEADER as usize];
        let body = format!(
            "{prefix}ACTION={action}\0DEVPATH={place}\0SUBSYSTEM=net\0SEQNUM=7\0ID_NET_DRIVER=veth\0"
        );
        [header, body.as_bytes()].concat()
    };
    for prefix in ["", "UDEV_DATABASE_VERSION=1\0"] {
        for (action, place, is_dropped_here) in [
            ("add", "/devices/virtual/net/a", true),
            ("remove", "/devices/virtual/net/veth1a2b3c4", true),
            ("change", "/devices/virtual/net/veth1a2b3c4", true),
            ("move", "/devices/virtual/net/veth1a2b3c4", false),
            ("add", "/devices/pci0000:00/0000:00:1f.6/net/eth0", false),
            ("remove", "/devices/pci0000:00/0000:00:1f.6/net/eth0", false),
            ("add", "/devices/virtual/nets/veth1a2b3c4", false),
            ("add", "/devices/abctual/net/veth1a2b3c4", false),
            ("change", "/devices/abctual/net/veth1a2b3c4", false),
            ("add", "/platform/virtual/net/veth1a2b3c4", false),
            ("change", "/platform/virtual/net/veth1a2b3c4", false),
        ] {
            let message = udev(action, place, prefix);
            let dropped = is_dropped(UeventForm::Udev, &message);
            assert_eq!(dropped, is_dropped_here, "{prefix}{action} {place}");
        }
    }
    let elsewhere = udev("add", "/devices/virtual/net/a", "A_PROPERTY_BEFORE=1\0");
    assert!(!is_dropped(UeventForm::Udev, &elsewhere), "the reader drops it");
    let whole = udev("add", "/devices/virtual/net/a", "");
    let cut = &whole[..HEADER as usize + "ACTION=add\0DEVPATH=/d".len()];
    assert!(!is_dropped(UeventForm::Udev, cut), "the reader drops it");
}

#[test]
fn devices_with_nodes_pass_also_below_an_interface() {
    for (place, subsystem) in [
        ("/devices/virtual/net/macvtap0/tap5", "macvtap"),
        ("/devices/virtual/net/macvtap0/macvtap/tap5", "macvtap"),
        ("/devices/virtual/netx/a", "x"),
        ("/devices/virtual/block/loop0", "block"),
        ("/devices/virtual/bdix", "x"),
        ("/devices/virtua1/net/a", "x"),
        ("/devices/platform/serial8250/tty/ttyS0", "tty"),
    ] {
        assert_eq!(dropped(place, subsystem), [], "{place}");
    }
}

#[test]
fn a_move_of_an_interface_passes_as_it_moves_what_is_below() {
    let text = b"ACTION=move\0DEVPATH=/devices/virtual/net/b\0SUBSYSTEM=net\0\
        DEVPATH_OLD=/devices/virtual/net/a\0SEQNUM=7\0";
    let kernel = [&b"move@/devices/virtual/net/b\0"[..], text].concat();
    assert!(!is_dropped(UeventForm::Kernel, &kernel));
    let message = ReceivedUevent::parse(UeventForm::Kernel, &kernel).unwrap();
    assert!(!is_nodeless(&message));
}

#[test]
fn messages_about_modules_drivers_and_caches_are_dropped() {
    for (place, subsystem) in [
        ("/module/loop", "module"),
        ("/bus/usb/drivers/cp210x", "drivers"),
        ("/kernel/slab/:0000064", "slab"),
        ("/devicesx", "x"),
    ] {
        assert_eq!(dropped(place, subsystem), [UeventForm::Kernel], "{place}");
    }
}

#[test]
fn no_hash_of_a_subsystem_with_nodes_is_that_of_one_without() {
    let hashes = SUBSYSTEMS.map(|name| murmur2(name.as_bytes()));
    for with_nodes in [
        "accel",
        "block",
        "bsg",
        "char",
        "dma_heap",
        "drm",
        "dvb",
        "fpga",
        "gpio",
        "graphics",
        "hidraw",
        "hpet",
        "i2c-dev",
        "iio",
        "infiniband_verbs",
        "input",
        "ipmi",
        "lirc",
        "macvtap",
        "mei",
        "mem",
        "media",
        "misc",
        "mtd",
        "nvme",
        "nvme-generic",
        "pci",
        "ppp",
        "pps",
        "ptp",
        "rpmsg",
        "rtc",
        "scsi_generic",
        "scsi_tape",
        "serio",
        "sound",
        "spidev",
        "tpm",
        "tpmrm",
        "tty",
        "ubi",
        "ucsi",
        "usb",
        "usbmisc",
        "usbmon",
        "vc",
        "vfio",
        "vfio-dev",
        "video4linux",
        "virtio-ports",
        "vtconsole",
        "watchdog",
        "wwan",
        "zram-control",
    ] {
        assert!(!hashes.contains(&murmur2(with_nodes.as_bytes())), "{with_nodes}");
    }
}

/// The devices that a request and its rules for links select, with everything that decided.
fn selected(request: &str, devices: &[Device]) -> Vec<String> {
    let inventory = Inventory::new(devices.to_vec());
    let entry = RequestEntry::new(Origin::Annotation, request.parse().unwrap());
    let mut planner = Planner::new(vec![entry], Vec::new(), ProcessUser::default());
    planner.find_roots(&inventory);
    let candidates = planner.candidates(&inventory);
    candidates
        .iter()
        .map(|candidate| {
            format!(
                "{} {} {:?}",
                candidate.root, candidate.device.syspath, candidate.undecided
            )
        })
        .collect()
}

fn any_device() -> impl Strategy<Value = Device> {
    let place = prop::sample::select(vec![
        ("/devices/virtual/net/veth0", "net"),
        ("/devices/virtual/net/veth0/queues/rx-0", "queues"),
        ("/devices/virtual/net/macvtap0", "net"),
        ("/devices/virtual/net/macvtap0/tap5", "macvtap"),
        ("/devices/pci0/usb1/1-1", "usb"),
        ("/devices/pci0/usb1/1-1/1-1:1.0/net/eth1", "net"),
        ("/devices/pci0/usb1/1-1/1-1:1.0/ttyUSB0/tty/ttyUSB0", "tty"),
        ("/devices/virtual/block/loop0", "block"),
        ("/devices/virtual/bdi/7:0", "bdi"),
        ("/devices/virtual/mem/null", "mem"),
        ("/module/loop", "module"),
    ]);
    let value = prop::sample::select(vec!["x", "y"]);
    (place, value, any::<bool>(), 0..64_u32).prop_map(|((place, subsystem), value, is_tagged, minor)| {
        let mut device = device(place, subsystem);
        device.properties.insert("ID_X".into(), value.into());
        device.attributes.insert("address".into(), value.into());
        device.tags.extend(is_tagged.then(|| "seat".to_owned()));
        let has_node = matches!(subsystem, "macvtap" | "usb" | "tty" | "block" | "mem");
        device.node = has_node.then(|| DevNode {
            path: format!("/dev/{}", device.syspath.name()).into(),
            num: DevNum {
                kind: if subsystem == "block" {
                    DevKind::Block
                } else {
                    DevKind::Char
                },
                major: 240,
                minor,
            },
        });
        device
    })
}

fn any_request() -> impl Strategy<Value = String> {
    let term = prop::sample::select(vec![
        "subsystem:net",
        "subsystem:macvtap",
        "subsystem:tty",
        "subsystem:block",
        "subsystem:bdi",
        "syspath:/sys/devices/virtual/net/macvtap0",
        "syspath:/sys/devices/pci0/usb1/1-1",
        "tag:seat",
        "property:ID_X=x",
        "attr:address=x",
        "port:1-1",
        "glob:/dev/t*",
        "devnode:/dev/tap5",
        "driver:x",
    ]);
    let terms = (
        term.clone(),
        prop::collection::vec((any::<bool>(), term.clone()), 0..3),
    );
    let only = prop::option::of(term);
    (0..2_usize, terms, only).prop_map(|(parents, (first, others), only)| {
        let mut text = "parent-of:".repeat(parents) + first;
        for (is_negated, term) in others {
            text += if is_negated { "&!" } else { "&" };
            text += term;
        }
        text + &only.map_or_else(String::new, |only| format!(";only={only}"))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_dropped_message_cannot_affect_a_request(
        devices in prop::collection::vec(any_device(), 1..8),
        request in any_request(),
        action in prop::sample::select(vec![UeventAction::Add, UeventAction::Change, UeventAction::Remove]),
    ) {
        let needed = FactsNeeded::of([&request.parse().unwrap()], &[]);
        if needed.nodeless_events {
            // Then there is no filter.
            return Ok(());
        }
        let mut seen = BTreeSet::new();
        let all: Vec<Device> = devices.into_iter().filter(|one| seen.insert(one.syspath.clone())).collect();
        let is_missed = |device: &&Device| {
            FORMS.iter().any(|form| is_dropped(*form, &message(*form, action, device)))
        };
        let known: Vec<Device> = all.iter().filter(|device| !is_missed(device)).cloned().collect();
        prop_assert!(all.iter().filter(is_missed).all(|device| device.node.is_none()));
        prop_assert_eq!(selected(&request, &all), selected(&request, &known));
    }

    #[test]
    fn what_the_kernel_drops_the_reader_would_drop(
        device in any_device(),
        action in prop::sample::select(vec![UeventAction::Add, UeventAction::Change, UeventAction::Remove]),
    ) {
        for form in FORMS {
            let message = message(form, action, &device);
            let read = ReceivedUevent::parse(form, &message).unwrap();
            let is_device = device.syspath.as_str().starts_with("/sys/devices/");
            for unneeded in GROUPS {
                let is_dropped = run(&program(form, unneeded), &message) == 0;
                prop_assert!(!is_dropped || !is_device || unneeded.includes(&read));
            }
        }
    }

    #[test]
    fn any_bytes_end_the_program(message in prop::collection::vec(any::<u8>(), 0..128)) {
        for form in FORMS {
            for unneeded in GROUPS {
                run(&program(form, unneeded), &message);
                for begin in [&b"offline@/devices/virtual/net/"[..], b"add@/devices/virtual/block/"] {
                    run(&program(form, unneeded), &[begin, &message].concat());
                }
            }
        }
    }
}
