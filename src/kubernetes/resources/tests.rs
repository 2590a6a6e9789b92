use std::collections::BTreeSet;
use std::path::Path;

use super::*;
use crate::kubernetes::config::{Texts, read};
use crate::kubernetes::snapshot::PathKind;
use crate::model::device::inventory::Inventory;
use crate::model::device::recorded::{accelerator, remote_adapter};
use crate::model::device::{DevKind, DevNode, DevNum, Device, SysPath, UdevState};
use crate::model::oci::ProcessUser;
use crate::model::plan::Planner;
use crate::model::remote::reservation::Reservation;
use crate::model::request::class::Classes;

fn snapshot(paths: &[(&str, PathKind)]) -> Snapshot {
    Snapshot {
        paths: paths.iter().map(|(path, found)| (path.into(), *found)).collect(),
        ..Snapshot::default()
    }
}

fn definitions(texts: Texts) -> Vec<Definition> {
    read(&texts, &Classes::none(Path::new("/nowhere")))
        .unwrap()
        .definitions
}

fn smarter(text: &str) -> Vec<Definition> {
    definitions(Texts {
        smarter: Some(("conf.yaml".into(), text.to_owned())),
        ..Texts::default()
    })
}

fn own(text: &str) -> Vec<Definition> {
    definitions(Texts {
        own: Some(("config.yaml".into(), text.to_owned())),
        ..Texts::default()
    })
}

fn shown(resources: &[Resource]) -> Vec<(&str, usize)> {
    resources
        .iter()
        .map(|resource| (resource.name.as_str(), resource.units.len()))
        .collect()
}

