//! Virtual block devices: which messages are dropped, and that no request, rule, lease or
//! attachment misses them.

use proptest::prelude::*;

use super::*;
use crate::model::device::recorded::{
    companion_hub, composite_device, debug_probe, disk_with_partitions, hub_with_two_adapters, joystick,
    loop_over, mapped, virtual_device,
};
use crate::model::device::same_data::{self, depends_on_virtual_blocks, is_virtual_block};
use crate::model::policy::tests::{allow, deny};
use crate::model::policy::{
    ContainerTraits, Fallback, HostUse, Policy, PolicyContext, Rule, blocks_that_decide,
};
use crate::model::request::Request;
use crate::model::request::selector::DeviceSelector;

/// What a container that cannot have virtual block devices leaves out.
const UNNEEDED: Unneeded = Unneeded {
    nodeless: true,
    virtual_blocks: true,
};

#[test]
fn messages_about_virtual_block_devices_are_dropped_as_kernel_and_udevd_send_them() {
    for (action, path) in [
        ("add", "/devices/virtual/block/loop0"),
        ("change", "/devices/virtual/block/dm-12"),
        ("remove", "/devices/virtual/block/nbd0/nbd0p1"),
        ("online", "/devices/virtual/block/md127"),
        ("offline", "/devices/virtual/block/zram0"),
        ("move", "/devices/virtual/block/loop0"),
        ("add", "/devices/virtual/blocks/loop0"),
        ("add", "/devices/virtual/blo/ck/loop0"),
        (
            "add",
            "/devices/pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/block/sda",
        ),
        ("add", "/devices/rbd/0/block/rbd0-with-a-longer-name"),
    ] {
        let properties = format!(
            "ACTION={action}\0DEVPATH={path}\0SUBSYSTEM=block\0DEVNAME=x\0DEVTYPE=disk\0MAJOR=7\0MINOR=0\0SEQNUM=9\0"
        );
        let kernel = [format!("{action}@{path}\0").as_bytes(), properties.as_bytes()].concat();
        let header = &udev_message(UeventAction::Add, &device(path, "block"), None, 9)[..HEADER as usize];
        let udev = [header, b"UDEV_DATABASE_VERSION=1\0", properties.as_bytes()].concat();
        let is_virtual = path.starts_with("/devices/virtual/block/") && action != "move";
        // udevd's message of another length of ACTION passes, and the reader drops it.
        let is_usual = matches!(action, "add" | "change" | "remove" | "online");
        for (form, message, is_dropped) in [
            (UeventForm::Kernel, kernel, is_virtual),
            (UeventForm::Udev, udev, is_virtual && is_usual),
        ] {
            let dropped = |unneeded| run(&program(form, unneeded), &message) == 0;
            assert_eq!(dropped(UNNEEDED), is_dropped, "{form:?} {action} {path}");
            let blocks_alone = Unneeded {
                nodeless: false,
                ..UNNEEDED
            };
            assert_eq!(dropped(blocks_alone), is_dropped, "{form:?} {action} {path}");
            assert!(!dropped(NODELESS), "{form:?} {action} {path}");
        }
    }
}

#[test]
fn each_group_is_dropped_alone_and_with_the_other() {
    let interface = device("/devices/virtual/net/veth0", "net");
    let backing = device("/devices/virtual/bdi/7:0", "bdi");
    let disk = device("/devices/virtual/block/loop0", "block");
    let null = device("/devices/virtual/mem/null", "mem");
    for form in FORMS {
        for unneeded in GROUPS {
            for (device, is_unneeded) in [
                (&interface, unneeded.nodeless),
                (&backing, unneeded.nodeless),
                (&disk, unneeded.virtual_blocks),
                (&null, false),
            ] {
                let message = message(form, UeventAction::Change, device);
                let is_dropped = run(&program(form, unneeded), &message) == 0;
                assert_eq!(
                    is_dropped, is_unneeded,
                    "{form:?} {unneeded:?} {}",
                    device.syspath
                );
                let read = ReceivedUevent::parse(form, &message).unwrap();
                assert_eq!(unneeded.includes(&read), is_unneeded, "{form:?} {unneeded:?}");
            }
        }
    }
}

