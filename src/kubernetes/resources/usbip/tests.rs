use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::kubernetes::config::{self, Texts};
use crate::kubernetes::resources;
use crate::kubernetes::resources::names::Names;
use crate::kubernetes::snapshot::{Exports, is_remote};
use crate::model::device::SysPath;
use crate::model::device::inventory::Inventory;
use crate::model::device::recorded::hub_with_two_adapters;
use crate::model::remote::vhci;
use crate::model::request::class::Classes;

fn definitions(resources: &str) -> Vec<Definition> {
    let texts = Texts {
        usbip: Some(("config.yaml".into(), format!("resources: {resources}"))),
        ..Texts::default()
    };
    config::read(&texts, &Classes::none(Path::new("/nowhere")))
        .unwrap()
        .definitions
}

fn exports(server: &str, devices: &[(&str, u16, u16)]) -> Exports {
    let device = |(busid, vendor, product): &(&str, u16, u16)| {
        let ids = UsbIds {
            vendor: *vendor,
            product: *product,
        };
        (busid.parse().unwrap(), ids)
    };
    [(server.parse().unwrap(), devices.iter().map(device).collect())].into()
}

fn snapshot(exports: Exports) -> Snapshot {
    Snapshot {
        exports,
        ..Snapshot::default()
    }
}

/// A remote device that is attached to this host.
fn attached(name: &str, product: &str) -> Device {
    let mut device = Device::new(SysPath::new(format!("{}0/usb3/{name}", vhci::CONTROLLERS)));
    device.devtype = Some("usb_device".into());
    device.attributes = [("idVendor", "0403"), ("idProduct", product)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
    device
}

/// The units of the resources that result from definitions and snapshot: for each, its device and
/// whether it is attached.
fn offered(definitions: &[Definition], snapshot: &Snapshot) -> Vec<(String, Option<bool>)> {
    let resources = resources::resources(definitions, snapshot, &mut Names::default());
    let units = resources.iter().flat_map(|resource| resource.units.values());
    let mut offered: Vec<_> = units
        .map(|unit| {
            assert!(unit.healthy);
            (unit.place.clone(), unit.attached)
        })
        .collect();
    offered.sort();
    offered
}

fn places(definitions: &[Definition], snapshot: &Snapshot) -> Vec<String> {
    offered(definitions, snapshot)
        .into_iter()
        .map(|(place, _)| place)
        .collect()
}

const TWO_ALIKE_AND_ONE_AT_A_PLACE: &str = "{board: [
    {target: {host: lab}, selector: {vendor: 0x0403, product: 0x6001}},
    {target: {host: lab}, selector: {vendor: 0x0403, product: 0x6001}},
    {target: {host: lab}, selector: {bus_id: 1-1}}]}";

#[test]
fn entries_for_similar_devices_get_one_device_each() {
    let definitions = definitions(TWO_ALIKE_AND_ONE_AT_A_PLACE);
    let listed = |devices: &[(&str, u16, u16)]| places(&definitions, &snapshot(exports("lab", devices)));
    let one = ("1-1", 0x0403, 0x6001);
    assert_eq!(listed(&[]), [""; 0]);
    assert_eq!(listed(&[one]), ["lab/0403:6001"]);
    // The first entry also accepts another device, so the third gets the only one that matches it.
    assert_eq!(
        listed(&[one, ("1-2", 0x0403, 0x6001)]),
        ["lab/0403:6001", "lab/nth:2:0403:6001"]
    );
    assert_eq!(
        listed(&[one, ("1-2", 0x0403, 0x6001), ("1-3", 0x0403, 0x6001)]),
        ["lab/0403:6001", "lab/busid:1-1", "lab/nth:2:0403:6001"]
    );
    assert_eq!(listed(&[("1-1", 1, 1)]), ["lab/busid:1-1"]);
}

#[test]
fn an_absent_key_matches_any_device_of_that_server_only() {
    let definitions = definitions(
        "{a: [{target: {host: lab}}], b: [{target: {host: lab, port: 3241}, selector: {vendor: 0x0403}}],
          c: [{target: {host: shed}, selector: {product: 0x6001, bus_id: 1-2}}]}",
    );
    let mut all = exports("lab", &[("1-1", 1, 2)]);
    all.extend(exports("lab:3241", &[("1-1", 0x0403, 7)]));
    all.extend(exports("shed", &[("1-1", 0x0403, 0x6001), ("1-2", 9, 0x6001)]));
    assert_eq!(
        places(&definitions, &snapshot(all.clone())),
        ["lab/*:*", "lab:3241/0403:*", "shed/busid:1-2:*:6001"]
    );
    all.remove(&"lab".parse().unwrap());
    assert_eq!(
        places(&definitions, &snapshot(all)),
        ["lab:3241/0403:*", "shed/busid:1-2:*:6001"]
    );
}

