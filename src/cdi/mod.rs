//! The Container Device Interface: generates specs that add the hooks in engines without hooks.d,
//! and reads the specs of the host.
//!
//! ```text
//! directories -> document (one file; fault: error and position) -> rules -> directories::resolve
//! generate: requests -> document -> rules -> file (written atomically)
//! ```
//! Must not know how a request is matched. Used by the operator's tool and the device plugin; hooks
//! and watchers do not use it.

pub(crate) mod directories;
pub mod document;
pub mod fault;
mod fields;
pub mod generate;
pub(crate) mod generated_files;
pub mod names;
pub(crate) mod node_requests;
pub mod rules;