/// Devices that are not virtual block devices: disks and devices of other kinds.
fn host() -> Vec<Device> {
    let mut devices = hub_with_two_adapters();
    for more in [
        companion_hub(),
        composite_device(),
        debug_probe(),
        disk_with_partitions(),
        joystick(),
        vec![virtual_device("mem", "null", "/dev/null", 1, 3)],
    ] {
        devices.extend(more);
    }
    devices
}

/// Some virtual block devices; two lists may have the same device with different facts.
fn any_virtual_blocks() -> impl Strategy<Value = Vec<Device>> {
    let file = || {
        prop::option::of(prop::sample::select(vec![
            "/dev/sdb1",
            "/dev/sda",
            "/dev/loop0",
            "/srv/x",
        ]))
    };
    let slaves = || prop::option::of(prop::sample::select(vec!["sda2", "sdb", "dm-0", "loop0 sdc"]));
    (file(), file(), slaves(), slaves(), any::<bool>()).prop_map(|(loop0, loop1, dm0, dm1, has_link)| {
        let loops = [(0, loop0), (1, loop1)].map(|(number, file)| Some(loop_over(number, file?)));
        let mapped = [(0, dm0), (1, dm1)].map(|(number, slaves)| Some(mapped(number, slaves?)));
        let mut devices: Vec<Device> = loops.into_iter().chain(mapped).flatten().collect();
        for device in &mut devices {
            let alias = format!("/sys/class/block/{}", device.syspath.name());
            device.aliases.insert(alias.into());
            device.links.extend(has_link.then(|| "/dev/ttyUSB7".into()));
            device.tags.extend(has_link.then(|| "lab".into()));
        }
        devices
    })
}

fn any_request() -> impl Strategy<Value = String> {
    let term = prop::sample::select(vec![
        "usb:0403",
        "usb:0781",
        "usb:2341",
        "port:1-2",
        "port:2-1",
        "pci:0000:00:14.0",
        "pci:0000:00:17.0",
        "driver:usb",
        "driver:cdc_acm",
        "subsystem:tty",
        "subsystem:input",
        "subsystem:usb",
        "subsystem:scsi_generic",
        "subsystem:block",
        "glob:/dev/loop*",
        "glob:/dev/ttyUSB*",
        "devnode:/dev/dm-0",
        "regex:dm-[0-9]",
        "syspath:/sys/bus/usb/devices/1-2",
        "syspath:/sys/class/block/loop0",
        "tag:lab",
        "property:ID_BUS=usb",
        "attr:loop/backing_file=*",
    ]);
    let others = prop::collection::vec((any::<bool>(), term.clone()), 0..3);
    (0..2_usize, term, others).prop_map(|(parents, first, others)| {
        let others = others
            .into_iter()
            .map(|(negated, term)| format!("&{}{term}", if negated { "!" } else { "" }));
        "parent-of:".repeat(parents) + first + &others.collect::<String>()
    })
}

fn any_rule(of: fn(&[&str]) -> Rule) -> impl Strategy<Value = Rule> {
    let selector = prop::sample::select(vec![
        "subsystem:block",
        "glob:/dev/dm-*",
        "devnode:/dev/loop0",
        "subsystem:tty",
        "usb:0781",
        "tag:lab",
        "driver:usb",
        "pci:0000:00:17.0",
    ]);
    selector.prop_map(move |selector| of(&[selector]))
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let fallback = prop::sample::select(vec![Fallback::Removable, Fallback::Nothing, Fallback::Anything]);
    let rules = (
        prop::collection::vec(any_rule(allow), 0..2),
        prop::collection::vec(any_rule(deny), 0..2),
    );
    (fallback, rules).prop_map(|(fallback, (allow, deny))| Policy {
        fallback,
        allow,
        deny,
        ..Policy::default()
    })
}

/// The events that a watcher with this request leaves out, before it knows any device.
fn unneeded(request: &Request) -> Unneeded {
    FactsNeeded {
        no_virtual_blocks: !request.selectors().any(DeviceSelector::can_select_virtual_block),
        ..FactsNeeded::of([request], &[])
    }
    .unneeded_events()
}

