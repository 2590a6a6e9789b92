//! Our client against a server on 127.0.0.1 that misbehaves, and `oci-hotplug usbip` where it needs
//! no kernel module. (With the kernel's controller: tests/vm/usbip/.)

#[path = "support/json_schema.rs"]
mod json_schema;
#[path = "support/port.rs"]
mod port;
#[path = "support/usbip_server/mod.rs"]
#[allow(dead_code, reason = "the virtual machine's tests use more of it")]
mod usbip_server;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::socket::{Backlog, getsockopt, listen, sockopt};
use oci_hotplug::model::remote::address::{RemoteDevice, Server};
use oci_hotplug::usbip::client;
use oci_hotplug::usbip::task::{AttachReply, AttachTask, Release, Task, Work};
use oci_hotplug::usbip::vhci::Vhci;
use oci_hotplug::usbip::{Named, Purpose, Usbip};
use port::Port;
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

/// Exit code, reply and messages of the worker for this standard input.
fn worker(input: &str) -> (Option<i32>, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_oci-hotplug-usbip"))
        .env("OCI_HOTPLUG_CONFIG", "/no/such/configuration")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start oci-hotplug-usbip");
    let mut stdin = child.stdin.take().expect("its standard input");
    stdin.write_all(input.as_bytes()).expect("write the task");
    drop(stdin);
    let output = child.wait_with_output().expect("wait for oci-hotplug-usbip");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_worker_does_the_task_that_it_reads_and_replies_once() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let task = |work: Work| {
        let state_dir = scratch.path().to_owned();
        serde_json::to_string(&Task { state_dir, work }).expect("JSON")
    };
    let release = task(Work::Release(Release::Container("c1".into())));
    assert_eq!(
        worker(&release),
        (Some(0), "{\"Ok\":null}\n".into(), String::new())
    );
    let port = Port::reserve();
    let attach = task(Work::Attach(AttachTask {
        device: format!("{}/0403:6001", port.address).parse().expect("a device"),
        container: "c1".into(),
        last: None,
        timeout: LONG,
    }));
    let (code, reply, _) = worker(&attach);
    let reply: AttachReply = serde_json::from_str(&reply).expect("a reply");
    let failure = reply.expect_err("nothing listens there");
    assert!(!failure.is_taken && !failure.reason.is_empty(), "{failure:?}");
    assert_eq!(code, Some(0));
}

