//! A uevent as it arrives on a netlink socket: whether its sender is genuine, and its properties.
//!
//! Accepts what libudev's monitors accept (systemd, src/libsystemd/sd-device/device-monitor.c), and
//! in each multicast group only the form of that group.

use super::UeventForm;
use super::udev_header::{HEADER, MAGIC};

/// Bytes of udevd's header that are read: prefix, magic, header size, offset and length of the
/// properties.
const READ_OF_HEADER: usize = 24;

/// The sender of a message, as the kernel states it for each message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sender {
    /// The netlink port; 0 is the kernel.
    pub port: u32,
    /// The multicast groups that the message was sent to, as a bit mask; 0 for a unicast message.
    pub groups: u32,
    /// The user id of the sender (SCM_CREDENTIALS); `None` if the message came without it.
    pub user: Option<u32>,
}

impl UeventForm {
    /// The multicast group that carries messages of this form, as a bit mask.
    pub fn group(self) -> u32 {
        match self {
            Self::Kernel => 1,
            Self::Udev => 2,
        }
    }

    /// Whether a message comes from the kernel or from udevd. Any process can send messages to the
    /// port of a socket, and root in the network namespace to all of a group. `host_root` is the
    /// user id by which the receiver sees the host's root.
    pub fn is_from(self, sender: Sender, host_root: u32) -> bool {
        let is_port_right = match self {
            Self::Kernel => sender.port == 0,
            Self::Udev => true,
        };
        is_port_right && sender.groups == self.group() && sender.user == Some(host_root)
    }
}

/// A well-formed message about one object of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceivedUevent<'a> {
    /// `KEY=VALUE`, each ended by a NUL.
    body: &'a [u8],
}

/// A message that is kept after its buffer is used again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptUevent(Box<[u8]>);

impl KeptUevent {
    pub fn message(&self) -> ReceivedUevent<'_> {
        ReceivedUevent { body: &self.0 }
    }
}

impl<'a> ReceivedUevent<'a> {
    pub fn keep(&self) -> KeptUevent {
        KeptUevent(self.body.into())
    }

    /// Reads a message of this form. `None` if it is malformed, or lacks one of ACTION, DEVPATH,
    /// SUBSYSTEM and SEQNUM, which every message of the kernel and of udevd has.
    pub fn parse(form: UeventForm, message: &'a [u8]) -> Option<Self> {
        let body = match form {
            UeventForm::Kernel => body_of_kernel(message),
            UeventForm::Udev => body_of_udev(message),
        }?;
        let is_framed = body.last() == Some(&0) && entries(body).all(|entry| split(entry).is_some());
        let message = Self { body };
        (is_framed && message.is_complete()).then_some(message)
    }

    /// The value of a property; the last one where a key occurs twice.
    pub fn property(&self, key: &str) -> Option<&'a [u8]> {
        let of_key = self.properties().filter(|(known, _)| *known == key.as_bytes());
        of_key.map(|(_, value)| value).last()
    }

    /// All properties, in the order of the message.
    pub fn properties(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        entries(self.body).filter_map(split)
    }

    /// The kernel's number of the event, which udevd repeats.
    pub fn number(&self) -> u64 {
        let text = self.property("SEQNUM").unwrap_or_default().trim_ascii();
        let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
        number.unwrap_or_default()
    }

    fn is_complete(&self) -> bool {
        let has = |key| self.property(key).is_some_and(|value| !value.is_empty());
        let seqnum = self.property("SEQNUM").map(|text| text.trim_ascii());
        let is_numbered = seqnum.is_some_and(|digits| {
            digits.iter().all(u8::is_ascii_digit) && digits.iter().any(|digit| *digit != b'0')
        });
        has("ACTION") && has("DEVPATH") && has("SUBSYSTEM") && is_numbered
    }
}

/// What follows `ACTION@DEVPATH` and its NUL.
fn body_of_kernel(message: &[u8]) -> Option<&[u8]> {
    let end = message.iter().position(|byte| *byte == 0)?;
    let header = &message[..end];
    let at = header.iter().position(|byte| *byte == b'@')?;
    (header.get(at + 1) == Some(&b'/')).then(|| &message[end + 1..])
}

/// What follows the header, by the offset that the header states.
fn body_of_udev(message: &[u8]) -> Option<&[u8]> {
    let header = message.get(..READ_OF_HEADER)?;
    let is_udevs = header.starts_with(b"libudev\0") && header[8..12] == MAGIC.to_be_bytes();
    let word = |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let (offset, length) = (word(16), word(20));
    if !is_udevs || offset < HEADER {
        return None;
    }
    let end = usize::try_from(offset.checked_add(length)?).ok()?;
    message.get(usize::try_from(offset).ok()?..end)
}

