//! What must hold is in ../properties/plugin_configuration.rs.

#![no_main]

#[path = "../properties/mod.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|input: &[u8]| properties::hold("plugin_configuration", input));
