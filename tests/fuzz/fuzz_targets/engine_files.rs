//! What must hold is in ../properties/engine_files.rs.

#![no_main]

#[path = "../properties/mod.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|input: &[u8]| properties::hold("engine_files", input));
