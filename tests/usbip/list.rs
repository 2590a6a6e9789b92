//! `oci-hotplug usbip` on the command line: lists of servers of every kind, help, invalid words.

use std::fs;
use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::socket::{Backlog, listen};

use super::port::Port;
use super::usbip_server::{Adapter, Fault, UsbipServer};
use super::{LONG, SHORT, failure, json_schema, name, one, out, tool};

#[test]
fn a_list_shows_what_the_server_exports() {
    let server = UsbipServer::start(
        vec![
            Adapter::new("1-1", "FT001"),
            Adapter {
                ids: (0x1050, 0x0407),
                ..Adapter::new("2-1.4", "")
            },
        ],
        Fault::None,
    );
    let address = server.address.to_string();
    assert_eq!(
        out(&tool(&["list", &address])),
        "BUSID  ID         SPEED  CLASS   PATH THERE\n\
         1-1    0403:6001  full   vendor  /sys/devices/test/1-1\n\
         2-1.4  1050:0407  full   vendor  /sys/devices/test/2-1.4\n"
    );
    let json: serde_json::Value =
        serde_json::from_str(&out(&tool(&["list", &address, "--json"]))).expect("JSON");
    json_schema::check("usbip list", &json);
    assert_eq!(json["devices"][1]["id"], "1050:0407");
    assert_eq!(json["devices"][1]["device"], format!("{address}/busid:2-1.4"));
}

#[test]
fn an_empty_list_explains_how_to_export_devices() {
    let server = UsbipServer::start(Vec::new(), Fault::None);
    let address = server.address.to_string();
    assert_eq!(
        out(&tool(&["list", &address])).replace(&address, "SERVER"),
        "SERVER exports no free device. On that host: `usbip bind --busid BUSID`; a device in use is not listed.\n"
    );
    let empty: serde_json::Value =
        serde_json::from_str(&out(&tool(&["list", &address, "--json"]))).expect("JSON");
    assert_eq!(empty["devices"], serde_json::json!([]));
}

#[test]
fn a_state_directory_on_the_command_line_needs_no_valid_configuration() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let broken = scratch.path().join("config.toml");
    fs::write(&broken, "[policy\n").expect("a configuration");
    let server = one(Fault::None);
    let output = Command::new(env!("CARGO_BIN_EXE_oci-hotplug"))
        .arg("--config")
        .arg(&broken)
        .arg("--state-dir")
        .arg(scratch.path())
        .args(["usbip", "list", &name(&server).to_string()])
        .output()
        .expect("start oci-hotplug");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{error}");
}

#[test]
fn a_server_is_found_by_name_and_an_unknown_name_is_reported() {
    let server = one(Fault::None);
    let by_name = format!("localhost:{}", server.address.port());
    assert!(out(&tool(&["list", &by_name])).contains("0403:6001"));
    let error = failure("no server", &["list", "nobody.invalid"]);
    assert!(
        error.starts_with("oci-hotplug: usbip server nobody.invalid: its name cannot be resolved: "),
        "{error}"
    );
}

#[test]
fn each_fault_of_a_server_is_reported_and_none_blocks_the_tool() {
    for (fault, told) in [
        (
            Fault::Stall,
            "no answer in time while listing its devices (it is down, hangs, or a firewall drops what is sent there)",
        ),
        (
            Fault::Drip(Duration::from_millis(20)),
            "no answer in time while listing its devices (it is down, hangs, or a firewall drops what is sent there)",
        ),
        (
            Fault::CloseAfter(0),
            "it closed the connection while listing its devices",
        ),
        (
            Fault::CloseAfter(100),
            "it closed the connection while listing its devices",
        ),
        (
            Fault::Endless,
            "it claims to export 4294967295 devices, and at most 1024 are accepted",
        ),
        (
            Fault::Http,
            "it answers in protocol version 0x4854 instead of 0x0111 (is it a usbip server?)",
        ),
    ] {
        let server = one(fault);
        let address = server.address.to_string();
        let began = Instant::now();
        assert_eq!(
            failure(&address, &["list", &address, "--timeout", "2"]),
            format!("oci-hotplug: usbip server SERVER: {told}\n"),
            "{fault:?}"
        );
        assert!(began.elapsed() < LONG, "{fault:?}: {:?}", began.elapsed());
    }
}

#[test]
fn a_port_without_a_server_is_reported() {
    let port = Port::reserve();
    let address = port.address.to_string();
    assert_eq!(
        failure(&address, &["list", &address]),
        "oci-hotplug: usbip server SERVER: connection refused: nothing listens there (start usbipd on that host, or name \
         its port: HOST:PORT)\n"
    );
}

#[test]
fn a_host_without_a_route_is_reported() {
    // An address that no packet may be sent to (RFC 1122, 3.2.1.3).
    let error = failure("no server", &["list", "255.255.255.255", "--timeout", "1"]);
    assert!(
        error.starts_with("oci-hotplug: usbip server 255.255.255.255: not reachable: "),
        "{error}"
    );
}

#[test]
fn a_server_that_never_accepts_is_abandoned_at_the_deadline() {
    // A full queue of one connection: the kernel drops further ones, as a firewall does.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listen(&listener, Backlog::new(0).expect("none")).expect("a short queue");
    let address = listener.local_addr().expect("its number");
    let queued: Vec<_> =
        std::iter::from_fn(|| std::net::TcpStream::connect_timeout(&address, SHORT).ok()).collect();
    assert!(!queued.is_empty());
    let text = address.to_string();
    assert_eq!(
        failure(&text, &["list", &text, "--timeout", "1"]),
        "oci-hotplug: usbip server SERVER: no answer in time while connecting (it is down, hangs, or a firewall drops \
         what is sent there)\n"
    );
}

#[test]
fn an_invalid_address_exits_with_2_and_a_hint() {
    for (arguments, told) in [
        (
            ["attach", "lab"],
            "no device is named behind the host: write HOST/VID:PID, such as lab:3240/0403:6001, or HOST/busid:BUSID",
        ),
        (
            ["list", "fd00::1"],
            "an IPv6 address needs brackets: write [fd00::1]",
        ),
        (
            ["detach", "lab/403:6001"],
            "vendor id must be 4 hex digits, such as 0403, or * for any",
        ),
    ] {
        let output = tool(&arguments);
        assert_eq!(output.status.code(), Some(2));
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains(told), "{error}");
    }
}

#[test]
fn help_names_every_verb_and_shows_examples() {
    let help = out(&tool(&["--help"]));
    for verb in ["list", "attach", "detach", "ports"] {
        assert!(
            help.lines().any(|line| line.trim_start().starts_with(verb)),
            "{verb} in:\n{help}"
        );
    }
    let attach = out(&tool(&["attach", "--help"]));
    assert!(
        attach.contains("oci-hotplug usbip attach lab/0403:6001:FT001"),
        "{attach}"
    );
}
