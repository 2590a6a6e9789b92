//! The names of entries (sd_device_get_device_id(3)).

use std::fmt;

use crate::model::device::{DevKind, DevNum, Device, major_minor};

/// The maximum length of a file name in bytes (NAME_MAX, limits.h).
const MAX_NAME: usize = 255;

/// The name of a device's entry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DatabaseId {
    /// A device with a node: `c188:0`, `b8:1`.
    Number(DevNum),
    /// A network interface by its index: `n4`.
    Interface(u32),
    /// Any other device, by subsystem and kernel name: `+usb:1-1:1.0`.
    Name(String),
}

impl DatabaseId {
    /// The entry of a device; `None` if udev has none for such a device.
    pub fn of(device: &Device) -> Option<Self> {
        if let Some(node) = &device.node {
            return Some(Self::Number(node.num));
        }
        let subsystem = device.subsystem.as_deref()?;
        if subsystem == "net" {
            let index = device.properties.get("IFINDEX")?.parse().ok()?;
            return Some(Self::Interface(index));
        }
        let name = format!("+{subsystem}:{}", device.syspath.name());
        is_file_name(&name).then_some(Self::Name(name))
    }

    /// Reads the name of an entry; `None` if it is not one that [`fmt::Display`] writes.
    pub fn parse(name: &str) -> Option<Self> {
        let id = match name.chars().next()? {
            '+' if is_file_name(name) => Self::Name(name.to_owned()),
            'n' => Self::Interface(name[1..].parse().ok()?),
            'b' => Self::Number(number(DevKind::Block, &name[1..])?),
            'c' => Self::Number(number(DevKind::Char, &name[1..])?),
            _ => return None,
        };
        (id.to_string() == name).then_some(id)
    }
}

impl fmt::Display for DatabaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(num) => {
                let kind = match num.kind {
                    DevKind::Block => 'b',
                    DevKind::Char => 'c',
                };
                write!(f, "{kind}{}:{}", num.major, num.minor)
            }
            Self::Interface(index) => write!(f, "n{index}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

fn number(kind: DevKind, text: &str) -> Option<DevNum> {
    let (major, minor) = major_minor(text)?;
    Some(DevNum { kind, major, minor })
}

/// Whether the text can be the name of a file that is not hidden.
pub(super) fn is_file_name(text: &str) -> bool {
    let is_plain = |byte: u8| byte != b'/' && (0x21..0x7f).contains(&byte);
    !text.is_empty() && text.len() <= MAX_NAME && !text.starts_with('.') && text.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::device::{DevNode, SysPath};
    use proptest::prelude::*;

    fn device(path: &str, subsystem: &str) -> Device {
        let mut device = Device::new(SysPath::new(path));
        device.subsystem = Some(subsystem.to_owned());
        device
    }

    fn name(device: &Device) -> Option<String> {
        DatabaseId::of(device).map(|id| id.to_string())
    }

    #[test]
    fn a_device_is_named_by_number_index_or_subsystem() {
        let mut tty = device("/sys/devices/x/tty/ttyUSB0", "tty");
        tty.node = Some(DevNode {
            path: "/dev/ttyUSB0".into(),
            num: DevNum {
                kind: DevKind::Char,
                major: 188,
                minor: 0,
            },
        });
        assert_eq!(name(&tty).as_deref(), Some("c188:0"));
        let interface = device("/sys/devices/usb1/1-1/1-1:1.0", "usb");
        assert_eq!(name(&interface).as_deref(), Some("+usb:1-1:1.0"));
        let mut net = device("/sys/devices/usb1/1-1/1-1:1.0/net/eth1", "net");
        assert_eq!(name(&net), None);
        net.properties.insert("IFINDEX".to_owned(), "4".to_owned());
        assert_eq!(name(&net).as_deref(), Some("n4"));
        assert_eq!(name(&Device::new(SysPath::new("/sys/devices/x"))), None);
        assert_eq!(name(&device("/sys/devices/x y", "usb")), None);
    }

    #[test]
    fn each_name_that_udev_gives_an_entry_is_read_back_and_no_other() {
        for name in ["c188:0", "b8:1", "n4", "+usb:1-1:1.0"] {
            let id = DatabaseId::parse(name);
            assert_eq!(id.map(|id| id.to_string()).as_deref(), Some(name));
        }
        for name in [
            "", "c188", "c188:0:1", "b8:01", "n", "n04", "n+4", "+usb:a/b", "+usb:a b", "x1:1",
        ] {
            assert_eq!(DatabaseId::parse(name), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn a_name_is_a_file_name_and_is_read_back(
            subsystem in ".{0,6}",
            sysname in "[^/]{0,300}",
            major in 0u32..4096,
            is_node: bool,
        ) {
            let mut device = device(&format!("/sys/devices/{sysname}"), &subsystem);
            if is_node {
                let num = DevNum { kind: DevKind::Block, major, minor: major };
                device.node = Some(DevNode { path: "/dev/x".into(), num });
            }
            if let Some(id) = DatabaseId::of(&device) {
                let name = id.to_string();
                prop_assert!(is_file_name(&name) && !name.contains('/'));
                prop_assert_eq!(DatabaseId::parse(&name), Some(id));
            }
        }

        #[test]
        fn any_name_is_read_or_refused(name in ".{0,20}") {
            if let Some(id) = DatabaseId::parse(&name) {
                prop_assert_eq!(id.to_string(), name);
            }
        }
    }
}
