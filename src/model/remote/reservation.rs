//! Which container a remote device is reserved for, and the consequences for other containers.
//!
//! A remote device that was attached for a container is reserved for the `usbip:` requests of that
//! container. Requests for local devices (`usb:` and others) do not select it. A device that an
//! operator attached is available to all containers.

use crate::model::device::inventory::Inventory;
use crate::model::device::{DevNum, Device, SysPath};

/// A remote device that is attached to this host or is being attached, and the container that it is
/// reserved for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reservation {
    /// The address of the device, with its bus id.
    pub remote: String,
    /// Its path in sysfs, now or after the attachment.
    pub syspath: SysPath,
    /// The number of its raw node; `None` until the device is verified.
    pub num: Option<DevNum>,
    /// The container; `None` when an operator attached the device.
    pub container: Option<String>,
    /// Whether the device has been verified as the requested one, so that drivers may bind to it.
    pub is_verified: bool,
}

/// A device of this host that requests of a container for local devices do not select.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReservedDevice {
    /// The path in sysfs: the device and everything below it is reserved.
    pub syspath: SysPath,
    /// The reason, for operators.
    pub reason: String,
    /// The container that it is reserved for; `None` while it is being verified.
    pub container: Option<String>,
}

impl Reservation {
    /// The device that requests of `container` must not select because of this reservation; `None`
    /// if there is none.
    pub(crate) fn against(&self, container: &str, inventory: &Inventory) -> Option<ReservedDevice> {
        let present = inventory.get(&self.syspath);
        let present = present.and_then(|device| Some(device.node.as_ref()?.num));
        if self.num.is_some() && present.is_some() && self.num != present {
            // Another device is at the path now, which this reservation does not concern.
            return None;
        }
        let owner = self.container.as_deref().filter(|owner| *owner != container);
        let reason = match owner {
            Some(owner) => format!(
                "it is usbip:{}, reserved for container {owner} (to get it after that container, request it by that address)",
                self.remote
            ),
            None if !self.is_verified => {
                format!("it is usbip:{}, which is being verified", self.remote)
            }
            None => return None,
        };
        Some(ReservedDevice {
            syspath: self.syspath.clone(),
            reason,
            container: owner.map(str::to_owned),
        })
    }
}

impl ReservedDevice {
    /// Whether a device is this one, below it, or a static node of such a device.
    pub fn includes(&self, device: &Device, inventory: &Inventory) -> bool {
        inventory.real(device).syspath.is_at_or_below(&self.syspath)
    }
}

/// Whether a device is reserved.
pub(crate) fn is_reserved(reserved: &[ReservedDevice], device: &Device, inventory: &Inventory) -> bool {
    reserved
        .iter()
        .any(|reserved| reserved.includes(device, inventory))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::device::{DevKind, DevNode};

    #[test]
    fn a_device_is_reserved_for_its_container_or_for_none_and_for_nobody_until_verified() {
        let mut device = Device::new(SysPath::new("/sys/devices/platform/vhci_hcd.0/usb3/3-1"));
        let num = DevNum {
            kind: DevKind::Char,
            major: 189,
            minor: 257,
        };
        device.node = Some(DevNode {
            path: "/dev/bus/usb/003/002".into(),
            num,
        });
        let reservation = |owner: Option<&str>, is_verified: bool| Reservation {
            remote: "lab/busid:1-1".into(),
            syspath: device.syspath.clone(),
            num: is_verified.then_some(num),
            container: owner.map(str::to_owned),
            is_verified,
        };
        let here = Inventory::new([device.clone()]);
        let owner_of = |reservation: &Reservation, container| {
            let reserved = reservation.against(container, &here)?;
            Some(reserved.container.unwrap_or_default())
        };
        for (owner, is_verified, c1, c2) in [
            (Some("c1"), true, None, Some("c1")),
            (Some("c1"), false, Some(""), Some("c1")),
            (None, true, None, None),
            (None, false, Some(""), Some("")),
        ] {
            let reservation = reservation(owner, is_verified);
            let found = ["c1", "c2"].map(|container| owner_of(&reservation, container));
            assert_eq!(
                found,
                [c1, c2].map(|owner| owner.map(str::to_owned)),
                "{reservation:?}"
            );
        }
        // The path is reserved before the kernel shows the device; another device at the path is
        // not reserved.
        let of_c1 = reservation(Some("c1"), true);
        assert!(of_c1.against("c2", &Inventory::default()).is_some());
        device.node.as_mut().unwrap().num.minor += 1;
        assert_eq!(of_c1.against("c2", &Inventory::new([device])), None);
    }
}
