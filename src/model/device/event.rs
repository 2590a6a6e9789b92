//! What happened to a device, as values: the monitor reports them, the inventory applies them.

use crate::model::device::{Device, SysPath};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceEvent {
    /// The device was added: the kernel's `add`, and later that of udevd.
    Added(Device),
    /// The device changed: `change`, `bind`, `unbind`, `online`, `offline`.
    Changed(Device),
    /// The device has another path in sysfs now.
    Moved {
        /// The previous path.
        from: SysPath,
        /// The device with its new path.
        device: Device,
    },
    /// The device was removed. Remove events carry no properties, only the path.
    Removed { syspath: SysPath, seqnum: u64 },
    /// Events were lost: the devices must be enumerated again.
    Overrun,
}

impl DeviceEvent {
    /// The path of the device (the new one after a move, the last one after a removal); `None` for
    /// an overrun.
    pub fn syspath(&self) -> Option<&SysPath> {
        match self {
            Self::Added(device) | Self::Changed(device) | Self::Moved { device, .. } => Some(&device.syspath),
            Self::Removed { syspath, .. } => Some(syspath),
            Self::Overrun => None,
        }
    }
    /// The kernel's sequence number; 0 for static nodes and for an overrun.
    pub fn seqnum(&self) -> u64 {
        match self {
            Self::Added(device) | Self::Changed(device) | Self::Moved { device, .. } => device.seqnum,
            Self::Removed { seqnum, .. } => *seqnum,
            Self::Overrun => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_but_an_overrun_has_a_device_and_a_number() {
        let mut device = Device::new(SysPath::new("/sys/devices/a"));
        device.seqnum = 7;
        let syspath = device.syspath.clone();
        for event in [
            DeviceEvent::Added(device.clone()),
            DeviceEvent::Changed(device.clone()),
            DeviceEvent::Moved {
                from: SysPath::new("/sys/devices/b"),
                device,
            },
            DeviceEvent::Removed {
                syspath: syspath.clone(),
                seqnum: 7,
            },
        ] {
            assert_eq!((event.syspath(), event.seqnum()), (Some(&syspath), 7));
        }
        assert_eq!(
            (DeviceEvent::Overrun.syspath(), DeviceEvent::Overrun.seqnum()),
            (None, 0)
        );
    }
}
