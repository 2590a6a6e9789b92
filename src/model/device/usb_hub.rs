//! USB 3 hubs. Such a hub is two devices, one for each speed, at two ports that lead to the same
//! socket: a device that is plugged into the hub is below one of them. Each is the other's
//! companion.

use crate::model::device::Device;

/// How a hub's uevent property TYPE begins: class, subclass and protocol of the device descriptor,
/// in decimal (drivers/usb/core/usb.c, usb_dev_uevent). Class 9 is that of hubs.
const HUB: &str = "9/";

/// TYPE of the half for SuperSpeed (USB 3.2, table 10-3: protocol 3).
const SUPER_SPEED_HUB: &str = "9/0/3";

/// The header of a Binary device Object Store, and the offset of its type (USB 3.2, table 9-12).
const HEADER: (usize, u8) = (5, 0x0f);

/// The Container ID capability: its length, type and capability type (USB 3.2, table 9-17). The id
/// is its last 16 bytes.
const CONTAINER_ID: [u8; 3] = [20, 0x10, 0x04];

/// Whether a TYPE property is that of a hub.
pub fn is_hub(type_property: &str) -> bool {
    type_property.starts_with(HUB)
}

/// Which half of a USB 3 hub a device is, for display.
pub fn half(device: &Device) -> &'static str {
    match device.properties.get("TYPE").map(String::as_str) {
        Some(SUPER_SPEED_HUB) => "USB 3 half",
        Some(_) => "USB 2 half",
        None => "other half",
    }
}

/// The Container ID in sysfs' attribute `bos_descriptors`, which both halves of a hub share. `None`
/// if the bytes are not a BOS, if it has no such capability, or if the id is zero, which many
/// devices have.
pub fn container_id(bos: &[u8]) -> Option<[u8; 16]> {
    let header = bos.get(..HEADER.0)?;
    if header[1] != HEADER.1 {
        return None;
    }
    let mut rest = bos.get(usize::from(header[0]).max(HEADER.0)..)?;
    while let [length, ..] = *rest {
        let capability = rest.get(..usize::from(length))?;
        if capability.starts_with(&CONTAINER_ID) {
            let id = capability.last_chunk::<16>().copied();
            return id.filter(|id| *id != [0; 16]);
        }
        // A length of 0 is invalid, and would never end.
        rest = rest.get(usize::from(length).max(1)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::device::SysPath;

    const ID: [u8; 16] = *b"0123456789abcdef";

    fn bos(capabilities: &[&[u8]]) -> Vec<u8> {
        let body = capabilities.concat();
        let mut bos = vec![5, 0x0f, (5 + body.len()) as u8, 0, capabilities.len() as u8];
        bos.extend(body);
        bos
    }

    fn container(id: [u8; 16]) -> Vec<u8> {
        [&[20, 0x10, 4, 0][..], &id].concat()
    }

    #[test]
    fn the_container_id_is_found_behind_other_capabilities() {
        let usb2 = [7, 0x10, 2, 0, 0, 0, 0];
        let super_speed = [10, 0x10, 3, 0, 0x0e, 0, 3, 8, 0xbe, 0];
        assert_eq!(
            container_id(&bos(&[&usb2, &super_speed, &container(ID)])),
            Some(ID)
        );
        assert_eq!(container_id(&bos(&[&container(ID), &usb2])), Some(ID));
        assert_eq!(container_id(&bos(&[&usb2])), None);
    }

    #[test]
    fn a_zero_id_and_malformed_descriptors_are_no_container_id() {
        assert_eq!(container_id(&bos(&[&container([0; 16])])), None);
        let good = bos(&[&container(ID)]);
        for length in 0..good.len() {
            assert_eq!(container_id(&good[..length]), None, "cut to {length} bytes");
        }
        let mut not_a_bos = good.clone();
        not_a_bos[1] = 2;
        assert_eq!(container_id(&not_a_bos), None);
        assert_eq!(container_id(&bos(&[&[0, 0, 0]])), None);
    }

    #[test]
    fn the_protocol_says_which_half_a_hub_is() {
        let hub = |type_property: Option<&str>| {
            let mut device = Device::new(SysPath::new("/sys/devices/usb1/1-1"));
            let of = |text: &str| ("TYPE".to_owned(), text.to_owned());
            device.properties.extend(type_property.map(of));
            half(&device)
        };
        assert_eq!(hub(Some("9/0/3")), "USB 3 half");
        assert_eq!(hub(Some("9/0/2")), "USB 2 half");
        assert_eq!(hub(None), "other half");
        assert!(is_hub("9/0/1") && !is_hub("0/0/0") && !is_hub("99/0/0"));
    }
}