/// What a watcher knows of the selected devices: which they are, the verdicts, and the bytes that
/// decide about leases.
fn known(entry: &RequestEntry, policy: &Policy, inventory: &Inventory) -> [Vec<String>; 2] {
    let mut planner = Planner::new(vec![entry.clone()], Vec::new(), ProcessUser::default());
    planner.find_roots(inventory);
    let traits = ContainerTraits::default();
    let host_use = HostUse::of([(8, 2), (8, 17), (7, 0)]);
    let context = PolicyContext {
        traits: &traits,
        inventory,
        host_use: &host_use,
    };
    let candidates = planner.candidates(inventory);
    let selected = candidates.iter().map(|candidate| {
        let device = candidate.device;
        let depends = depends_on_virtual_blocks(device, inventory);
        format!(
            "{} {} {:?} {depends}",
            candidate.root, device.syspath, candidate.undecided
        )
    });
    let independent = candidates
        .iter()
        .map(|candidate| candidate.device)
        .filter(|device| !depends_on_virtual_blocks(device, inventory));
    let decided = independent.map(|device| {
        let verdict = policy.judge(entry, device, &context);
        let bytes = same_data::extents(device, inventory);
        let exposed = same_data::exposed(device, inventory);
        let deciding = blocks_that_decide(device, inventory);
        format!(
            "{} {verdict:?} {bytes:?} {exposed:?} {deciding:?}",
            device.syspath
        )
    });
    [selected.collect(), decided.collect()]
}

#[test]
fn only_selectors_that_cannot_match_a_virtual_block_device_leave_them_out() {
    for (request, leaves_out) in [
        ("usb:0403:6001:A", true),
        ("port:1-1&!devnode:/dev/loop0", true),
        ("pci:0000:00:17.0", true),
        ("driver:ftdi_sio", true),
        ("subsystem:tty", true),
        ("subsystem:tty&glob:/dev/loop*", true),
        ("parent-of:subsystem:tty", true),
        ("syspath:/sys/bus/usb/devices/1-1", true),
        ("syspath:/sys/class/tty/ttyUSB0", true),
        ("subsystem:block", false),
        ("devnode:/dev/ttyUSB0", false),
        ("glob:/dev/ttyUSB*", false),
        ("regex:ttyUSB.*", false),
        ("node:/dev/loop0", false),
        ("tag:seat", false),
        ("property:ID_BUS=usb", false),
        ("attr:loop/backing_file=*", false),
        ("syspath:/sys/class/block/loop0", false),
        ("syspath:/sys/block/loop0", false),
        ("syspath:/sys/dev/block/7:0", false),
        ("syspath:/sys/devices/virtual/block/loop0", false),
        ("syspath:/sys/bus/usb/devices/1-1/../x", false),
    ] {
        let unneeded = unneeded(&request.parse().unwrap());
        assert_eq!(unneeded.virtual_blocks, leaves_out, "{request}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    /// The one property that makes dropping safe. `before` are the virtual block devices that a
    /// watcher has read at its start, `now` those of the host, and it has received what the filter
    /// passes. When a selected device depends on them, it reads all devices again
    /// (`World::read_virtual_blocks`); until then it must decide as if it knew them.
    #[test]
    fn a_dropped_message_cannot_affect_a_request_a_rule_or_an_attachment(
        before in any_virtual_blocks(),
        now in any_virtual_blocks(),
        request in any_request(),
        policy in any_policy(),
        action in prop::sample::select(vec![UeventAction::Add, UeventAction::Change, UeventAction::Remove]),
    ) {
        let entry = RequestEntry::new(Origin::Annotation, request.parse().unwrap());
        let unneeded = unneeded(&entry.request);
        let is_dropped = |device: &Device| FORMS.iter().any(|form| {
            run(&program(*form, unneeded), &message(*form, action, device)) == 0
        });
        for device in host().iter().filter(|device| device.node.is_some()) {
            prop_assert!(!is_dropped(device), "{}", device.syspath);
        }
        let is_missed = |device: &&Device| is_dropped(device);
        prop_assert!(now.iter().filter(is_missed).all(|device| is_virtual_block(&device.syspath)));
        let received = now.iter().filter(|device| !is_dropped(device));
        let stale = before.iter().filter(is_missed);
        let as_known = Inventory::new(host().into_iter().chain(stale.chain(received).cloned()));
        let as_is = Inventory::new(host().into_iter().chain(now.iter().cloned()));
        prop_assert_eq!(known(&entry, &policy, &as_known), known(&entry, &policy, &as_is));
    }
}
