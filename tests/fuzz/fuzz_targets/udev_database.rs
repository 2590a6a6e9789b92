//! What must hold is in ../properties/udev_database.rs.

#![no_main]

#[path = "../properties/mod.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|input: &[u8]| properties::hold("udev_database", input));
