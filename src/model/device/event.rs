//! What happened to a device, as values: what a monitor reports and the inventory takes in.

use crate::model::device::{Device, SysPath};

/// One report of the monitor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceEvent {
    /// The device came (the kernel's `add`, and again udevd's).
    Added(Device),
    /// Something about the device changed: `change`, `bind`, `unbind`, `online`, `offline`.
    Changed(Device),
    /// The device is now at another path in sysfs.
    Moved {
        /// Where it was.
        from: SysPath,
        /// What it is now.
        device: Device,
    },
    /// The device went. Remove events carry no properties: the path is all there is.
    Removed {
        /// Where it was.
        syspath: SysPath,
        /// The kernel's sequence number of the event.
        seqnum: u64,
    },
    /// Events were lost: only a new enumeration tells what is there.
    Overrun,
}

impl DeviceEvent {
    /// The device it is about, at its place now (or of last); `None` for an overrun.
    pub fn syspath(&self) -> Option<&SysPath> {
        match self {
            Self::Added(device) | Self::Changed(device) | Self::Moved { device, .. } => Some(&device.syspath),
            Self::Removed { syspath, .. } => Some(syspath),
            Self::Overrun => None,
        }
    }
    /// The kernel's sequence number; 0 for nodes that sysfs does not know and for an overrun.
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
    fn every_event_but_an_overrun_is_about_a_device_and_has_a_number() {
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
