//! Properties of the names of all devices.

use proptest::prelude::*;

use super::*;
use crate::model::plan::node_names::host_name::letters;

const UNIT: &str = "/sys/devices/usb1/1-1";

/// A node of a USB device: its interface, the index of its kind, and its number.
type AnyNode = (u8, usize, u64);

/// Subsystem, and the text before and after the number.
const KINDS: [(&str, &str, &str); 12] = [
    ("tty", "/dev/ttyUSB", ""),
    ("sound", "/dev/snd/controlC", ""),
    ("sound", "/dev/snd/pcmC", "D0p"),
    ("sound", "/dev/snd/pcmC", "D1p"),
    ("scsi_tape", "/dev/st", ""),
    ("scsi_tape", "/dev/nst", "l"),
    ("input", "/dev/input/event", ""),
    ("dvb", "/dev/dvb/adapter", "/frontend0"),
    ("dvb", "/dev/dvb/adapter", "/frontend1"),
    ("i2c-dev", "/dev/i2c-", ""),
    ("block", "/dev/nvme", "n1p2"),
    ("block", "/dev/sd", "1"),
];

/// The USB device with these nodes, each with its number on the host. The paths in sysfs name the
/// kinds in a fixed order, and the nodes of a kind in the order of their numbers.
fn unit_with(nodes: &[AnyNode], on_host: impl Fn(u64) -> u64) -> Vec<Device> {
    let nodes = nodes.iter().map(|(interface, kind, number)| {
        let (subsystem, before, after) = KINDS[*kind];
        let number = on_host(*number);
        let written = match before {
            "/dev/sd" => letters(number),
            _ => number.to_string(),
        };
        let node = format!("{before}{written}{after}");
        let path = format!("{UNIT}/1-1:1.{interface}/{kind:02}/{written}/node");
        let mut device = recorded::virtual_device(subsystem, "x", &node, 1, 1);
        device.syspath = SysPath::new(path);
        device
    });
    nodes.collect()
}

fn names_in_order(devices: &[Device], attached: &BTreeMap<&SysPath, &str>) -> Vec<String> {
    let mut unit = Device::new(SysPath::new(UNIT));
    unit.devtype = Some("usb_device".to_owned());
    let inventory = Inventory::new(devices.iter().cloned().chain([unit]));
    let names = names_of(&nodes_of(&SysPath::new(UNIT), &inventory), attached);
    devices
        .iter()
        .map(|device| names[&device.syspath].clone())
        .collect()
}

/// Nodes with different paths on the host.
fn any_nodes() -> impl Strategy<Value = Vec<AnyNode>> {
    let node = (0..3u8, 0..KINDS.len(), 0..30u64);
    prop::collection::vec(node, 1..24).prop_map(|mut nodes| {
        let mut seen = BTreeSet::new();
        nodes.retain(|(_, kind, number)| seen.insert((*kind, *number)));
        nodes
    })
}

proptest! {
    #[test]
    fn two_nodes_of_a_device_never_have_one_name(nodes in any_nodes()) {
        let names = names_in_order(&unit_with(&nodes, |number| number), &BTreeMap::new());
        let distinct: BTreeSet<&String> = names.iter().collect();
        prop_assert_eq!(distinct.len(), names.len(), "{:?}", names);
    }

    #[test]
    fn names_do_not_depend_on_the_numbers_that_the_host_has_given(
        nodes in any_nodes(), first in 0..50u64, step in 1..4u64,
    ) {
        let names = |on_host: &dyn Fn(u64) -> u64| names_in_order(&unit_with(&nodes, on_host), &BTreeMap::new());
        prop_assert_eq!(names(&|number| number), names(&|number| first + step * number));
    }

    #[test]
    fn attached_nodes_keep_their_names_when_others_are_removed(
        nodes in any_nodes(), fates in prop::collection::vec(0..3u8, 24),
    ) {
        let devices = unit_with(&nodes, |number| number);
        let names = names_in_order(&devices, &BTreeMap::new());
        let all = || devices.iter().zip(&names).zip(&fates);
        // 0: gone, 1: present, 2: attached.
        let present: Vec<Device> = all().filter(|(_, fate)| **fate > 0).map(|((device, _), _)| device.clone()).collect();
        let attached: BTreeMap<&SysPath, &str> = all()
            .filter(|(_, fate)| **fate == 2)
            .map(|((device, name), _)| (&device.syspath, name.as_str()))
            .collect();
        let after = names_in_order(&present, &attached);
        for (device, name) in present.iter().zip(&after) {
            if let Some(before) = attached.get(&device.syspath) {
                prop_assert_eq!(name, before);
            }
        }
        let distinct: BTreeSet<&String> = after.iter().collect();
        prop_assert_eq!(distinct.len(), after.len(), "{:?}", after);
    }
}