#[test]
fn the_worker_refuses_input_that_is_not_a_task() {
    let (code, reply, error) = worker("attach lab/0403:6001");
    assert_eq!((code, reply.as_str()), (Some(2), ""));
    assert!(
        error.starts_with("oci-hotplug-usbip: cannot read the task from standard input: ")
            && error.lines().count() == 1,
        "{error}"
    );
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

/// A kernel's USB/IP controllers: files that accept what is written and do nothing.
struct Kernel(tempfile::TempDir);

impl Kernel {
    fn new() -> Self {
        let kernel = Self(tempfile::tempdir().expect("a scratch directory"));
        let control = kernel.control();
        for (hub, speed) in [("usb3", "480"), ("usb4", "5000")] {
            fs::create_dir_all(control.join(hub)).expect("a hub");
            fs::write(control.join(hub).join("speed"), speed).expect("its speed");
            fs::write(control.join(hub).join("authorized_default"), "1\n").expect("its rule");
        }
        fs::write(control.join("nports"), "4\n").expect("ports");
        fs::write(control.join("attach"), "").expect("a file to write to");
        fs::write(control.join("detach"), "").expect("a file to write to");
        kernel.shows("006 002 00010009", "004 000 00000000");
        kernel
    }

    /// The ports of the high-speed hub: 0 and 1.
    fn shows(&self, zero: &str, one: &str) {
        let status = format!(
            "hub port sta spd dev      sockfd local_busid\nhs  0000 {zero} 000003 0-0\nhs  0001 {one} 000003 0-0\n\
             ss  0002 004 000 00000000 000000 0-0\nss  0003 004 000 00000000 000000 0-0\n"
        );
        // Replace the file at once, as the kernel shows it: no reader may see half of it.
        let (part, whole) = (self.control().join("part"), self.control().join("status"));
        fs::write(&part, status).expect("a status");
        fs::rename(part, whole).expect("a status in its place");
    }

    fn control(&self) -> std::path::PathBuf {
        self.0.path().join("vhci_hcd.0")
    }

    fn usbip(&self) -> Usbip {
        let vhci = Vhci::open_below(self.0.path()).expect("controllers");
        Usbip::new(vhci, &self.state())
    }

    fn state(&self) -> std::path::PathBuf {
        self.0.path().join("state")
    }

    fn was_told(&self, file: &str) -> String {
        fs::read_to_string(self.control().join(file)).expect("what was written")
    }
}

fn attach(kernel: &Kernel, server: &UsbipServer, which: &str, patience: Duration) -> String {
    let device: RemoteDevice = format!("{}/{which}", server.address).parse().expect("a device");
    let began = Instant::now();
    let error = kernel
        .usbip()
        .attach(&device, &Purpose::default(), patience)
        .expect_err("a fault");
    assert!(began.elapsed() < LONG, "{:?}", began.elapsed());
    error.to_string().replace(&server.address.to_string(), "SERVER")
}

#[test]
fn a_failed_import_is_reported_and_changes_nothing_in_the_kernel() {
    for (fault, which, patience, told) in [
        (
            Fault::Status(2),
            "0403:6001",
            LONG,
            "device 1-1 of usbip server SERVER is busy: another host or container has imported it (a host that vanished \
             holds it until it is bound again there: usbip unbind, usbip bind)",
        ),
        (
            Fault::Status(1),
            "0403:6001",
            LONG,
            "device 1-1 of usbip server SERVER: the server refuses it without a reason (status 1): it is in use, or not \
             exported",
        ),
        (
            Fault::Status(3),
            "busid:1-1",
            LONG,
            "device 1-1 of usbip server SERVER: it is in an error state there (bind it again: usbip unbind, usbip bind)",
        ),
        (
            Fault::None,
            "busid:7-7",
            LONG,
            "device 7-7 of usbip server SERVER: it is not exported there (usbip bind)",
        ),
        (
            Fault::None,
            "1050:0407",
            LONG,
            "usbip server SERVER exports no device 1050:0407 that is free (a device in use is not in its list); it has: \
             1-1 0403:6001",
        ),
        (
            Fault::WrongBusId,
            "busid:1-1",
            LONG,
            "usbip server SERVER: it gave device 9-9 instead of 1-1",
        ),
        (
            Fault::CloseAfter(319),
            "busid:1-1",
            LONG,
            "usbip server SERVER: it closed the connection while importing a device",
        ),
        (
            Fault::Drip(Duration::from_millis(50)),
            "busid:1-1",
            SHORT,
            "usbip server SERVER: no answer in time while importing a device (it is down, hangs, or a firewall drops what \
             is sent there)",
        ),
    ] {
        let (kernel, server) = (Kernel::new(), one(fault));
        assert_eq!(attach(&kernel, &server, which, patience), told, "{fault:?}");
        assert_eq!(kernel.was_told("attach"), "", "{fault:?}");
        server.wait_until_all_are_free();
    }
}

#[test]
fn a_device_that_never_appears_is_abandoned_and_leaves_nothing() {
    let (kernel, server) = (Kernel::new(), one(Fault::None));
    let told = attach(&kernel, &server, "0403:6001", SHORT);
    assert_eq!(
        told,
        "device SERVER/busid:1-1 was not ready in time: its server hangs, or the network is slow; the kernel was asking it \
         for its descriptors (--timeout allows more time)"
    );
    // Port 0 is in use; 65538 is bus 1, device 2; the speed is full speed.
    let written = kernel.was_told("attach");
    let words: Vec<&str> = written.split(' ').collect();
    assert_eq!((words[0], &words[2..]), ("1", &["65538", "2"][..]), "{written}");
    assert_eq!(
        kernel.was_told("detach"),
        "",
        "the port was never used: nothing to detach"
    );
    for hub in ["usb3", "usb4"] {
        assert_eq!(kernel.was_told(&format!("{hub}/authorized_default")), "1\n");
    }
    server.wait_until_all_are_free();
    let left: Vec<_> = fs::read_dir(kernel.state().join("usbip"))
        .expect("the state")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert_eq!(left, ["hubs.lock"]);
}

/// Case README 20.
#[test]
fn a_device_of_super_plus_speed_is_attached_with_super_speed() {
    let kernel = Kernel::new();
    let adapter = Adapter {
        speed: 6,
        ..Adapter::new("1-1", "FT001")
    };
    let server = UsbipServer::start(vec![adapter], Fault::None);
    let address = server.address.to_string();
    assert!(out(&tool(&["list", &address])).contains("0403:6001  super+"));
    let told = attach(&kernel, &server, "0403:6001", SHORT);
    assert!(
        told.contains("the kernel was asking it for its descriptors"),
        "{told}"
    );
    // The first port of the SuperSpeed hub, and speed 5.
    let written = kernel.was_told("attach");
    let words: Vec<&str> = written.split(' ').collect();
    assert_eq!((words[0], &words[2..]), ("2", &["65538", "5"][..]), "{written}");
    server.wait_until_all_are_free();
}

/// Case README 20.
#[test]
fn a_device_of_unknown_speed_is_refused_with_a_hint() {
    let kernel = Kernel::new();
    let adapter = Adapter {
        speed: 0,
        ..Adapter::new("1-1", "FT001")
    };
    let server = UsbipServer::start(vec![adapter], Fault::None);
    assert_eq!(
        attach(&kernel, &server, "0403:6001", LONG),
        "device SERVER/busid:1-1: its server does not know its speed, and a wrong one breaks it (plug the device in again at \
         the server, or use another USB/IP server)"
    );
    assert_eq!(kernel.was_told("attach"), "");
    server.wait_until_all_are_free();
}

#[test]
fn a_host_without_a_free_port_reports_it_and_releases_the_device() {
    let (kernel, server) = (Kernel::new(), one(Fault::None));
    kernel.shows("006 002 00010009", "005 003 00010003");
    assert_eq!(
        attach(&kernel, &server, "0403:6001", LONG),
        "no port of the virtual USB host controllers is free for a device of full speed (`oci-hotplug usbip ports`)"
    );
    server.wait_until_all_are_free();
}

#[test]
fn a_port_that_someone_else_attached_is_not_detached() {
    let kernel = Kernel::new();
    let refused = kernel
        .usbip()
        .detach(&Named::Port(0))
        .expect_err("a refusal")
        .to_string();
    assert_eq!(
        refused,
        "cannot detach port 0: it holds a device, which oci-hotplug did not attach (`usbip detach -p 0` detaches it)"
    );
    for (named, text) in [
        (Named::Port(1), "port 1"),
        (
            Named::Device("lab/0403:6001".parse().expect("a device")),
            "lab/0403:6001",
        ),
    ] {
        let refused = kernel.usbip().detach(&named).expect_err("a refusal").to_string();
        assert_eq!(
            refused,
            format!("{text} is not attached to this host (`oci-hotplug usbip ports` shows what is)")
        );
    }
    assert_eq!(kernel.was_told("detach"), "");
}

#[test]
fn a_record_of_another_device_at_the_port_does_not_let_it_be_detached() {
    let kernel = Kernel::new();
    let record = |devid: u32| {
        format!(
            r#"{{"version":1,"port":0,"requested":"lab/0403:6001","remote":"lab/busid:1-1","devid":{devid},"speed":2,"local":null}}"#
        )
    };
    let path = kernel.state().join("usbip/port-0.json");
    fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).expect("the state");
    fs::write(&path, record(0x1_0008)).expect("a record");
    let refused = kernel
        .usbip()
        .detach(&Named::Port(0))
        .expect_err("a refusal")
        .to_string();
    assert!(refused.contains("which oci-hotplug did not attach"), "{refused}");
    assert_eq!(kernel.was_told("detach"), "");
    // The same file is sufficient if it names what is there.
    fs::write(&path, record(0x1_0009)).expect("a record");
    assert_eq!(
        kernel.usbip().attached().expect("ports")[0]
            .record
            .as_ref()
            .map(|record| record.port),
        Some(0)
    );
}