fn usb(syspath: &str, product: &str, numa: &str) -> Device {
    let mut device = Device::new(SysPath::new(syspath));
    device.subsystem = Some("usb".into());
    device.devtype = Some("usb_device".into());
    device.udev_state = UdevState::Processed;
    device.attributes = [("idVendor", "0403"), ("idProduct", product), (NUMA_NODE, numa)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
    device.node = Some(DevNode {
        path: format!("/dev/bus/{}", device.syspath.name()).into(),
        num: DevNum {
            kind: DevKind::Char,
            major: 189,
            minor: 1,
        },
    });
    device
}

#[test]
fn path_is_for_the_main_node_and_the_raw_node_stays_where_libusb_looks() {
    let snapshot = Snapshot {
        inventory: Inventory::new(crate::model::device::recorded::hub_with_two_adapters()),
        ..Snapshot::default()
    };
    let definitions =
        own("resources: [{name: a.b/board, mode: static, requests: ['usb:0403:6001;path=/dev/board']}]");
    let resources = resources(&definitions, &snapshot, &mut Names::default());
    let mut places: Vec<(String, String)> = Vec::new();
    for unit in resources[0].units.values() {
        places.extend(unit.offer.nodes.iter().map(|node| {
            let text = |path: &Path| path.display().to_string();
            (text(&node.host), text(&node.container))
        }));
    }
    places.sort();
    let board: Vec<&str> = places
        .iter()
        .filter(|(_, place)| place == "/dev/board")
        .map(|(host, _)| host.as_str())
        .collect();
    assert!(
        !board.is_empty() && board.iter().all(|host| host.starts_with("/dev/ttyUSB")),
        "{places:?}"
    );
    assert!(
        places
            .iter()
            .any(|(host, place)| host.starts_with("/dev/bus/usb/") && host == place),
        "{places:?}"
    );
}

#[test]
fn a_directory_is_for_all_nodes_but_the_raw_one() {
    let snapshot = Snapshot {
        inventory: Inventory::new(crate::model::device::recorded::hub_with_two_adapters()),
        ..Snapshot::default()
    };
    let definitions =
        own("resources: [{name: a.b/board, mode: static, requests: ['usb:0403:6001:B;path=/dev/board/']}]");
    let resources = resources(&definitions, &snapshot, &mut Names::default());
    let units = resources[0].units.values();
    let nodes = units.flat_map(|unit| unit.offer.nodes.iter());
    let mut places: Vec<(&Path, &Path)> = nodes
        .map(|node| (node.host.as_path(), node.container.as_path()))
        .collect();
    places.sort();
    let expected = [
        ("/dev/bus/usb/001/004", "/dev/bus/usb/001/004"),
        ("/dev/ttyUSB1", "/dev/board/ttyUSB0"),
    ];
    assert_eq!(
        places,
        expected.map(|(host, place)| (Path::new(host), Path::new(place)))
    );
}

#[test]
fn smarters_patterns_find_devices_and_directories_anywhere_below_dev() {
    let snapshot = snapshot(&[
        ("/dev/snd", PathKind::Directory),
        ("/dev/snd/timer", PathKind::Device),
        ("/dev/net/tun", PathKind::Device),
        ("/dev/log", PathKind::Other),
    ]);
    let mut names = Names::default();
    let wanted = smarter(
        "- {devicematch: ^snd$, nummaxdevices: 3}\n- {devicematch: tun, nummaxdevices: 1}\n- {devicematch: log, nummaxdevices: 1}",
    );
    let found = resources(&wanted, &snapshot, &mut names);
    assert_eq!(
        shown(&found),
        [("smarter-devices/net_tun", 1), ("smarter-devices/snd", 3)]
    );
}

#[test]
fn a_path_that_two_patterns_match_is_one_resource_of_the_first_pattern() {
    let snapshot = snapshot(&[("/dev/a", PathKind::Device)]);
    let wanted = smarter("- {devicematch: a, nummaxdevices: 2}\n- {devicematch: ^a, nummaxdevices: 5}");
    assert_eq!(
        shown(&resources(&wanted, &snapshot, &mut Names::default())),
        [("smarter-devices/a", 2)]
    );
}

#[test]
fn two_paths_with_the_same_name_remain_two_resources() {
    let snapshot = snapshot(&[("/dev/by/a", PathKind::Device), ("/dev/by_a", PathKind::Device)]);
    let mut names = Names::default();
    let found = resources(
        &smarter("- {devicematch: 'by.a', nummaxdevices: 1}"),
        &snapshot,
        &mut names,
    );
    assert_eq!(found.len(), 2);
    assert_eq!(names.take_notes().len(), 1);
}

#[test]
fn tegras_gpus_are_passed_to_the_nvidia_runtime() {
    let snapshot = Snapshot {
        gpus: [0].into(),
        ..Snapshot::default()
    };
    let found = resources(
        &smarter("- {devicematch: nvidia-gpu, nummaxdevices: 10}"),
        &snapshot,
        &mut Names::default(),
    );
    assert_eq!(shown(&found), [("smarter-devices/nvidia-gpu0", 10)]);
    let unit = found[0].units.values().next().unwrap();
    assert_eq!(unit.offer.env["NVIDIA_VISIBLE_DEVICES"], "0");
}

#[test]
fn a_hostdev_path_is_always_advertised_and_healthy_while_it_exists() {
    let wanted = definitions(Texts {
        devs: Some("/dev/mem:r,/dev/away:rw:2".into()),
        ..Texts::default()
    });
    let found = resources(
        &wanted,
        &snapshot(&[("/dev/mem", PathKind::Device)]),
        &mut Names::default(),
    );
    assert_eq!(
        shown(&found),
        [("hostdev.k8s.io/dev_away", 2), ("hostdev.k8s.io/dev_mem", 1)]
    );
    assert!(found[0].units.values().all(|unit| !unit.healthy));
    assert!(found[1].units["/dev/mem"].healthy);
}

#[test]
fn a_hostdev_path_that_is_not_a_device_gets_one_note() {
    let wanted = definitions(Texts {
        devs: Some("/etc/hostname:r".into()),
        ..Texts::default()
    });
    let mut names = Names::default();
    let snapshot = snapshot(&[("/etc/hostname", PathKind::Other)]);
    for notes in [1, 0] {
        assert!(
            resources(&wanted, &snapshot, &mut names)[0]
                .units
                .values()
                .all(|unit| !unit.healthy)
        );
        let taken_notes = names.take_notes();
        assert_eq!(taken_notes.len(), notes, "{taken_notes:?}");
        assert!(
            taken_notes
                .iter()
                .all(|note| note.contains("/etc/hostname is neither a device nor a directory"))
        );
    }
}

#[test]
fn a_resource_has_at_most_as_many_units_as_kubelet_accepts_in_one_list() {
    let snapshot = snapshot(&[
        ("/dev/a0", PathKind::Device),
        ("/dev/a1", PathKind::Device),
        ("/dev/a2", PathKind::Device),
    ]);
    let wanted = own("devices: [{name: x, groups: [{count: 20000, paths: [{path: '/dev/a*'}]}]}]");
    let mut names = Names::default();
    assert_eq!(
        resources(&wanted, &snapshot, &mut names)[0].units.len(),
        MAX_LISTED
    );
    let taken_notes = names.take_notes();
    assert!(
        taken_notes.len() == 1 && taken_notes[0].contains("devic.es/x has more units"),
        "{taken_notes:?}"
    );
}

#[test]
fn a_group_pairs_the_matches_of_its_paths() {
    let snapshot = snapshot(&[
        ("/dev/v0", PathKind::Device),
        ("/dev/v1", PathKind::Device),
        ("/dev/ctl", PathKind::Device),
    ]);
    let units = |group: &str| {
        let wanted = own(&format!("devices: [{{name: x, groups: [{group}]}}]"));
        resources(&wanted, &snapshot, &mut Names::default())[0]
            .units
            .clone()
    };
    assert_eq!(units("{paths: [{path: '/dev/v*'}]}").len(), 2);
    assert_eq!(units("{paths: [{path: '/dev/v*'}], count: 3}").len(), 6);
    assert_eq!(units("{paths: [{path: '/dev/v*'}, {path: /dev/ctl}]}").len(), 1);
    let both = units("{paths: [{path: '/dev/v*'}, {path: /dev/ctl, limit: 5}]}");
    assert_eq!(both.len(), 2);
    assert!(both.values().all(|unit| unit.offer.nodes.len() == 2));
    assert_eq!(units("{paths: [{path: '/dev/v*'}, {path: /dev/none}]}").len(), 0);
    assert_eq!(
        units("{paths: [{path: '/dev/v*'}, {path: /dev/none, optional: true}]}").len(),
        2
    );
}

/// The same as in generic-device-plugin: a pod gets all USB devices of a group, with `rw` (its
/// usb.go:262-300).
#[test]
fn the_usb_devices_of_a_group_are_one_unit_whichever_are_present() {
    let units = |places: &[&str]| {
        let devices = places.iter().map(|place| usb(place, "6001", "-1"));
        let snapshot = Snapshot {
            inventory: Inventory::new(devices.chain([usb("/sys/devices/u/1-9", "6002", "-1")])),
            ..Snapshot::default()
        };
        let wanted =
            own("devices: [{name: x, groups: [{count: 2, usb: [{vendor: '0403', product: '6001'}]}]}]");
        let resources = resources(&wanted, &snapshot, &mut Names::default());
        let shown = resources[0].units.iter().map(|(id, unit)| {
            let nodes = unit.offer.nodes.iter();
            let nodes = nodes.map(|node| (node.host.display().to_string(), node.access.to_string()));
            (id.clone(), nodes.collect::<Vec<_>>())
        });
        shown.collect::<Vec<_>>()
    };
    let node = |name: &str| (format!("/dev/bus/{name}"), "rw".to_owned());
    let both = units(&["/sys/devices/u/1-1", "/sys/devices/u/1-2"]);
    assert_eq!(both.len(), 2);
    assert_eq!(both[0].1, [node("1-1"), node("1-2")]);
    let one = units(&["/sys/devices/u/1-2"]);
    assert_eq!((&one[0].0, &one[0].1[..]), (&both[0].0, &[node("1-2")][..]));
    assert_eq!(units(&[]), []);
}

#[test]
fn a_usb_device_of_a_group_has_the_numa_node_of_its_host_controller() {
    let controller = |path: &str, numa: &str| {
        let mut device = Device::new(SysPath::new(path));
        device.attributes = [(NUMA_NODE.to_owned(), numa.to_owned())].into();
        device
    };
    let mut adapter = usb("/sys/devices/pci0000:80/0000:80:14.0/usb1/1-1", "6001", "");
    adapter.attributes.remove(NUMA_NODE);
    let snapshot = Snapshot {
        inventory: Inventory::new([controller("/sys/devices/pci0000:80/0000:80:14.0", "1"), adapter]),
        ..Snapshot::default()
    };
    let wanted = own("devices: [{name: x, groups: [{usb: [{vendor: '0403', product: '6001'}]}]}]");
    let attributes = super::facts_needed(&wanted).attributes;
    assert_eq!(
        attributes.get(NUMA_NODE),
        Some(&None),
        "it is read of every device"
    );
    let found = resources(&wanted, &snapshot, &mut Names::default());
    let nodes: Vec<Option<i64>> = found[0].units.values().map(|unit| unit.numa).collect();
    assert_eq!(nodes, [Some(1)]);
}

/// Case README 11.
#[test]
fn a_mount_path_with_a_slash_at_its_end_is_a_directory() {
    let snapshot = snapshot(&[
        ("/dev/ttyS0", PathKind::Device),
        ("/dev/ttyS1", PathKind::Device),
        ("/dev/fuse", PathKind::Device),
        ("/dev/ctl", PathKind::Device),
    ]);
    let wanted = own(
        "devices: [{name: serial, groups: [{paths: [{path: /dev/ttyS*, mountPath: /dev/serial/}]}, {paths: [{path: \
         /dev/fuse, mountPath: /dev/other}]}, {paths: [{path: /dev/ctl, mountPath: /, type: Mount}]}]}]",
    );
    let found = resources(&wanted, &snapshot, &mut Names::default());
    let mut places: Vec<String> = Vec::new();
    for unit in found[0].units.values() {
        let nodes = unit.offer.nodes.iter().map(|node| &node.container);
        let mounts = unit.offer.mounts.iter().map(|mount| &mount.container);
        places.extend(nodes.chain(mounts).map(|place| place.display().to_string()));
    }
    places.sort();
    assert_eq!(
        places,
        ["/ctl", "/dev/other", "/dev/serial/ttyS0", "/dev/serial/ttyS1"]
    );
}

/// Case README 13.
#[test]
fn a_unit_is_not_advertised_while_its_mount_is_missing() {
    let wanted = own(
        "devices: [{name: r, groups: [{paths: [{path: /dev/null}, {path: /var/run/none.sock, type: Mount}]}]}]",
    );
    let counted = |snapshot: &Snapshot| resources(&wanted, snapshot, &mut Names::default())[0].units.len();
    let mut snapshot = snapshot(&[("/dev/null", PathKind::Device)]);
    assert_eq!(counted(&snapshot), 0);
    snapshot
        .paths
        .insert("/var/run/none.sock".into(), PathKind::Other);
    assert_eq!(counted(&snapshot), 1);
}

/// Case README 14.
#[test]
fn gos_patterns_and_large_counts_are_advertised_as_in_the_original() {
    let snapshot = snapshot(&[
        ("/dev/fuse", PathKind::Device),
        ("/dev/ttyS0", PathKind::Device),
        ("/dev/ttyS1", PathKind::Device),
        ("/dev/ttyS2", PathKind::Device),
    ]);
    let wanted = own(
        "devices: [{name: f, groups: [{count: 5000, paths: [{path: /dev/fuse}]}]},{name: g, groups: [{count: 0, paths: \
         [{path: \"/dev/ttyS[^0]\"}]}]}]",
    );
    let found = resources(&wanted, &snapshot, &mut Names::default());
    assert_eq!(shown(&found), [("devic.es/f", 5000), ("devic.es/g", 2)]);
    assert!(found[1].units.values().all(|unit| unit.place != "/dev/ttyS0"));
}

#[test]
fn slots_are_the_same_whichever_devices_are_present() {
    let wanted = own("resources: [{name: x, requests: ['usb:0403'], count: 2}]");
    let empty = resources(&wanted, &Snapshot::default(), &mut Names::default());
    let snapshot = Snapshot {
        inventory: Inventory::new([usb("/sys/devices/u/1-1", "6001", "-1")]),
        ..Snapshot::default()
    };
    let full = resources(&wanted, &snapshot, &mut Names::default());
    assert_eq!(empty[0].cdi_devices, full[0].cdi_devices);
    assert!(empty[0].units.keys().eq(full[0].units.keys()));
    assert!(empty[0].units.values().all(|unit| unit.healthy));
    assert_eq!(full[0].units.values().next().unwrap().offer.nodes.len(), 1);
}

#[test]
fn a_present_device_is_a_unit_with_a_place_a_numa_node_and_its_own_request() {
    let snapshot = Snapshot {
        inventory: Inventory::new([
            usb("/sys/devices/u/1-1", "6001", "1"),
            usb("/sys/devices/u/1-2", "6001", "-1"),
        ]),
        ..Snapshot::default()
    };
    let wanted = own("resources: [{name: x, mode: present, requests: ['usb:0403;exclusive']}]");
    let found = &resources(&wanted, &snapshot, &mut Names::default())[0];
    let shown: Vec<(&str, Option<i64>)> = found
        .units
        .values()
        .map(|unit| (unit.place.as_str(), unit.numa))
        .collect();
    assert!(
        shown.contains(&("/sys/devices/u/1-1", Some(1))) && shown.contains(&("/sys/devices/u/1-2", None)),
        "{shown:?}"
    );
    let asked: Vec<&str> = found
        .cdi_devices
        .iter()
        .flat_map(|cdi_device| &cdi_device.devices)
        .map(String::as_str)
        .collect();
    assert_eq!(
        asked,
        [
            "usb:0403&syspath:/sys/devices/u/1-1;exclusive",
            "usb:0403&syspath:/sys/devices/u/1-2;exclusive"
        ]
    );
    for request in asked {
        assert!(
            request.parse::<crate::model::request::Request>().is_ok(),
            "{request}"
        );
    }
}

const NEW: (&str, &str) = ("1a6e", "089a");
const USED: (&str, &str) = ("18d1", "9302");
const XHCI: &str = "/sys/devices/pci0000:00/0000:00:14.0";

/// A host with accelerators, where the ports 1-4 and 2-2 are one socket.
fn accelerators(devices: Vec<Vec<Device>>) -> Snapshot {
    let place = |name: &str| SysPath::new(format!("{XHCI}/{name}"));
    let (high, superspeed) = (place("usb1/1-4"), place("usb2/2-2"));
    Snapshot {
        inventory: Inventory::new(devices.concat()),
        peers: [(high.clone(), superspeed.clone()), (superspeed, high)].into(),
        ..Snapshot::default()
    }
}

/// Case README 2.
#[test]
fn a_device_with_new_ids_or_on_the_other_bus_is_the_same_unit_for_the_same_pod() {
    for requests in [
        "'usb:1a6e:089a', 'usb:18d1:9302;access=rw'",
        "'usb:1a6e:089a;or=usb:18d1:9302;access=rw'",
    ] {
        is_one_unit_in_all_states(requests);
    }
}

fn is_one_unit_in_all_states(requests: &str) {
    let wanted = own(&format!(
        "resources: [{{name: tpu, mode: present, requests: [{requests}]}}]"
    ));
    let seen = |snapshot: &Snapshot| resources(&wanted, snapshot, &mut Names::default()).remove(0);
    let states = [
        accelerators(vec![accelerator(1, 4, 7, NEW)]),
        accelerators(vec![accelerator(2, 2, 3, USED)]),
        accelerators(vec![accelerator(1, 4, 8, USED)]),
    ];
    let first = seen(&states[0]);
    assert_eq!(first.units.len(), 1);
    let asked = first.cdi_devices[0].devices.join(",");
    let asked = crate::model::request::annotations::read_list(
        crate::model::request::entry::Origin::Root,
        &asked,
        &Classes::none(Path::new("/nowhere")),
    );
    let mut pod = Planner::new(asked.unwrap().entries, Vec::new(), ProcessUser { uid: 0, gid: 0 });
    let roots = |pod: &Planner| -> BTreeSet<SysPath> {
        pod.entries()
            .iter()
            .flat_map(|asked| asked.roots.clone())
            .collect()
    };
    for snapshot in &states {
        let now = seen(snapshot);
        assert!(now.units.keys().eq(first.units.keys()), "one socket is one unit");
        assert_eq!(
            now.cdi_devices, first.cdi_devices,
            "and its hooks have the same requests"
        );
        pod.find_roots(&snapshot.inventory);
        let device = snapshot
            .inventory
            .iter()
            .find(|device| [NEW.0, USED.0].map(Some).contains(&device.attribute("idVendor")));
        let device = &device.expect("an accelerator").syspath;
        assert!(roots(&pod).contains(device), "{device} is given to the pod");
    }
    let another = accelerators(vec![accelerator(1, 5, 9, USED), accelerator(2, 4, 9, NEW)]);
    pod.find_roots(&another.inventory);
    assert_eq!(roots(&pod), BTreeSet::new(), "another socket's is not");
    let units: Vec<String> = seen(&another).units.into_keys().collect();
    assert!(
        units.len() == 2 && !units.contains(first.units.keys().next().unwrap()),
        "{units:?}"
    );
    let name = "oci-hotplug.dev/tpu".parse().unwrap();
    assert!(
        own::ids_may_change(&wanted, &name) && !own::ids_may_change(&wanted, &"a.b/tpu".parse().unwrap())
    );
}

/// Case README 2. Of devices that take turns, only one is ever present.
#[test]
fn required_applies_to_the_ids_that_a_device_has_now() {
    let wanted = own(
        "resources: [{name: tpu, mode: present, requests: ['usb:1a6e:089a;required', 'usb:18d1:9302;required']}]",
    );
    let required = |device: Vec<Device>| -> Vec<String> {
        let snapshot = accelerators(vec![device]);
        let cdi_devices = resources(&wanted, &snapshot, &mut Names::default())
            .remove(0)
            .cdi_devices;
        let required = cdi_devices[0]
            .devices
            .iter()
            .filter(|request| request.contains(";required"));
        required.cloned().collect()
    };
    // The request for these ids at either port of the socket.
    let of = |ids: &str| {
        let at = |port: &str| format!("usb:{ids}&syspath:{XHCI}/{port}");
        [format!("{};required;or={}", at("usb1/1-4"), at("usb2/2-2"))]
    };
    assert_eq!(required(accelerator(1, 4, 7, NEW)), of("1a6e:089a"));
    assert_eq!(required(accelerator(2, 2, 3, USED)), of("18d1:9302"));
}

#[test]
fn a_remote_device_in_use_is_not_a_unit_of_a_local_resource() {
    let devices = remote_adapter();
    let (place, node) = (&devices[0].syspath, devices[0].node.as_ref());
    let wanted = own("resources: [{name: x, mode: present, requests: ['usb:0403']}]");
    for (owner, local, below_dev) in [(Some("c1"), 0, 0), (None, 1, 1)] {
        let mut snapshot = snapshot(&[("/dev/ttyUSB0", PathKind::Device)]);
        snapshot.inventory = Inventory::new(devices.clone());
        snapshot.set_reserved_apart(&[Reservation {
            remote: "lab/busid:1-1".into(),
            syspath: place.clone(),
            num: node.map(|node| node.num),
            container: owner.map(str::to_owned),
            is_verified: true,
        }]);
        let found = resources(&wanted, &snapshot, &mut Names::default());
        assert_eq!(found[0].units.len(), local, "{owner:?}");
        let found = resources(
            &smarter("[{devicematch: ^ttyUSB, nummaxdevices: 1}]"),
            &snapshot,
            &mut Names::default(),
        );
        assert_eq!(found.len(), below_dev, "{owner:?}");
        assert_eq!(snapshot.attached.len(), 1);
    }
}
