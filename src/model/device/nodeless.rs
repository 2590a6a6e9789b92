//! Devices that programs do not use through a device node, and how a container gets access to them.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::device::inventory::Inventory;
use crate::model::device::{Device, STATIC_NODE, SysPath};

/// How to give a container a device that has no node by design; `None` for all other devices.
pub(crate) fn instead_of_node(device: &Device) -> Option<String> {
    let name = device.syspath.as_str().rsplit('/').next().unwrap_or_default();
    match device.subsystem.as_deref()? {
        "net" => Some(format!(
            "{name} is a network interface and has no device node: share the host's network (--network host), or move it \
             into the container (`ip link set {name} netns PID`)"
        )),
        // hci0; connections such as hci0:12 come and go.
        "bluetooth" if name.starts_with("hci") && !name.contains(':') => Some(format!(
            "{name} is a Bluetooth adapter and has no device node: share the host's network (--network host), or mount \
             bluetoothd's D-Bus socket (/run/dbus/system_bus_socket)"
        )),
        _ => None,
    }
}

/// The same for each device at or below a root.
pub(crate) fn instead_of_nodes(root: &Device, inventory: &Inventory) -> Vec<String> {
    inventory
        .starting_with(root.syspath.as_str())
        .filter(|device| device.syspath.is_at_or_below(&root.syspath))
        .filter_map(instead_of_node)
        .collect()
}

/// The devices without a node that belong to attached devices, by their paths: at or below a root
/// with an attached device, where the nearest device above them that has a node is attached, too. A
/// hub that is a root may have devices below it that the policy denies; theirs are left out.
pub(crate) fn belonging<'a>(
    roots: impl IntoIterator<Item = &'a SysPath>,
    attached: &BTreeSet<&SysPath>,
    inventory: &'a Inventory,
) -> BTreeMap<&'a SysPath, &'a Device> {
    let mut found = BTreeMap::new();
    for root in roots {
        if !attached.iter().any(|device| device.is_at_or_below(root)) {
            continue;
        }
        let nodeless = inventory
            .at_or_below(root)
            .filter(|device| device.node.is_none() && device.subsystem.as_deref() != Some(STATIC_NODE));
        for device in nodeless {
            let mut above = inventory
                .ancestors(&device.syspath)
                .take_while(|above| above.syspath.is_at_or_below(root));
            let nearest = above.find(|above| above.node.is_some());
            if nearest.is_none_or(|nearest| attached.contains(&nearest.syspath)) {
                found.insert(&device.syspath, device);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::device::{DevKind, DevNode, DevNum};

    fn device(path: &str, subsystem: &str) -> Device {
        let mut device = Device::new(SysPath::new(path));
        device.subsystem = Some(subsystem.to_owned());
        device
    }

    /// Case README 27.
    #[test]
    fn interfaces_and_adapters_without_a_node_come_with_instructions() {
        let usb = device("/sys/devices/usb1/1-1", "usb");
        let inventory = Inventory::new(vec![
            usb.clone(),
            device("/sys/devices/usb1/1-1/1-1:1.0/net/can0", "net"),
            device("/sys/devices/usb1/1-1/1-1:1.1/bluetooth/hci0", "bluetooth"),
            device(
                "/sys/devices/usb1/1-1/1-1:1.1/bluetooth/hci0/hci0:12",
                "bluetooth",
            ),
            device("/sys/devices/usb1/1-1/1-1:1.2/ttyUSB0/tty/ttyUSB0", "tty"),
            device("/sys/devices/usb1/1-10/1-10:1.0/net/eth1", "net"),
        ]);
        let told = instead_of_nodes(&usb, &inventory);
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(
            told[0].starts_with("can0 is a network interface")
                && told[0].contains("ip link set can0 netns PID"),
            "{told:?}"
        );
        assert!(told[1].starts_with("hci0 is a Bluetooth adapter"), "{told:?}");
    }

    #[test]
    fn devices_without_a_node_belong_to_the_attached_device_above_them() {
        let with_node = |path: &str, minor| {
            let mut device = device(path, "usb");
            device.node = Some(DevNode {
                path: format!("/dev/{minor}").into(),
                num: DevNum {
                    kind: DevKind::Char,
                    major: 189,
                    minor,
                },
            });
            device
        };
        let inventory = Inventory::new(vec![
            device("/sys/devices/usb1/1-0:1.0", "usb"),
            with_node("/sys/devices/usb1/1-1", 1),
            device("/sys/devices/usb1/1-1/1-1:1.0", "usb"),
            with_node("/sys/devices/usb1/1-1/1-1.2", 2),
            device("/sys/devices/usb1/1-1/1-1.2/1-1.2:1.0", "usb"),
            with_node("/sys/devices/usb1/1-1/1-1.2/1-1.2:1.0/tty", 3),
        ]);
        let path = |name: &str| SysPath::new(format!("/sys/devices/usb1/{name}"));
        let found = |root: &str, attached: &[&str]| -> Vec<String> {
            let (root, attached) = (path(root), attached.iter().map(|name| path(name)));
            let attached: Vec<SysPath> = attached.collect();
            let belonging = belonging([&root], &attached.iter().collect(), &inventory);
            belonging
                .keys()
                .map(|syspath| syspath.name().to_owned())
                .collect()
        };
        let (hub, adapter) = ("1-1", "1-1/1-1.2");
        assert_eq!(found(hub, &[hub]), ["1-1:1.0"]);
        assert_eq!(found(hub, &[adapter]), ["1-1.2:1.0"]);
        assert_eq!(found(hub, &[hub, adapter]), ["1-1.2:1.0", "1-1:1.0"]);
        assert_eq!(found(hub, &[]), [""; 0]);
        // A root without a node, whose tty is attached.
        let interface = "1-1/1-1.2/1-1.2:1.0";
        assert_eq!(found(interface, &["1-1/1-1.2/1-1.2:1.0/tty"]), ["1-1.2:1.0"]);
        assert_eq!(found(interface, &[]), [""; 0]);
    }
}
