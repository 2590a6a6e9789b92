//! Every engine with real USB devices in virtual machines: tests what the table of docs/engines.md
//! promises.
//!
//! `tests/vm/prepare.sh` installs what is needed; tests/vm/README.md explains the rest.

mod attach;
mod background;
mod boundaries;
#[cfg(feature = "kubernetes")]
mod cluster;
#[cfg(feature = "kubernetes")]
mod cluster_pod;
mod container;
mod docker;
mod engine;
mod install;
#[path = "../support/json_schema.rs"]
mod json_schema;
mod kinds_of_devices;
#[cfg(feature = "kubernetes")]
mod kubelet;
mod kubernetes_engines;
mod lifecycle;
mod machine;
mod newcomer;
mod nodeless;
mod operator;
mod podman;
#[cfg(feature = "kubernetes")]
mod pods;
mod programs;
mod qmp;
#[path = "../support/release.rs"]
mod release;
mod rootless;
mod rootlesskit;
mod running_shell;
mod runtimes;
mod setup;
mod shell;
mod story;
mod supervision;
mod times;
mod usb;
mod usb3_hub;
mod usbip;
#[cfg(feature = "kubernetes")]
mod usbip_pods;
#[path = "../support/usbip_server/mod.rs"]
#[allow(dead_code, reason = "tests/usbip/ has use for more of its faults")]
mod usbip_server;
mod user;
