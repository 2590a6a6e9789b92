//! USB/IP: attaches USB devices of other hosts to this one. From then on they are devices like all
//! others.
//!
//! ```text
//! attach:  client::list (which bus ids) -> lease -> client::import -> hubs::Hold -> Vhci::attach
//!            -> admit: the device appears, without drivers -> verify -> authorize -> record
//! detach:  record -> compare with the port -> Vhci::detach -> port and sysfs are empty
//! ```
//! A device that is not the requested one is detached before any driver binds to it. Only what is
//! surely the named device is detached. All waits are bounded.

mod admit;
mod attach;
mod attachments;
pub mod client;
pub mod command;
mod detach;
mod error;
pub(crate) mod hubs;
pub mod protocol;
pub(crate) mod records;
pub mod task;
pub mod vhci;
pub(crate) mod worker;

pub use attachments::{Attached, Named, Purpose, Usbip, binding_of};
pub use error::UsbipError;