#[test]
fn an_entry_in_use_is_healthy_whatever_its_server_lists_and_a_released_one_is_as_listed() {
    let definitions =
        definitions("{board: [{target: {host: lab}, selector: {vendor: 0x0403, product: 0x6001}}]}");
    let id = {
        let now = snapshot(exports("lab", &[("1-1", 0x0403, 0x6001)]));
        let resources = resources::resources(&definitions, &now, &mut Names::default());
        resources[0].units.keys().next().unwrap().clone()
    };
    let in_use = |is_certain, devices: Vec<Device>, exports| Snapshot {
        in_use: [(id.clone(), is_certain)].into(),
        attached: devices,
        exports,
        ..Snapshot::default()
    };
    let of = |snapshot: &Snapshot| {
        let state = offered(&definitions, snapshot)
            .first()
            .map(|(_, attached)| *attached);
        (state, released(&definitions, snapshot).len())
    };
    let here = || vec![attached("3-1", "6001")];
    let other = || vec![attached("3-1", "6010")];
    let empty = || exports("lab", &[]);
    for (what, snapshot, state) in [
        ("in use", in_use(true, here(), empty()), (Some(Some(true)), 0)),
        (
            "its server is gone",
            in_use(true, here(), Exports::new()),
            (Some(Some(true)), 0),
        ),
        (
            "its connection is broken",
            in_use(true, vec![], Exports::new()),
            (Some(Some(false)), 0),
        ),
        (
            "its container starts again",
            in_use(true, vec![], exports("lab", &[("1-1", 0x0403, 0x6001)])),
            (Some(Some(true)), 0),
        ),
        (
            "another is attached",
            in_use(true, other(), empty()),
            (Some(Some(false)), 0),
        ),
        (
            "kubelet starts",
            in_use(false, here(), empty()),
            (Some(Some(true)), 0),
        ),
        (
            "its pod has ended, and another host has it",
            in_use(false, vec![], empty()),
            (None, 1),
        ),
        (
            "its pod has ended",
            in_use(false, other(), exports("lab", &[("1-1", 0x0403, 0x6001)])),
            (Some(None), 1),
        ),
    ] {
        assert_eq!(of(&snapshot), state, "{what}");
    }
}

#[test]
fn the_requests_do_not_depend_on_the_device_and_fixed_extras_are_given_if_they_exist() {
    let definitions = definitions(
        "{board: [{target: {host: lab}, selector: {vendor: 0x0403, product: 0x6001}, extras: [
            {host_path: /dev/ttyUSB0, container_path: /dev/board, permissions: rw},
            {host_path: /dev/net/tun, container_path: /dev/net/tun, permissions: mrw}]}]}",
    );
    let mut now = snapshot(exports("lab", &[("1-1", 0x0403, 0x6001)]));
    let before = resources::resources(&definitions, &snapshot(Exports::new()), &mut Names::default());
    for path in ["/dev/net/tun", "/dev/ttyUSB0"] {
        now.paths.insert(path.into(), PathKind::Device);
    }
    // A local adapter with the name that the remote one may get.
    now.inventory = Inventory::new(hub_with_two_adapters());
    let resources = resources::resources(&definitions, &now, &mut Names::default());
    assert_eq!(before[0].cdi_devices, resources[0].cdi_devices);
    assert_eq!(
        resources[0].cdi_devices[0].devices,
        [
            "usbip:lab/0403:6001;required",
            "usbip:lab/0403:6001;path=/dev/board;only=glob:/dev/ttyUSB[0-9]*",
        ]
    );
    let unit = resources[0].units.values().next().unwrap();
    let extra_nodes: Vec<String> = unit
        .offer
        .extra_nodes
        .iter()
        .map(|node| {
            format!(
                "{} {} {}",
                node.host.display(),
                node.container.display(),
                node.access
            )
        })
        .collect();
    assert_eq!(extra_nodes, ["/dev/net/tun /dev/net/tun rwm"]);
}

#[test]
fn an_attached_device_is_assigned_to_a_running_container_first() {
    let definitions = definitions(TWO_ALIKE_AND_ONE_AT_A_PLACE);
    let listed = exports(
        "lab",
        &[
            ("1-1", 0x0403, 0x6001),
            ("1-2", 0x0403, 0x6001),
            ("1-3", 0x0403, 0x6001),
        ],
    );
    let resources = resources::resources(&definitions, &snapshot(listed), &mut Names::default());
    let units = resources[0].units.iter();
    let ids: BTreeMap<&str, &String> = units.map(|(id, unit)| (unit.place.as_str(), id)).collect();
    let (ended, runs) = (ids["lab/0403:6001"], ids["lab/nth:2:0403:6001"]);
    let now = Snapshot {
        in_use: [(ended.clone(), false), (runs.clone(), true)].into(),
        attached: vec![attached("3-1", "6001")],
        ..Snapshot::default()
    };
    assert_eq!(states(&definitions, &now)[runs], State::Attached);
    assert_eq!(released(&definitions, &now), [ended.clone()].into());
}

#[test]
fn the_root_hub_of_a_virtual_controller_is_not_a_remote_device() {
    let mut hub = attached("3-1", "0002");
    hub.syspath = SysPath::new(format!("{}0/usb3", vhci::CONTROLLERS));
    assert!(!is_remote(&hub) && is_remote(&attached("3-1", "6001")));
}

#[test]
fn a_unit_that_is_no_longer_configured_is_not_released() {
    let definitions = definitions(TWO_ALIKE_AND_ONE_AT_A_PLACE);
    let now = Snapshot {
        in_use: [("an id of before".to_owned(), true)].into(),
        ..Snapshot::default()
    };
    assert!(released(&definitions, &now).is_empty());
}

proptest! {
    /// Whatever the server lists: no more entries have a device than there are devices, and no
    /// entry is without one while a matching device is unassigned.
    #[test]
    fn devices_are_assigned_to_as_many_entries_as_possible(
        suits in prop::collection::vec(prop::collection::vec(any::<bool>(), 6), 0..8),
    ) {
        let has = matched(&suits, 6, |wanted, index| wanted[index]);
        let served = has.iter().filter(|has| **has).count();
        prop_assert!(served <= 6);
        // The highest possible number, found by trying all assignments.
        fn most(wants: &[Vec<bool>], used: &mut [bool; 6]) -> usize {
            let Some((first, rest)) = wants.split_first() else { return 0 };
            let mut best = most(rest, used);
            for index in 0..6 {
                if first[index] && !used[index] {
                    used[index] = true;
                    best = best.max(1 + most(rest, used));
                    used[index] = false;
                }
            }
            best
        }
        prop_assert_eq!(served, most(&suits, &mut [false; 6]));
    }
}
