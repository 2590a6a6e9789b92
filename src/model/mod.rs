//! Facts and decisions: values and pure functions. No I/O, no clock, no file descriptor, no environment.

pub mod annotations;
#[cfg(test)]
pub(crate) mod any_text;
pub mod asked;
pub mod attachment;
pub mod class;
pub mod device;
pub mod device_rules;
pub mod device_tree;
pub mod engine;
pub mod event;
pub mod filter_program;
mod go_json;
pub mod grants;
pub mod hid_usages;
pub mod input_capabilities;
pub mod inventory;
mod mismatch;
pub mod named_node;
pub mod nodeless;
pub mod oci;
pub mod policy;
pub(crate) mod quoting;
pub mod readiness;
pub mod reconcile;
#[cfg(test)]
pub(crate) mod recorded;
pub mod removal;
pub mod request;
pub mod same_data;
pub mod selector;
mod serial;
pub mod symlink;
pub mod tally;
pub mod uevent;
pub mod usb_classes;
pub mod usbip;
pub mod wanted;
