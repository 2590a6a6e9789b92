//! `oci-hotplug cdi` and classes, through the real executables, in scratch directories.

mod bench;
mod generate;
mod listing;
mod reference;
mod resolve;
