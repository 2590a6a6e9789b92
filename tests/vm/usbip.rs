//! Devices of other hosts, attached by `oci-hotplug usbip` and by containers' requests: those of a server in this process, which misbehaves as it is
//! told, and those of Debian's usbipd, which exports what QEMU plugs in.

use crate::container::Container;
use crate::engine::Runtime::Crun;
use crate::engine::{docker, podman, podman_image};
use crate::machine::{Machine, machine};
use crate::shell::DEADLINE;
use crate::story;
use crate::usb::UsbSerial;
use crate::usbip_server::adapter::{GET_DESCRIPTOR, SET_CONFIGURATION};
use crate::usbip_server::{Adapter, Fault, UsbipServer};

/// A server that the machine reaches at an address of its own. Whatever it attached is gone when this is dropped.
struct Remote {
    server: UsbipServer,
    /// In the machine.
    address: String,
}

impl Remote {
    fn start(machine: &Machine, adapters: Vec<Adapter>, fault: Fault) -> Self {
        machine.run("modprobe vhci-hcd");
        let server = UsbipServer::start(adapters, fault);
        let port = machine.forward(server.address.port());
        Self {
            server,
            address: format!("127.0.0.1:{port}"),
        }
    }
}

/// What the tool says when it fails.
fn failure(machine: &Machine, arguments: &str) -> String {
    let output = machine.output(&format!("oci-hotplug usbip {arguments}"));
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{arguments}: {words}");
    words
}

/// Nothing is attached, and the hubs let drivers near as before. (The tool puts the hubs right of one who was killed.)
fn nothing_is_left(machine: &Machine) {
    machine.wait_until(
        "oci-hotplug usbip ports --json | jq -e 'length == 0' && \
         test -z \"$(grep -L 1 /sys/devices/platform/vhci_hcd.*/usb*/authorized_default)\" && \
         test -z \"$(ls /run/oci-hotplug/usbip | grep -v hubs.lock)\"",
    );
}

