//! oci-hotplug: hotplug for any OCI container, through OCI hooks.
//!
//! A device that matches a container's request appears in the *running* container when it is
//! plugged in. When it is pulled out, node and access are removed. No runtime is replaced or
//! wrapped.
//!
//! `docs/architecture.md` describes how a container's start and a device's uevent flow through
//! these modules, who owns which state, and where to change what. The layers, each of which imports
//! only from its own and those below it (`tests/imports.rs`):
//!
//! ```text
//! bin                            mains of a few lines
//! hook  cli  watcher  kubernetes programs: they connect decisions and effects
//! cdi  usbip                     CDI specs; USB devices of other hosts
//! host                           the Linux host as objects: effects
//! model  sys                     pure facts and decisions; system calls, the only unsafe code
//! ```
//! A module is public if a program or a test of `tests` uses it. Everything else is visible in the
//! crate alone, so that the compiler finds dead code.

#![warn(unreachable_pub)]

pub mod cdi;
pub mod cli;
mod command_line;
pub mod exit;
pub mod hook;
pub mod host;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
pub mod model;
pub mod sys;
pub mod usbip;
pub mod watcher;