/// The entries of a body, without the NUL that ends each.
fn entries(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    let body = body.strip_suffix(b"\0").unwrap_or(body);
    body.split(|byte| *byte == 0)
}

/// Key and value of an entry. Some drivers end a value with a newline: libudev drops it, and so
/// does this.
fn split(entry: &[u8]) -> Option<(&[u8], &[u8])> {
    let line = entry.split(|byte| *byte == b'\n').next()?;
    let equals = line.iter().position(|byte| *byte == b'=')?;
    (equals > 0).then(|| (&line[..equals], &line[equals + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::device::{Device, SysPath};
    use crate::model::uevent::{UeventAction, kernel_message, udev_message};
    use proptest::prelude::*;

    const KERNEL: UeventForm = UeventForm::Kernel;
    const UDEV: UeventForm = UeventForm::Udev;

    fn text(properties: &[(&str, &str)]) -> Vec<u8> {
        let entries = properties.iter().map(|(key, value)| format!("{key}={value}\0"));
        entries.collect::<String>().into_bytes()
    }

    fn kernel(header: &str, properties: &[(&str, &str)]) -> Vec<u8> {
        [header.as_bytes(), b"\0", &text(properties)].concat()
    }

    fn udev(properties: &[(&str, &str)]) -> Vec<u8> {
        let body = text(properties);
        let mut message = b"libudev\0\xfe\xed\xca\xfe".to_vec();
        for word in [HEADER, HEADER, body.len() as u32, 0, 0, 0, 0] {
            message.extend_from_slice(&word.to_ne_bytes());
        }
        message.extend(body);
        message
    }

    const WHOLE: [(&str, &str); 4] = [
        ("ACTION", "add"),
        ("DEVPATH", "/devices/a"),
        ("SUBSYSTEM", "mem"),
        ("SEQNUM", "7"),
    ];

    fn without(key: &str) -> Vec<(&'static str, &'static str)> {
        WHOLE.into_iter().filter(|(known, _)| *known != key).collect()
    }

    fn is_read(form: UeventForm, message: &[u8]) -> bool {
        ReceivedUevent::parse(form, message).is_some()
    }

    #[test]
    fn each_byte_of_the_length_and_the_offset_counts() {
        let message = udev(&WHOLE);
        assert!(is_read(UDEV, &message));
        for at in 16..24 {
            let mut changed = message.clone();
            changed[at] = changed[at].wrapping_add(16);
            assert!(!is_read(UDEV, &changed), "byte {at}");
        }
    }

    #[test]
    fn only_root_in_the_group_of_the_form_is_genuine_and_only_the_kernel_in_its_own() {
        let sender = |port, groups, user| Sender { port, groups, user };
        assert!(KERNEL.is_from(sender(0, 1, Some(0)), 0));
        assert!(UDEV.is_from(sender(4711, 2, Some(0)), 0));
        assert!(UDEV.is_from(sender(4711, 2, Some(65534)), 65534));
        assert!(!UDEV.is_from(sender(4711, 2, Some(0)), 65534));
        for (form, forged) in [
            (KERNEL, sender(4711, 1, Some(0))),
            (KERNEL, sender(0, 0, Some(0))),
            (KERNEL, sender(0, 2, Some(0))),
            (KERNEL, sender(0, 1, None)),
            (KERNEL, sender(0, 1, Some(1000))),
            (UDEV, sender(4711, 0, Some(0))),
            (UDEV, sender(4711, 1, Some(0))),
            (UDEV, sender(4711, 3, Some(0))),
            (UDEV, sender(4711, 2, Some(1000))),
            (UDEV, sender(4711, 2, None)),
        ] {
            assert!(!form.is_from(forged, 0), "{form:?} {forged:?}");
        }
    }

    #[test]
    fn each_form_is_read_and_is_not_taken_for_the_other() {
        let (kernel, udev) = (kernel("add@/devices/a", &WHOLE), udev(&WHOLE));
        for (form, message, other) in [(KERNEL, &kernel, &udev), (UDEV, &udev, &kernel)] {
            let read = ReceivedUevent::parse(form, message).unwrap();
            assert_eq!(read.property("SUBSYSTEM"), Some(&b"mem"[..]));
            assert_eq!(read.property("SUB"), None);
            assert_eq!(read.number(), 7);
            assert_eq!(read.properties().count(), 4);
            assert!(!is_read(form, other), "{form:?}");
        }
    }

    #[test]
    fn a_message_without_one_of_the_properties_that_all_have_is_dropped() {
        for key in ["ACTION", "DEVPATH", "SUBSYSTEM", "SEQNUM"] {
            assert!(
                !is_read(KERNEL, &kernel("add@/devices/a", &without(key))),
                "{key}"
            );
            let mut empty = without(key);
            empty.push((key, ""));
            assert!(!is_read(UDEV, &udev(&empty)), "{key}");
        }
        for number in ["0", "x", "-1", "00"] {
            let mut numbered = without("SEQNUM");
            numbered.push(("SEQNUM", number));
            assert!(!is_read(UDEV, &udev(&numbered)), "{number}");
        }
    }

    #[test]
    fn malformed_messages_are_dropped() {
        let good = kernel("add@/devices/a", &WHOLE);
        assert!(!is_read(KERNEL, b""));
        assert!(!is_read(KERNEL, b"add@/devices/a"));
        assert!(!is_read(KERNEL, b"add@/devices/a\0"));
        assert!(!is_read(KERNEL, &kernel("add@devices/a", &WHOLE)));
        assert!(!is_read(KERNEL, &kernel("add", &WHOLE)));
        assert!(!is_read(KERNEL, &good[..good.len() - 1]), "not ended by a NUL");
        assert!(!is_read(KERNEL, &[&good, &b"no property\0"[..]].concat()));
        assert!(!is_read(KERNEL, &[&good, &b"\0"[..]].concat()));
        assert!(!is_read(KERNEL, &[&good, &b"=value\0"[..]].concat()));

        let good = udev(&WHOLE);
        for (at, word) in [(8, 0), (16, 39), (16, u32::MAX), (20, u32::MAX), (20, 200)] {
            let mut bad = good.clone();
            bad[at..at + 4].copy_from_slice(&u32::to_ne_bytes(word));
            assert!(!is_read(UDEV, &bad), "{word} at {at}");
        }
        for length in 0..good.len() {
            assert!(!is_read(UDEV, &good[..length]), "cut to {length} bytes");
        }
    }

    #[test]
    fn a_longer_header_of_a_later_udevd_is_skipped() {
        let mut longer = udev(&WHOLE);
        longer.splice(40..40, [0xff; 8]);
        longer[16..20].copy_from_slice(&48_u32.to_ne_bytes());
        assert!(is_read(UDEV, &longer));
    }

    #[test]
    fn a_value_ends_at_its_first_newline_and_the_last_of_two_values_counts() {
        let mut properties = WHOLE.to_vec();
        properties.extend([("MODALIAS", "one"), ("MODALIAS", "two\nthree")]);
        let message = kernel("add@/devices/a", &properties);
        let read = ReceivedUevent::parse(KERNEL, &message).unwrap();
        assert_eq!(read.property("MODALIAS"), Some(&b"two"[..]));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(message in prop::collection::vec(any::<u8>(), 0..256)) {
            for form in [KERNEL, UDEV] {
                let with_header = [&udev(&WHOLE)[..], &message].concat();
                for bytes in [&message[..], &with_header, &with_header[..message.len().min(60)]] {
                    if let Some(read) = ReceivedUevent::parse(form, bytes) {
                        prop_assert!(read.properties().count() >= 4);
                    }
                }
            }
        }

        #[test]
        fn what_is_written_is_read_back(
            properties in prop::collection::btree_map("[B-CE-Z][A-Z_]{0,8}", "[ -~]{0,24}", 0..12),
        ) {
            let mut device = Device::new(SysPath::new("/sys/devices/a"));
            device.subsystem = Some("mem".into());
            device.properties = properties;
            let messages = [
                (KERNEL, kernel_message(UeventAction::Add, &device, None, Some(9))),
                (UDEV, udev_message(UeventAction::Add, &device, None, 9)),
            ];
            for (form, message) in messages {
                let read = ReceivedUevent::parse(form, &message).unwrap();
                prop_assert_eq!(read.property("SEQNUM"), Some(&b"9"[..]));
                prop_assert_eq!(read.property("DEVPATH"), Some(&b"/devices/a"[..]));
                for (key, value) in read.properties() {
                    let key = std::str::from_utf8(key).unwrap();
                    let known = device.properties.get(key).map(String::as_bytes);
                    prop_assert!(known == Some(value) || WHOLE.iter().any(|(own, _)| *own == key));
                }
                if form == UDEV {
                    prop_assert!(device.properties.keys().all(|key| read.property(key).is_some()));
                }
            }
        }
    }
}
