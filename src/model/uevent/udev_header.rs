//! The header of udevd's messages (systemd's src/libsystemd/sd-device/device-monitor.c).

use crate::model::device::Device;

/// The magic of udevd's header, big endian in the message (UDEV_MONITOR_MAGIC).
pub(super) const MAGIC: u32 = 0xfeed_cafe;

/// Bytes of udevd's header; the properties follow it (`monitor_netlink_header`).
pub(super) const HEADER: u32 = 40;

/// The header: prefix, magic, own size, where the properties are (host's byte order), then the
/// hashes (big endian).
pub(super) fn header(device: &Device, properties_length: u32) -> Vec<u8> {
    let subsystem = device.subsystem.as_deref().unwrap_or_default();
    let devtype = device
        .devtype
        .as_deref()
        .map_or(0, |name| murmur2(name.as_bytes()));
    let bloom = device.tags.iter().fold(0, |bloom, tag| bloom | tag_bloom(tag));
    let mut header = Vec::with_capacity(HEADER as usize);
    header.extend_from_slice(b"libudev\0");
    header.extend_from_slice(&MAGIC.to_be_bytes());
    header.extend_from_slice(&HEADER.to_ne_bytes());
    header.extend_from_slice(&HEADER.to_ne_bytes());
    header.extend_from_slice(&properties_length.to_ne_bytes());
    header.extend_from_slice(&murmur2(subsystem.as_bytes()).to_be_bytes());
    header.extend_from_slice(&devtype.to_be_bytes());
    header.extend_from_slice(&bloom.to_be_bytes());
    header
}

/// MurmurHash2 (32 bit, seed 0) in the host's byte order: how libudev hashes subsystem, devtype and
/// tags.
pub(super) fn murmur2(text: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = text.len() as u32;
    let mut words = text.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_ne_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        hash = rest
            .iter()
            .enumerate()
            .fold(hash, |hash, (i, byte)| hash ^ (u32::from(*byte) << (8 * i)));
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// The bits of one tag in the 64-bit Bloom filter: four groups of six bits of its hash name four
/// bits.
pub(super) fn tag_bloom(tag: &str) -> u64 {
    let hash = murmur2(tag.as_bytes());
    [0, 6, 12, 18]
        .iter()
        .fold(0, |bloom, shift| bloom | 1 << ((hash >> shift) & 63))
}