#[test]
fn an_attachment_that_a_killed_watcher_began_is_undone_by_the_next_watcher() {
    let (kernel, server) = (Kernel::new(), one(Fault::None));
    kernel.shows("006 002 00010009", "005 002 00000000");
    let path = kernel.state().join("usbip/port-1.json");
    fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).expect("the state");
    let (address, requested) = (server.address, format!("{}/0403:6001", server.address));
    let begun = format!(
        r#"{{"version":1,"port":1,"requested":"{requested}","remote":"{address}/busid:1-1","devid":65538,"speed":2,"container":"c1","local_port":1,"attempt":"a","local":null}}"#
    );
    fs::write(path, begun).expect("a record");
    let deadline = Instant::now() + LONG;
    let busid = "1-1".parse().expect("a bus id");
    // Another client has imported it, so the server no longer lists it.
    let held = client::import(&name(&server), &busid, None, deadline).expect("an import");
    let purpose = |container: &str| Purpose {
        container: Some(container.to_owned()),
        last: None,
    };
    let device: RemoteDevice = requested.parse().expect("a device");
    let refused = kernel
        .usbip()
        .attach(&device, &purpose("c2"), LONG)
        .expect_err("a refusal");
    assert!(refused.to_string().contains("for container c1"), "{refused}");
    assert_eq!(kernel.was_told("detach"), "");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while kernel.was_told("detach").is_empty() {
                assert!(Instant::now() < deadline, "nobody detaches it");
                std::thread::yield_now();
            }
            drop(held);
            server.wait_until_all_are_free();
            kernel.shows("006 002 00010009", "004 000 00000000");
        });
        let late = kernel
            .usbip()
            .attach(&device, &purpose("c1"), SHORT * 2)
            .expect_err("no device");
        assert!(late.to_string().contains("not ready in time"), "{late}");
    });
    assert_eq!(kernel.was_told("detach"), "1");
    assert!(
        kernel.was_told("attach").starts_with("1 "),
        "it was attached again"
    );
}

