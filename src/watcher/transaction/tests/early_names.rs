//! Nodes that exist before the main node of their device: `path=`, `link=` and symlink rules never
//! name them while the main node can still come.

use super::*;
use crate::model::device::recorded::{self, Probe};

/// The nodes of a device 1209:0001 in the order of the kernel; the main one is last.
type Nodes = &'static [Probe];

const STICK: Nodes = &[
    (
        0,
        "scsi_generic",
        "host7/target7:0:0/7:0:0:0/scsi_generic/sg1",
        "/dev/sg1",
        "",
    ),
    (
        0,
        "bsg",
        "host7/target7:0:0/7:0:0:0/bsg/7:0:0:0",
        "/dev/bsg/7:0:0:0",
        "",
    ),
    (
        0,
        "block",
        "host7/target7:0:0/7:0:0:0/block/sdb",
        "/dev/sdb",
        "disk",
    ),
];

const TUNER: Nodes = &[
    (0, "i2c-dev", "i2c-8/i2c-dev/i2c-8", "/dev/i2c-8", ""),
    (0, "media", "media1", "/dev/media1", ""),
    (0, "dvb", "dvb/dvb0.demux0", "/dev/dvb/adapter0/demux0", ""),
    (0, "dvb", "dvb/dvb0.dvr0", "/dev/dvb/adapter0/dvr0", ""),
    (0, "dvb", "dvb/dvb0.net0", "/dev/dvb/adapter0/net0", ""),
    (0, "dvb", "dvb/dvb0.frontend0", "/dev/dvb/adapter0/frontend0", ""),
];

const CARD: Nodes = &[
    (0, "sound", "sound/card1/pcmC1D0p", "/dev/snd/pcmC1D0p", ""),
    (0, "sound", "sound/card1/midiC1D0", "/dev/snd/midiC1D0", ""),
    (0, "sound", "sound/card1/controlC1", "/dev/snd/controlC1", ""),
];

const PAD: Nodes = &[
    (
        0,
        "hidraw",
        "0003:054C:0CE6.0007/hidraw/hidraw5",
        "/dev/hidraw5",
        "",
    ),
    (
        0,
        "input",
        "0003:054C:0CE6.0007/input/input43/js0",
        "/dev/input/js0",
        "",
    ),
    (
        0,
        "input",
        "0003:054C:0CE6.0007/input/input43/event9",
        "/dev/input/event9",
        "",
    ),
];

const NVME: Nodes = &[
    (0, "nvme", "nvme/nvme2", "/dev/nvme2", ""),
    (0, "block", "nvme/nvme2/nvme2n1", "/dev/nvme2n1", "disk"),
];

const ADAPTER: Nodes = &[
    (0, "gpio", "gpiochip3", "/dev/gpiochip3", ""),
    (0, "tty", "ttyUSB4/tty/ttyUSB4", "/dev/ttyUSB4", ""),
];

const DEVICES: [Nodes; 6] = [STICK, TUNER, CARD, PAD, NVME, ADAPTER];

/// The nodes of a device in this order, and the devices without nodes.
fn device(nodes: Nodes) -> (Vec<Device>, Vec<Device>) {
    let mut rest = recorded::usb_device_with(nodes);
    for hid in rest
        .iter_mut()
        .filter(|device| device.subsystem.as_deref() == Some("hid"))
    {
        hid.attributes
            .insert("report_descriptor".into(), "0001:0005".into());
    }
    let ours = nodes
        .iter()
        .map(|node| recorded::with_node(&rest, node.3).clone())
        .collect();
    let is_ours = |device: &Device| nodes.iter().any(|node| has_path(device, node.3));
    rest.retain(|device| !is_ours(device));
    (ours, rest)
}

fn has_path(device: &Device, path: &str) -> bool {
    let node = device.node.as_ref();
    node.is_some_and(|node| node.path == Path::new(path))
}

/// The host's path of the node that is named in the container.
fn named(scenario: &Scenario) -> Option<String> {
    let board = Path::new("/dev/board");
    let attached = scenario
        .attachments
        .iter()
        .find(|(path, attachment)| *path == board || attachment.links.contains_key(board))?;
    let node = attached.1.device.node.as_ref()?;
    Some(node.path.display().to_string())
}

#[test]
fn the_link_of_a_stick_waits_for_its_disk_and_goes_with_it() {
    let (nodes, rest) = device(STICK);
    for (requests, rules) in [
        ("usb:1209:0001;link=/dev/board", ""),
        ("usb:1209:0001;path=/dev/board", ""),
        ("usb:1209:0001", "usb:1209:0001:00=/dev/board"),
    ] {
        let mut scenario = Scenario::new(requests, rules);
        scenario.plug(&rest);
        scenario.plug(&nodes[..2]);
        assert!(
            scenario.nodes().contains(&"/dev/sg1".to_owned()),
            "it keeps the host's path"
        );
        assert_eq!(named(&scenario), None, "{requests} {rules}");
        scenario.plug(&nodes[2..]);
        assert_eq!(named(&scenario).as_deref(), Some("/dev/sdb"));
        scenario.unplug(&nodes[2..]);
        assert_eq!(named(&scenario), None, "the generic node does not take its place");
        scenario.plug(&nodes[2..]);
        assert_eq!(named(&scenario).as_deref(), Some("/dev/sdb"));
        scenario.unplug(&nodes);
        assert_eq!(named(&scenario), None);
    }
}

#[test]
fn a_directory_has_the_early_nodes_at_once() {
    let (nodes, rest) = device(STICK);
    let mut scenario = Scenario::new("usb:1209:0001;path=/dev/own/", "");
    scenario.plug(&rest);
    scenario.plug(&nodes[..1]);
    assert!(
        scenario.nodes().contains(&"/dev/own/sg0".to_owned()),
        "{:?}",
        scenario.nodes()
    );
}

proptest! {
    #[test]
    fn a_name_never_leads_to_another_node_than_the_main_one(
        which in 0..DEVICES.len(),
        order in Just((0..8).collect::<Vec<usize>>()).prop_shuffle(),
        way in prop::sample::select(&[
            ("usb:1209:0001;link=/dev/board", ""),
            ("usb:1209:0001;path=/dev/board", ""),
            ("usb:1209:0001", "usb:1209:0001:00=/dev/board"),
        ][..]),
    ) {
        let (nodes, rest) = device(DEVICES[which]);
        let main = DEVICES[which].last().map(|node| node.3.to_owned());
        let mut scenario = Scenario::new(way.0, way.1);
        scenario.plug(&rest);
        let order: Vec<usize> = order.into_iter().filter(|index| *index < nodes.len()).collect();
        let expected = |scenario: &Scenario| {
            let exists = |main: &&Device| scenario.inventory.get(&main.syspath).is_some();
            nodes.last().filter(exists).and(main.clone())
        };
        for index in &order {
            scenario.plug(&[nodes[*index].clone()]);
            prop_assert_eq!(named(&scenario), expected(&scenario));
        }
        prop_assert!(named(&scenario).is_some());
        for index in &order {
            scenario.unplug(&[nodes[*index].clone()]);
            prop_assert_eq!(named(&scenario), expected(&scenario));
        }
    }
}
