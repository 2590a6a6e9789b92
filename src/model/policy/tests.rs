//! The policy on recorded devices: every line of the table, every kind of rule, and properties that
//! hold for all rules.

mod disks;
mod inputs;
mod properties;
mod protected_devices;
mod rules;
mod static_nodes;
mod unknown_facts;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::model::device::recorded::{
    before_udev, camera_with_button, companion_hub, composite_device, debug_probe, disk_with_partitions,
    dualsense, dualshock3, headset, hub_with_two_adapters, joystick, loop_over, mapped, security_key,
    virtual_device, with_node, xbox_elite, xbox_series,
};
use crate::model::device::{Access, DevKind, DevNode, DevNum, STATIC_NODE, UdevState};
use crate::model::policy::rule::RuleDefinition;
use crate::model::request::entry::Origin;

/// A host with many kinds of devices.
fn host() -> Vec<Device> {
    let mut devices = hub_with_two_adapters();
    devices.extend(companion_hub());
    for more in [
        composite_device(),
        joystick(),
        disk_with_partitions(),
        dualshock3(),
        dualsense(),
        xbox_series(),
        xbox_elite(),
        camera_with_button(),
        headset(),
        security_key(),
        debug_probe(),
    ] {
        devices.extend(more);
    }
    devices.extend(
        [
            ("mem", "mem", "/dev/mem", 1, 1),
            ("mem", "kmem", "/dev/kmem", 1, 2),
            ("mem", "port", "/dev/port", 1, 4),
            ("mem", "kmsg", "/dev/kmsg", 1, 11),
            ("mem", "null", "/dev/null", 1, 3),
            ("msr", "msr0", "/dev/cpu/0/msr", 202, 0),
            ("tty", "console", "/dev/console", 5, 1),
            ("tty", "tty0", "/dev/tty0", 4, 0),
            ("tty", "tty63", "/dev/tty63", 4, 63),
            ("vc", "vcs1", "/dev/vcs1", 7, 1),
            ("vc", "vcsa1", "/dev/vcsa1", 7, 129),
            ("input", "mice", "/dev/input/mice", 13, 63),
            ("misc", "kvm", "/dev/kvm", 10, 232),
            ("misc", "vhost-net", "/dev/vhost-net", 10, 238),
            ("misc", "vfio", "/dev/vfio/vfio", 10, 196),
            ("vfio", "12", "/dev/vfio/12", 240, 0),
            ("misc", "loop-control", "/dev/loop-control", 10, 237),
            ("misc", "device-mapper", "/dev/mapper/control", 10, 236),
            ("misc", "fuse", "/dev/fuse", 10, 229),
            ("misc", "uinput", "/dev/uinput", 10, 223),
            ("misc", "uhid", "/dev/uhid", 10, 239),
            ("rtc", "rtc0", "/dev/rtc0", 250, 0),
            ("watchdog", "watchdog0", "/dev/watchdog0", 249, 0),
            ("misc", "watchdog", "/dev/watchdog", 10, 130),
            ("tpm", "tpm0", "/dev/tpm0", 10, 224),
            ("tpmrm", "tpmrm0", "/dev/tpmrm0", 253, 65536),
            ("usbmon", "usbmon1", "/dev/usbmon1", 248, 1),
            ("tty", "ttyS0", "/dev/ttyS0", 4, 64),
        ]
        .map(|(subsystem, name, node, major, minor)| virtual_device(subsystem, name, node, major, minor)),
    );
    devices
}

/// Devices and their inventory.
struct Host {
    devices: Vec<Device>,
    inventory: Inventory,
}

impl Host {
    fn new(devices: Vec<Device>) -> Self {
        let inventory = Inventory::new(devices.clone());
        Self { devices, inventory }
    }

    /// A container without annotations on this host; the host uses the disks of [`root_on_sda2`].
    fn setup(&self) -> Setup<'_> {
        Setup {
            host: self,
            traits: ContainerTraits::default(),
            host_use: root_on_sda2(),
        }
    }
}

/// What a verdict depends on, besides the policy, the request and the device.
struct Setup<'a> {
    host: &'a Host,
    traits: ContainerTraits,
    host_use: HostUse,
}

