//! The device plugin with a simulated kubelet (tests/support/kubelet.rs): level L1 of
//! kubernetes.md. The ignored tests need root: their devices are real.

#[path = "../support/api_server.rs"]
mod api_server;
#[path = "../support/device_plugin.rs"]
mod device_plugin;
#[path = "../support/kubelet.rs"]
mod kubelet;
#[path = "../support/port.rs"]
mod port;
#[path = "../support/record.rs"]
mod record;
#[path = "../support/release.rs"]
mod release;
#[path = "../support/usbip_server/mod.rs"]
#[allow(dead_code, reason = "the virtual machine's tests use more of it")]
mod usbip_server;

mod cdi_specs;
mod configuration;
mod devices;
mod documentation;
mod engine;
mod events;
mod foreign_client;
mod generic;
mod image;
mod manifests;
mod monitoring;
mod pods;
mod registration;
mod status;
mod usbip;

use std::process::Command;
use std::time::Duration;

use oci_hotplug::model::yaml::{Dialect, from_str};

/// Checks that most of several times are below `limit`. Other work on the machine delays single
/// times, by many seconds while it waits for its disk; a fault of the plugin delays most of them.
#[track_caller]
fn took_less_than(limit: Duration, mut times: Vec<Duration>) {
    times.sort();
    println!("took {times:?}");
    assert!(times[times.len() / 2] < limit, "took {times:?}");
}

/// Parses a YAML document.
#[track_caller]
fn yaml(text: &str) -> serde_json::Value {
    from_str(text, Dialect::Core).unwrap_or_else(|error| panic!("{text}\n{error}"))
}

/// The standard output of a command that must succeed.
#[track_caller]
fn stdout_of(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("start {command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}
