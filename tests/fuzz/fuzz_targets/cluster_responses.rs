//! What must hold is in ../properties/cluster_responses.rs.

#![no_main]

#[path = "../properties/mod.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|input: &[u8]| properties::hold("cluster_responses", input));