impl Setup<'_> {
    fn in_container(self, traits: &ContainerTraits) -> Self {
        Self {
            traits: traits.clone(),
            ..self
        }
    }

    fn using(self, host_use: HostUse) -> Self {
        Self { host_use, ..self }
    }

    fn judge<'p>(&self, policy: &'p Policy, entry: &RequestEntry, device: &Device) -> Verdict<'p> {
        let context = PolicyContext {
            traits: &self.traits,
            inventory: &self.host.inventory,
            host_use: &self.host_use,
        };
        policy.judge(entry, device, &context)
    }

    /// The verdict on the device with this node.
    fn verdict<'p>(&self, policy: &'p Policy, entry: &RequestEntry, node: &str) -> Verdict<'p> {
        self.judge(policy, entry, with_node(&self.host.devices, node))
    }

    /// The verdict, which must be a denial.
    fn denial(&self, policy: &Policy, entry: &RequestEntry, node: &str) -> Denial {
        match self.verdict(policy, entry, node) {
            Verdict::Denied(denial) => denial,
            verdict => panic!("{node}: {verdict:?}"),
        }
    }

    /// A short form of the verdict; a denial by its rule.
    fn outcome(&self, policy: &Policy, entry: &RequestEntry, node: &str) -> String {
        match self.verdict(policy, entry, node) {
            Verdict::Allowed(_) => "allowed".into(),
            Verdict::Undecided(whose) => format!("waits for {}", whose.name()),
            Verdict::Denied(denial) => denial.rule,
        }
    }
}

/// The devices of [`host`], built once for all tests.
static HOST: LazyLock<Host> = LazyLock::new(|| Host::new(host()));

/// The same before udevd has processed any of them.
static HOST_BEFORE_UDEVD: LazyLock<Host> =
    LazyLock::new(|| Host::new(host().into_iter().map(before_udev).collect()));

/// The host uses the second partition of its SATA disk, and a desktop has mounted the drive of a
/// debug probe.
fn root_on_sda2() -> HostUse {
    let mounted = |point: &str| Use::new(format!("is mounted at {point:?}"), Some("unmount it"));
    HostUse::used([((8, 2), mounted("/")), ((8, 33), mounted("/media/DAPLINK"))])
}

fn rule(list: List, devices: &[&str], change: impl FnOnce(&mut RuleDefinition)) -> Rule {
    let mut definition = RuleDefinition {
        devices: devices.iter().map(|text| text.to_string()).collect(),
        access: None,
        annotations: BTreeMap::new(),
        user_namespace: None,
        privileged: None,
        reason: None,
        applies_to: None,
    };
    change(&mut definition);
    let place = Place {
        list,
        file: "/etc/c.toml".into(),
        line: 7,
    };
    Rule::parse(place, &definition).unwrap()
}

pub(crate) fn allow(devices: &[&str]) -> Rule {
    rule(List::Allow, devices, |_| {})
}

pub(crate) fn deny(devices: &[&str]) -> Rule {
    rule(List::Deny, devices, |_| {})
}

fn policy(fallback: Fallback, allow: Vec<Rule>, deny: Vec<Rule>) -> Policy {
    Policy {
        fallback,
        classes_only: false,
        allow,
        deny,
        written_in: "/etc/c.toml".into(),
        tool_options: String::new(),
        unknown: Vec::new(),
    }
}

fn untrusted(request: &str) -> RequestEntry {
    RequestEntry::new(Origin::Annotation, request.parse().unwrap())
}

/// The outcome for the device at a node of [`HOST`].
fn told_of(policy: &Policy, entry: &RequestEntry, node: &str, of: &ContainerTraits) -> String {
    HOST.setup().in_container(of).outcome(policy, entry, node)
}

/// The same on a host with other devices.
fn told_among(
    policy: &Policy,
    entry: &RequestEntry,
    node: &str,
    of: &ContainerTraits,
    devices: Vec<Device>,
) -> String {
    let host = Host::new(devices);
    host.setup().in_container(of).outcome(policy, entry, node)
}

/// The outcome for an untrusted request of a node of [`HOST`].
fn told(policy: &Policy, node: &str) -> String {
    let entry = untrusted(&format!("devnode:{node}"));
    told_of(policy, &entry, node, &ContainerTraits::default())
}