/// The kernel's words since the test began.
fn kernel_log(machine: &Machine) -> String {
    machine.run("journalctl --no-pager -k -o cat --after-cursor=\"$(cat /run/test/cursor)\"")
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_remote_adapter_comes_into_a_running_container_and_goes() {
    let vm = machine();
    let remote = Remote::start(&vm, vec![Adapter::new("1-1", "RS001")], Fault::None);
    let device = format!("{}/0403:6001", remote.address);
    let container = podman(
        &vm,
        Crun,
        "--annotation io.oci-hotplug.devices=usb:0403:6001:RS001",
    );

    let said = vm.run(&format!("oci-hotplug usbip attach {device} --timeout {DEADLINE}"));
    assert!(
        said.starts_with(&format!("{device} is attached at port 0: /dev/bus/usb/"))
            && said.contains(" /dev/ttyUSB0\n"),
        "{said}"
    );
    assert!(
        said.ends_with("A container asks for it by usb:0403:6001:RS001"),
        "{said}"
    );
    container.gains("/dev/ttyUSB0");
    container.makes_its_own_node("/run/mine", "/dev/ttyUSB0");
    let heard = container.run(&format!(
        "exec 3<>/dev/ttyUSB0; stty raw -echo <&3; echo far away >&3; read -t {DEADLINE} words <&3; echo \"$words\""
    ));
    assert_eq!(heard, "far away");

    let ports = vm.run("oci-hotplug usbip ports");
    let line = ports.lines().nth(1).unwrap_or_default();
    let words: Vec<&str> = line.split_whitespace().collect();
    let from = format!("{}/busid:1-1", remote.address);
    assert_eq!(words[..4], ["0", "attached", "0403:6001", "RS001"], "{ports}");
    assert_eq!(words[5..], [from.as_str()], "{ports}");
    let again = failure(&vm, &format!("attach {}/busid:1-1", remote.address));
    assert!(
        again.contains("is attached to this host already, at port 0 "),
        "{again}"
    );
    let wrong = failure(&vm, "detach 1");
    assert!(wrong.contains("port 1 is not attached to this host"), "{wrong}");

    vm.run(&format!("oci-hotplug usbip detach {device}"));
    container.loses("/dev/ttyUSB0");
    container.is_refused("/run/mine");
    remote.server.wait_until_all_are_free();
    nothing_is_left(&vm);
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_device_that_is_not_the_one_is_refused_before_a_driver_sees_it() {
    let vm = machine();
    let liar = Adapter {
        true_ids: (0x0403, 0x6010),
        ..Adapter::new("1-1", "RS001")
    };
    for (adapter, which, told) in [
        (
            liar,
            "0403:6001",
            "it is 0403:6010 with serial number \"RS001\", and not 0403:6001; it was not let in",
        ),
        (
            Adapter::new("1-1", "RS001"),
            "0403:6001:RS002",
            "it is 0403:6001 with serial number \"RS001\", and not 0403:6001:RS002; it was not let in",
        ),
    ] {
        let remote = Remote::start(&vm, vec![adapter], Fault::None);
        let error = failure(
            &vm,
            &format!("attach {}/{which} --timeout {DEADLINE}", remote.address),
        );
        assert!(error.contains(told), "{error}");
        remote.server.wait_until_all_are_free();
        nothing_is_left(&vm);
    }
    vm.wait_until("journalctl --no-pager -k --after-cursor=\"$(cat /run/test/cursor)\" | grep -c 'USB disconnect' | grep 2");
    let log = kernel_log(&vm);
    assert!(
        log.contains("idVendor=0403, idProduct=6010"),
        "the kernel has seen it: {log}"
    );
    assert!(
        !log.contains("ftdi_sio") && !log.contains("now attached"),
        "{log}"
    );
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_server_that_hangs_amid_the_kernels_questions_is_let_go_of_in_time() {
    let vm = machine();
    let remote = Remote::start(
        &vm,
        vec![Adapter::new("1-1", "RS001")],
        Fault::StallAt(GET_DESCRIPTOR),
    );
    // The kernel itself never gives up: it waits for the server to confirm that it need not answer.
    let error = failure(&vm, &format!("attach {}/0403:6001 --timeout 12", remote.address));
    assert!(
        error.contains("not ready in time: its server hangs")
            && error.contains("asking it for its descriptors"),
        "{error}"
    );
    remote.server.wait_until_all_are_free();
    nothing_is_left(&vm);
    drop(remote);
    // The next one is served as if nothing had been.
    let remote = Remote::start(&vm, vec![Adapter::new("1-1", "RS001")], Fault::None);
    vm.run(&format!(
        "oci-hotplug usbip attach {}/0403:6001 --timeout {DEADLINE} && test -c /dev/ttyUSB0 && oci-hotplug usbip detach 0",
        remote.address
    ));
    nothing_is_left(&vm);
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_server_that_dies_while_its_device_is_attached_leaves_nothing_behind() {
    let vm = machine();
    let remote = Remote::start(&vm, vec![Adapter::new("1-1", "RS001")], Fault::None);
    vm.run(&format!(
        "oci-hotplug usbip attach {}/0403:6001 --timeout {DEADLINE}",
        remote.address
    ));
    drop(remote);
    vm.wait_until("test ! -e /dev/ttyUSB0");
    vm.wait_until("oci-hotplug usbip ports --json | jq -e 'length == 0'");
}

/// Lets strangers ask for a server's devices, until it is dropped.
struct Allowed<'a>(&'a Machine);

impl<'a> Allowed<'a> {
    fn server(machine: &'a Machine, address: &str) -> Self {
        machine.write(
            ALLOWED,
            &format!("[[policy.allow]]\ndevices = [\"usbip:{address}\"]\n"),
        );
        Self(machine)
    }
}

impl Drop for Allowed<'_> {
    fn drop(&mut self) {
        self.0.output(&format!("rm {ALLOWED}"));
    }
}

/// How often a device comes and goes in a test of what is left. Under emulation each time takes 1 to 2 s.
const CYCLES: u32 = 100;

const ALLOWED: &str = "/etc/oci-hotplug/config.d/60-usbip.toml";

/// What the hook says of a container that is not to start. (podman shows its code alone.)
fn refusal(machine: &Machine, options: &str) -> String {
    podman_image(machine);
    machine.run(&format!(
        "! podman run --rm --network none {options} localhost/box true 2> /dev/null && \
         journalctl --sync && journalctl --no-pager -o cat -t oci-hotplug-prestart --after-cursor=\"$(cat /run/test/cursor)\" | tail -n 1"
    ))
}

/// What is said into the adapter at `path` comes back from there. It is said again where nothing does: a serial line keeps
/// nothing for who is not ready yet, and the first words after the machine's start were seen to get lost.
fn echoes(container: &Container, path: &str) {
    let heard = container.run(&format!(
        "exec 3<>{path}; stty raw -echo <&3; for _ in $(seq 10); do \
         echo far away >&3; read -t 6 words <&3 && break; done; echo \"$words\""
    ));
    assert_eq!(heard, "far away");
}

/// Seconds since the machine was booted.
fn uptime(machine: &Machine) -> f64 {
    let seconds = machine.run("cut -d ' ' -f 1 /proc/uptime");
    seconds.parse().expect("seconds")
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_request_brings_a_remote_adapter_into_podmans_and_dockers_containers() {
    let vm = machine();
    let remote = Remote::start(&vm, vec![Adapter::new("1-1", "RS001")], Fault::None);
    let request = format!("usbip:{}/0403:6001:RS001", remote.address);
    let annotation = format!("--annotation 'io.oci-hotplug.devices={request};link=/dev/far;required'");
    let words = refusal(&vm, &annotation);
    assert!(
        words.contains("which no rule allows: to allow all devices of that host"),
        "{words}"
    );
    assert_eq!(
        remote.server.accepted(),
        0,
        "nobody made this host call another one"
    );

    let allowed = Allowed::server(&vm, &remote.address);
    let docker_options = format!("--device oci-hotplug.dev/device=annotated {annotation}");
    for engine in ["podman", "docker"] {
        let container = match engine {
            "podman" => podman(&vm, Crun, &annotation),
            _ => docker(&vm, &docker_options),
        };
        echoes(&container, "/dev/far");
        let ports = vm.run("oci-hotplug usbip ports --json | jq -r '.[].container'");
        assert_eq!(vm.run("ls /run/oci-hotplug/containers"), ports, "{engine}");
        drop(container);
        remote.server.wait_until_all_are_free();
        nothing_is_left(&vm);
        story::nothing_is_left(&vm);
    }
    drop(allowed);

    // What the administrator says needs no rule.
    let container = podman(&vm, Crun, "--annotation io.oci-hotplug.devices=usb:ffff:ffff");
    let id = vm.run("ls /run/oci-hotplug/containers");
    vm.run(&format!("oci-hotplug attach {id} '{request};path=/dev/mine'"));
    container.gains("/dev/mine");
    let explained = vm.run(&format!("oci-hotplug explain {id} /dev/ttyUSB0"));
    assert!(explained.contains("which is asked for"), "{explained}");
    let matched = vm.run(&format!("oci-hotplug match {request}"));
    assert!(matched.contains("/dev/ttyUSB0"), "{matched}");
    vm.run(&format!("oci-hotplug detach {id} '{request};path=/dev/mine'"));
    container.loses("/dev/mine");
    remote.server.wait_until_all_are_free();
    nothing_is_left(&vm);
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_required_remote_adapter_that_is_not_to_be_had_refuses_the_start_with_the_reason() {
    let vm = machine();
    let remote = Remote::start(&vm, vec![Adapter::new("1-1", "RS001")], Fault::None);
    let _allowed = Allowed::server(&vm, &remote.address);
    let refused = |which: &str| {
        let device = format!("usbip:{}/{which}", remote.address);
        refusal(
            &vm,
            &format!("--annotation 'io.oci-hotplug.devices={device};required'"),
        )
    };
    let wrong = refused("0403:6001:RS002");
    assert!(
        wrong.contains("RS001") && wrong.contains("it was not let in"),
        "{wrong}"
    );
    let absent = refused("busid:7-7");
    assert!(absent.contains("it is not exported there"), "{absent}");
    let log = kernel_log(&vm);
    assert!(!log.contains("ftdi_sio"), "{log}");
    nothing_is_left(&vm);
    story::nothing_is_left(&vm);

    // Who does not require it starts without it, and has it as soon as it is there.
    let Remote { server, address } = remote;
    let host = server.address;
    drop(server);
    let container = podman(
        &vm,
        Crun,
        &format!("--annotation 'io.oci-hotplug.devices=usbip:{address}/0403:6001;link=/dev/far'"),
    );
    let server = UsbipServer::start_at(host, vec![Adapter::new("1-1", "RS001")], Fault::None);
    container.gains("/dev/far");
    drop(container);
    server.wait_until_all_are_free();
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_remote_adapter_comes_back_under_its_link_when_its_server_was_killed() {
    let vm = machine();
    let Remote { server, address } = Remote::start(&vm, vec![Adapter::new("1-1", "RS001")], Fault::None);
    let _allowed = Allowed::server(&vm, &address);
    let container = podman(
        &vm,
        Crun,
        &format!("--annotation 'io.oci-hotplug.devices=usbip:{address}/0403:6001;link=/dev/far'"),
    );
    container.gains("/dev/far");
    // Who has it open keeps the kernel from giving the same name again.
    container.run("sleep 1000000 < /dev/far > /dev/null 2>&1 &");
    let before = container.run("readlink -f /dev/far");
    let host = server.address;
    let killed = uptime(&vm);
    drop(server);
    container.loses("/dev/far");
    eprintln!(
        "vm: gone {:.1} s after the server was killed",
        uptime(&vm) - killed
    );
    let restarted = uptime(&vm);
    // At another port of the server, too.
    let server = UsbipServer::start_at(host, vec![Adapter::new("1-2", "RS001")], Fault::None);
    container.gains("/dev/far");
    eprintln!(
        "vm: back {:.1} s after it was started again",
        uptime(&vm) - restarted
    );
    echoes(&container, "/dev/far");
    assert_ne!(container.run("readlink -f /dev/far"), before);
    drop(container);
    server.wait_until_all_are_free();
    nothing_is_left(&vm);
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_server_that_hangs_keeps_no_process_and_no_container_for_ever() {
    let vm = machine();
    let remote = Remote::start(&vm, vec![Adapter::new("1-1", "RS001")], Fault::None);
    let _allowed = Allowed::server(&vm, &remote.address);
    let start = || {
        podman(
            &vm,
            Crun,
            &format!(
                "--annotation 'io.oci-hotplug.devices=usbip:{}/0403:6001;link=/dev/far'",
                remote.address
            ),
        )
    };
    let container = start();
    container.gains("/dev/far");
    remote.server.hang(true);
    // It waits in the kernel, beyond all signals.
    container.run("cat /dev/far > /dev/null 2>&1 & echo $! > /run/reader; sleep 1; kill -9 $!");
    container.wait_until("! kill -0 $(cat /run/reader)");
    container.loses("/dev/far");
    remote.server.hang(false);
    container.gains("/dev/far");
    // The same when the container is to end.
    remote.server.hang(true);
    container.run("cat /dev/far > /dev/null 2>&1 & sleep 1");
    drop(container);
    remote.server.hang(false);
    remote.server.wait_until_all_are_free();
    nothing_is_left(&vm);
    story::nothing_is_left(&vm);
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn of_two_containers_one_has_the_remote_adapter_and_the_other_waits_for_it() {
    let vm = machine();
    let remote = Remote::start(&vm, vec![Adapter::new("1-1", "RS001")], Fault::None);
    let _allowed = Allowed::server(&vm, &remote.address);
    let request = format!("usbip:{}/0403:6001", remote.address);
    let first = podman(
        &vm,
        Crun,
        &format!("--annotation 'io.oci-hotplug.devices={request};link=/dev/far'"),
    );
    first.gains("/dev/far");
    let holder = vm.run("ls /run/oci-hotplug/containers");
    let words = refusal(
        &vm,
        &format!("--annotation 'io.oci-hotplug.devices={request};required'"),
    );
    assert!(words.contains(&format!("for container {holder}")), "{words}");
    let second = podman(
        &vm,
        Crun,
        &format!("--annotation 'io.oci-hotplug.devices={request};link=/dev/far'"),
    );
    second.run("test ! -e /dev/far");
    let waits = vm.run(&format!(
        "oci-hotplug inspect $(ls /run/oci-hotplug/containers | grep -v {holder})"
    ));
    assert!(waits.contains(&format!("for container {holder}")), "{waits}");
    echoes(&first, "/dev/far");
    drop(first);
    second.gains("/dev/far");
    echoes(&second, "/dev/far");
    drop(second);
    remote.server.wait_until_all_are_free();
    nothing_is_left(&vm);
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn whenever_its_watcher_is_killed_a_remote_adapter_is_neither_lost_nor_attached_twice() {
    let vm = machine();
    let adapters = vec![Adapter::new("1-1", "RS001")];
    let Remote { server, address } = Remote::start(&vm, adapters.clone(), Fault::StallAt(GET_DESCRIPTOR));
    let _allowed = Allowed::server(&vm, &address);
    // While the kernel asks the device who it is: the server never says so.
    let container = podman(
        &vm,
        Crun,
        &format!("--annotation 'io.oci-hotplug.devices=usbip:{address}/0403:6001;link=/dev/far'"),
    );
    let kill = "kill -9 $(pgrep oci-hotplug-wat); oci-hotplug recover";
    vm.wait_until("grep -q . /run/oci-hotplug/usbip/port-*.json");
    vm.run(kill);
    let host = server.address;
    drop(server);
    let server = UsbipServer::start_at(host, adapters, Fault::None);
    container.gains("/dev/far");
    // While it is attached: whoever has it open notices nothing.
    let ports = "oci-hotplug usbip ports --json | jq -c 'map([.port, .syspath, .container])'";
    let (accepted, before) = (server.accepted(), vm.run(ports));
    container.run("exec 3<>/dev/far; stty raw -echo <&3; sleep 1000000 <&3 & echo $! > /run/holder");
    vm.run(kill);
    echoes(&container, "/dev/far");
    assert_eq!((server.accepted(), vm.run(ports)), (accepted, before));
    // While it is gone, and is back before there is a watcher again: what was broken is attached anew.
    vm.run("kill -9 $(pgrep oci-hotplug-wat)");
    drop(server);
    let server = UsbipServer::start_at(host, vec![Adapter::new("1-1", "RS001")], Fault::None);
    vm.run("oci-hotplug recover");
    container.gains("/dev/far");
    // At the container's end.
    vm.run("kill -9 $(pgrep oci-hotplug-wat)");
    drop(container);
    server.wait_until_all_are_free();
    nothing_is_left(&vm);
    story::nothing_is_left(&vm);
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_server_that_hangs_amid_the_drivers_questions_is_let_go_of_in_time() {
    let vm = machine();
    let remote = Remote::start(
        &vm,
        vec![Adapter::new("1-1", "RS001")],
        Fault::StallAt(SET_CONFIGURATION),
    );
    let began = uptime(&vm);
    let error = failure(&vm, &format!("attach {}/0403:6001 --timeout 6", remote.address));
    assert!(
        error.contains("not ready in time: its server hangs") && error.contains("binding drivers to it"),
        "{error}"
    );
    let took = uptime(&vm) - began;
    assert!(took < 12.0, "{took} s");
    remote.server.wait_until_all_are_free();
    nothing_is_left(&vm);
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn many_remote_adapters_one_after_another_leave_nothing() {
    let vm = machine();
    let remote = Remote::start(&vm, vec![Adapter::new("1-1", "RS001")], Fault::None);
    let began = uptime(&vm);
    vm.run(&format!(
        "set -e; for i in $(seq {CYCLES}); do \
         oci-hotplug usbip attach --owner nobody --timeout {DEADLINE} {}/0403:6001 | grep -q Attached; \
         oci-hotplug usbip release --owner nobody; done",
        remote.address
    ));
    eprintln!(
        "vm: {:.2} s for one of {CYCLES} cycles",
        (uptime(&vm) - began) / f64::from(CYCLES)
    );
    remote.server.wait_until_all_are_free();
    nothing_is_left(&vm);
    vm.run(&format!(
        "! ss -tnH state established | grep -w {}",
        remote.address.rsplit(':').next().expect("a port")
    ));
    // What a container had that nobody knows any more goes with the next `recover`.
    vm.run(&format!(
        "oci-hotplug usbip attach --owner nobody --timeout {DEADLINE} {}/0403:6001 && oci-hotplug recover",
        remote.address
    ));
    nothing_is_left(&vm);
}

/// Another host: a network namespace with usbipd, behind a link that can be slow or cut.
struct Far<'a> {
    machine: &'a Machine,
    busid: String,
}

const FAR: &str = "10.77.0.2";

impl<'a> Far<'a> {
    fn export(machine: &'a Machine, serial: &str) -> Self {
        let busid = machine.run(&format!(
            "set -e; modprobe -a usbip-host vhci-hcd sch_netem; \
             ip netns add far; ip link add near type veth peer name far netns far; \
             ip addr add 10.77.0.1/24 dev near; ip link set near up; \
             ip -n far addr add {FAR}/24 dev far; ip -n far link set far up; ip -n far link set lo up; \
             ip netns exec far usbipd -D -P/run/usbipd.pid; \
             busid=$(basename $(dirname $(grep -lx {serial} /sys/bus/usb/devices/*/serial))); \
             usbip bind -b $busid >&2; echo $busid"
        ));
        machine.wait_until(&format!("oci-hotplug usbip list {FAR} | grep {busid}"));
        Self { machine, busid }
    }

    /// From now on the link is like this (tc-netem(8)).
    fn link(&self, netem: &str) {
        for (place, device) in [("", "near"), ("-n far", "far")] {
            self.machine.run(&format!(
                "tc {place} qdisc replace dev {device} root netem {netem}"
            ));
        }
    }
}

impl Drop for Far<'_> {
    fn drop(&mut self) {
        self.machine.output(&format!(
            "usbip unbind -b {}; kill $(cat /run/usbipd.pid); ip link del near; ip netns del far",
            self.busid
        ));
    }
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_remote_adapter_survives_a_slow_and_a_broken_network_and_whatever_happens_at_its_server() {
    let vm = machine();
    let adapter = vm.plug(&UsbSerial {
        serial: "FT001",
        port: "2",
    });
    vm.wait_until("test -e /dev/ttyUSB0");
    let far = Far::export(&vm, "FT001");
    let _allowed = Allowed::server(&vm, FAR);
    // 400 ms there and back.
    far.link("delay 200ms");
    let began = uptime(&vm);
    let container = podman(
        &vm,
        Crun,
        &format!("--annotation 'io.oci-hotplug.devices=usbip:{FAR}/0403:6001:FT001;link=/dev/far'"),
    );
    container.gains("/dev/far");
    eprintln!("vm: there after {:.1} s at 400 ms", uptime(&vm) - began);
    far.link("delay 0ms");
    container.talks_through(&adapter, "/dev/far");

    for (what, break_it, mend_it) in [
        (
            "a network that was cut",
            "tc qdisc replace dev near root netem loss 100%",
            "tc qdisc replace dev near root netem delay 0ms",
        ),
        (
            "an export that was ended",
            "usbip unbind -b $busid",
            "usbip bind -b $busid",
        ),
        (
            "a server that was restarted",
            "kill $(cat /run/usbipd.pid); usbip unbind -b $busid",
            "usbip bind -b $busid; ip netns exec far usbipd -D -P/run/usbipd.pid",
        ),
    ] {
        let began = uptime(&vm);
        vm.run(&format!("busid={}; {break_it}", far.busid));
        container.loses("/dev/far");
        let mended = uptime(&vm);
        vm.run(&format!("busid={}; {mend_it}", far.busid));
        container.gains("/dev/far");
        eprintln!(
            "vm: {what}: gone after {:.1} s, back {:.1} s after its end",
            mended - began,
            uptime(&vm) - mended
        );
    }
    container.talks_through(&adapter, "/dev/far");
    drop(container);
    nothing_is_left(&vm);
}

/// Debian's usbipd, which exports one of the machine's own devices, until it is dropped.
struct Usbipd<'a> {
    machine: &'a Machine,
    busid: String,
}

impl<'a> Usbipd<'a> {
    fn export(machine: &'a Machine, serial: &str) -> Self {
        let busid = machine.run(&format!(
            "modprobe usbip-host && modprobe vhci-hcd && usbipd -D -P/run/usbipd.pid && \
             basename $(dirname $(grep -lx {serial} /sys/bus/usb/devices/*/serial))"
        ));
        machine.wait_until("oci-hotplug usbip list localhost");
        machine.run(&format!("usbip bind -b {busid}"));
        Self { machine, busid }
    }
}

impl Drop for Usbipd<'_> {
    fn drop(&mut self) {
        self.machine.output(&format!(
            "usbip unbind -b {}; kill $(cat /run/usbipd.pid)",
            self.busid
        ));
    }
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn what_debians_usbipd_exports_is_served_over_ipv6_and_what_others_attach_is_left_alone() {
    let vm = machine();
    let adapter = vm.plug(&UsbSerial {
        serial: "FT001",
        port: "2",
    });
    vm.wait_until("test -e /dev/ttyUSB0");
    let usbipd = Usbipd::export(&vm, "FT001");
    let busid = &usbipd.busid;
    let list = vm.run("oci-hotplug usbip list [::1]");
    assert!(
        list.contains(busid.as_str()) && list.contains("0403:6001"),
        "{list}"
    );
    let container = podman(
        &vm,
        Crun,
        "--annotation io.oci-hotplug.devices=usb:0403:6001:FT001",
    );
    vm.run(&format!(
        "oci-hotplug usbip attach [::1]/0403:6001:FT001 --timeout {DEADLINE}"
    ));
    container.gains("/dev/ttyUSB0");
    container.talks_through(&adapter, "/dev/ttyUSB0");
    let busy = failure(&vm, &format!("attach 127.0.0.1/busid:{busid}"));
    assert_eq!(
        busy,
        format!(
            "oci-hotplug: device {busid} of usbip server 127.0.0.1 is busy: another host or container has imported it (a \
             host that vanished holds it until it is bound again there: usbip unbind, usbip bind)\n"
        )
    );
    vm.run("oci-hotplug usbip detach [::1]/0403:6001");
    container.loses("/dev/ttyUSB0");
    nothing_is_left(&vm);

    // usbip(8) itself is another one who attaches. The server takes a moment to have the device back.
    vm.wait_until(&format!("usbip attach -r 127.0.0.1 -b {busid}"));
    container.gains("/dev/ttyUSB0");
    let refused = failure(&vm, "detach 0");
    assert!(
        refused.contains("port 0 holds device 0403:6001, which oci-hotplug did not attach: it is left alone"),
        "{refused}"
    );
    container.run(": < /dev/ttyUSB0");
    vm.run("usbip detach -p 0");
    container.loses("/dev/ttyUSB0");
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn without_its_kernel_module_the_tool_says_how_to_load_it() {
    let vm = machine();
    vm.run("modprobe -r vhci-hcd");
    for verb in ["ports", "attach 127.0.0.1/0403:6001", "detach 0"] {
        assert_eq!(
            failure(&vm, verb),
            "oci-hotplug: this kernel has no virtual USB host controller (/sys/devices/platform/vhci_hcd.0 is missing): \
             load its module with `modprobe vhci-hcd`, and at each boot with a line \"vhci-hcd\" in \
             /etc/modules-load.d/usbip.conf\n"
        );
    }
}