#[test]
fn a_connection_for_the_kernel_has_no_timeout_and_nothing_was_read_ahead() {
    let server = one(Fault::None);
    let deadline = Instant::now() + LONG;
    let imported =
        client::import(&name(&server), &"1-1".parse().expect("a bus id"), None, deadline).expect("an import");
    let connection = imported.connection;
    assert_eq!(connection.read_timeout().expect("an option"), None);
    assert_eq!(connection.write_timeout().expect("an option"), None);
    assert!(connection.nodelay().expect("an option"));
    for (option, seconds) in [
        (getsockopt(&connection, sockopt::TcpKeepIdle), 2),
        (getsockopt(&connection, sockopt::TcpUserTimeout), 5000),
    ] {
        assert_eq!(option.expect("an option"), seconds);
    }
    // A request of the kernel for the device descriptor is answered from its first byte on.
    let mut request = [0; 48];
    request[3] = 1;
    request[7] = 1;
    request[15] = 1;
    request[27] = 18;
    request[40..].copy_from_slice(&[0x80, 6, 0, 1, 0, 0, 18, 0]);
    std::io::Write::write_all(&mut &connection, &request).expect("a request");
    connection.set_read_timeout(Some(LONG)).expect("an option");
    let mut reply = [0; 48 + 18];
    (&connection).read_exact(&mut reply).expect("a reply");
    assert_eq!((reply[3], reply[48], reply[49]), (3, 18, 1));
    drop(connection);
    server.wait_until_all_are_free();
    assert_eq!(server.accepted(), 1);
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
