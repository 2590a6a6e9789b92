use super::*;
use proptest::prelude::*;

fn busid(text: &str) -> BusId {
    text.parse().unwrap()
}

/// The answer of Debian's usbipd 2.0 for QEMU's serial adapter, with a shortened path.
fn recorded() -> [u8; DEVICE_LEN] {
    let mut bytes = [0; DEVICE_LEN];
    bytes[..31].copy_from_slice(b"/sys/devices/pci0/0000:00/1-1\0\0");
    bytes[256..259].copy_from_slice(b"1-1");
    bytes[288..304].copy_from_slice(&[0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 2, 0x04, 0x03, 0x60, 0x01]);
    bytes[304..].copy_from_slice(&[4, 0, 0, 0, 0, 1, 1, 1]);
    bytes
}

fn list(devices: &[[u8; DEVICE_LEN]]) -> Vec<u8> {
    let mut reply = vec![1, 0x11, 0, 5, 0, 0, 0, 0];
    reply.extend((devices.len() as u32).to_be_bytes());
    for device in devices {
        reply.extend(device);
        reply.extend([0xff, 0xff, 0xff, 0].repeat(usize::from(device[311])));
    }
    reply
}

#[test]
fn requests_have_the_right_bytes() {
    assert_eq!(devlist_request(), [1, 0x11, 0x80, 5, 0, 0, 0, 0]);
    let request = import_request(&busid("1-1.4"));
    assert_eq!(request[..14], *b"\x01\x11\x80\x03\0\0\0\x001-1.4\0");
    assert!(request[13..].iter().all(|byte| *byte == 0));
    assert_eq!(import_request(&busid(&"1".repeat(31)))[39], 0, "the NUL stays");
}

#[test]
fn a_list_is_parsed_with_interfaces() {
    let devices = read_devlist(&mut list(&[recorded(), recorded()]).as_slice()).unwrap();
    assert_eq!(devices.len(), 2);
    let device = &devices[0];
    assert_eq!(
        (device.busid.as_str(), device.ids.to_string()),
        ("1-1", "0403:6001".into())
    );
    assert_eq!((device.devid(), device.speed), (0x0001_0002, Speed::new(2)));
    assert_eq!(
        (device.path.as_str(), &device.interfaces),
        ("/sys/devices/pci0/0000:00/1-1", &vec![[0xff; 3]])
    );
}

#[test]
fn reading_an_import_leaves_the_kernels_data() {
    let mut reply = vec![1, 0x11, 0, 3, 0, 0, 0, 0];
    reply.extend(recorded());
    reply.extend(b"urb");
    let mut from = reply.as_slice();
    assert_eq!(read_import(&mut from, &busid("1-1")).unwrap().ids.product, 0x6001);
    assert_eq!(from, b"urb");
    let error = read_import(&mut reply.as_slice(), &busid("1-2")).unwrap_err();
    assert_eq!(error.to_string(), "it gave device 1-1 instead of 1-2");
}

#[test]
fn an_invalid_reply_is_named() {
    for (reply, message) in [
        (
            &b"HTTP/1.1 400 Bad"[..],
            "it answers in protocol version 0x4854 instead of 0x0111 (is it a usbip server?)",
        ),
        (
            b"\x01\x11\0\x03\0\0\0\0",
            "it answers with code 0x0003 instead of 0x0005 (is it a usbip server?)",
        ),
        (b"\x01\x11\0\x05\0\0\0\x09", "the server refuses it with status 9"),
        (
            b"\x01\x11\0\x05\0\0\0\0\xff\xff\xff\xff",
            "it claims to export 4294967295 devices, and at most 1024 are accepted",
        ),
        (b"\x01\x11\0\x05\0\0\0\0\0\0", "failed to fill whole buffer"),
    ] {
        assert_eq!(read_devlist(&mut &reply[..]).unwrap_err().to_string(), message);
    }
}

#[test]
fn an_impossible_field_is_refused() {
    for (at, bytes, message) in [
        (
            256,
            &b"../x"[..],
            "it describes a device with an impossible bus id (../x)",
        ),
        (256, &[0], "it describes a device with an impossible bus id ()"),
        (
            256,
            &[b'1'; 32],
            "it describes a device with an impossible bus id (11111111111111111111111111111111)",
        ),
        (
            288,
            &[0, 1, 0, 0],
            "it describes a device with an impossible bus number (65536)",
        ),
        (
            296,
            &[0, 0, 0, 7],
            "it describes a device with an impossible speed (7)",
        ),
    ] {
        let mut device = recorded();
        device[at..at + bytes.len()].copy_from_slice(bytes);
        assert_eq!(
            read_devlist(&mut list(&[device]).as_slice())
                .unwrap_err()
                .to_string(),
            message
        );
    }
}

proptest! {
    #[test]
    fn hostile_bytes_lead_to_an_error_or_a_list_within_the_limits(
        tail in proptest::collection::vec(any::<u8>(), 0..3000),
        begins_well in any::<bool>(),
        count in 0..4_u32,
    ) {
        let mut bytes = if begins_well { vec![1, 0x11, 0, 5, 0, 0, 0, 0] } else { Vec::new() };
        bytes.extend(count.to_be_bytes());
        bytes.extend(&tail);
        match read_devlist(&mut bytes.as_slice()) {
            Ok(devices) => prop_assert!(devices.len() * DEVICE_LEN <= bytes.len()),
            Err(error) => prop_assert!(error.to_string().is_ascii() && error.to_string().len() < 300),
        }
    }

    /// Replies with a few wrong bytes reach much more of the parser than random ones.
    #[test]
    fn a_reply_with_wrong_bytes_never_shows_a_control_character(
        changes in proptest::collection::vec((0..DEVICE_LEN, any::<u8>()), 0..12),
    ) {
        let mut device = recorded();
        for (at, byte) in changes {
            device[at] = byte;
        }
        match read_devlist(&mut list(&[device]).as_slice()) {
            Ok(devices) => {
                let shown = format!("{} {}", devices[0].path, devices[0].busid);
                prop_assert!(shown.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{}", shown);
                let number = devices[0].devid();
                prop_assert_eq!(number >> 16, u32::from(devices[0].busnum));
            }
            Err(error) => prop_assert!(!error.to_string().contains(char::is_control)),
        }
    }

    #[test]
    fn an_incomplete_reply_is_an_error(keep in 0..(12 + DEVICE_LEN + 4)) {
        let reply = list(&[recorded()]);
        prop_assert!(matches!(read_devlist(&mut &reply[..keep]), Err(ReplyError::Read(_))));
    }
}
