//! The device plugin against a kubelet of our own making (tests/support/kubelet.rs): kubernetes.md's level L1.
//! The ignored tests need root: their devices are real.

#[path = "../support/device_plugin.rs"]
mod device_plugin;
#[path = "../support/kubelet.rs"]
mod kubelet;

mod configuration;
mod devices;
mod documentation;
mod door;
mod engine;
mod foreign_client;
mod image;
mod manifests;
mod pods;
mod registration;
mod status;
