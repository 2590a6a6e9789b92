//! The decisions about USB devices of other hosts (USB/IP). Must not know how they are reached or
//! attached (`usbip`).

pub mod address;
pub(crate) mod binding;
pub(crate) mod reservation;
pub(crate) mod vhci;

/// The port of usbipd(8).
pub const DEFAULT_PORT: u16 = 3240;
