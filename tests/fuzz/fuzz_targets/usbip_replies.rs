//! What must hold is in ../properties/usbip_replies.rs.

#![no_main]

#[path = "../properties/mod.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|input: &[u8]| properties::hold("usbip_replies", input));
