//! Devices that programs do not use through a device node, and how a container gets access to them.

use crate::model::device::Device;
use crate::model::device::inventory::Inventory;

/// How to give a container a device that has no node by design; `None` for all other devices.
pub fn instead_of_node(device: &Device) -> Option<String> {
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
pub fn instead_of_nodes(root: &Device, inventory: &Inventory) -> Vec<String> {
    inventory
        .starting_with(root.syspath.as_str())
        .filter(|device| device.syspath.is_at_or_below(&root.syspath))
        .filter_map(instead_of_node)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::device::SysPath;

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
}
