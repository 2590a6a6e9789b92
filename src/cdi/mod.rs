//! The Container Device Interface: specs that carry our hooks into engines without hooks.d, and a look at all the
//! specs that engines would read here.
//!
//! ```text
//! directories -> document (one file; fault: what is wrong, and where) -> rules -> directories::resolve
//! generate: requests -> document -> rules -> file (temp + rename)
//! ```
//! Must not know how a request is matched. Only the operator's tool uses it: no hook and no watcher does.

pub mod directories;
pub mod document;
pub mod fault;
mod fields;
pub mod generate;
pub mod live;
pub mod names;
mod reference;
pub mod rules;
