//! Our client against a server on 127.0.0.1 that misbehaves, and `oci-hotplug usbip` where it needs
//! no kernel module. (With the kernel's controller: tests/vm/usbip/.)

mod attach;
mod connection;
mod controllers;
mod detach;
#[path = "../support/json_schema.rs"]
mod json_schema;
mod list;
#[path = "../support/port.rs"]
mod port;
#[path = "../support/usbip_server/mod.rs"]
#[allow(dead_code, reason = "the virtual machine's tests use more of it")]
mod usbip_server;
mod worker;

use std::process::{Command, Output};
use std::time::Duration;

use oci_hotplug::model::remote::address::Server;
use usbip_server::{Adapter, Fault, UsbipServer};

/// The deadline for what must happen at once, on a machine under load.
const LONG: Duration = Duration::from_secs(30);
/// How long to wait for what must never happen; longer than what happens before it.
const SHORT: Duration = Duration::from_secs(2);

fn one(fault: Fault) -> UsbipServer {
    UsbipServer::start(vec![Adapter::new("1-1", "FT001")], fault)
}

fn name(server: &UsbipServer) -> Server {
    server.address.to_string().parse().expect("a server")
}

fn tool(arguments: &[&str]) -> Output {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    Command::new(env!("CARGO_BIN_EXE_oci-hotplug"))
        .env_remove("OCI_HOTPLUG_CONFIG")
        .arg("--state-dir")
        .arg(scratch.path())
        .arg("usbip")
        .args(arguments)
        .output()
        .expect("start oci-hotplug")
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The error of the tool, with the server's address replaced by the same text in all runs.
fn failure(server: &str, arguments: &[&str]) -> String {
    let output = tool(arguments);
    assert_eq!(output.status.code(), Some(1), "{}", out(&output));
    String::from_utf8_lossy(&output.stderr).replace(server, "SERVER")
}
