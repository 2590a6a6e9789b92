//! Resources of generic-device-plugin's format.

use super::*;

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
