//! Resources of our own format: slots and units, and where their devices are in the container.

use super::*;

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
