//! Servers, networks and permissions for the tests of remote devices, and checks of what must not
//! be left behind.

use crate::container::Container;
use crate::engine::Runtime::Crun;
use crate::engine::{podman, podman_image};
use crate::machine::Machine;
use crate::shell::DEADLINE;
use crate::usb::{Plugged, UsbSerial};
use crate::usbip_server::{Adapter, Fault, UsbipServer};

/// A USB/IP server that the machine reaches at a separate address. Whatever was attached from it is
/// detached when this is dropped.
pub struct Remote {
    pub server: UsbipServer,
    /// Its port in the machine.
    pub address: String,
}

impl Remote {
    pub fn start(machine: &Machine, adapters: Vec<Adapter>, fault: Fault) -> Self {
        machine.run("modprobe vhci-hcd");
        let server = UsbipServer::start(adapters, fault);
        let port = machine.forward(server.address.port());
        Self {
            server,
            address: format!("127.0.0.1:{port}"),
        }
    }
}

/// The error of a failed `oci-hotplug usbip` command.
pub fn failure(machine: &Machine, arguments: &str) -> String {
    let output = machine.output(&format!("oci-hotplug usbip {arguments}"));
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{arguments}: {words}");
    words
}

/// A command that makes the worker attach a device for a container; it succeeds when the device is
/// attached.
pub fn attach_for(container: &str, device: &str) -> String {
    let work = format!(
        r#"{{"attach":{{"device":"{device}","container":"{container}","last":null,"timeout":{{"secs":{DEADLINE},"nanos":0}}}}}}"#
    );
    worker(&work)
}

/// A command that makes the worker release all devices of a container; it succeeds when they are
/// detached.
pub fn release_of(container: &str) -> String {
    worker(&format!(r#"{{"release":{{"container":"{container}"}}}}"#))
}

fn worker(work: &str) -> String {
    format!(
        r#"echo '{{"state_dir":"/run/oci-hotplug","work":{work}}}' | /usr/libexec/oci/hooks.d/oci-hotplug-usbip | tee /dev/stderr | grep -q '^{{"Ok":'"#
    )
}

/// Checks that nothing is attached, and that the hubs authorize new devices as before. (After a
/// worker was killed, the tool restores the hubs.)
pub fn nothing_is_left(machine: &Machine) {
    machine.wait_until(
        "oci-hotplug usbip ports --json | jq -e '.ports == []' && \
         test -z \"$(grep -L 1 /sys/devices/platform/vhci_hcd.*/usb*/authorized_default)\" && \
         test -z \"$(ls /run/oci-hotplug/usbip | grep -v hubs.lock)\"",
    );
}

/// The kernel's messages since the test began.
pub fn kernel_log(machine: &Machine) -> String {
    machine
        .run("journalctl --sync; journalctl --no-pager -k -o cat --after-cursor=\"$(cat /run/test/cursor)\"")
}

/// Allows untrusted requests to select a server's devices until this is dropped.
pub struct Allowed<'a>(&'a Machine);

impl<'a> Allowed<'a> {
    pub fn server(machine: &'a Machine, address: &str) -> Self {
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

pub const ALLOWED: &str = "/etc/oci-hotplug/config.d/60-usbip.toml";

/// The hook's message about a container that it refuses. (podman shows the exit code only.)
pub fn refusal(machine: &Machine, options: &str) -> String {
    podman_image(machine);
    machine.run(&format!(
        "! podman run --rm --network none {options} localhost/box true 2> /dev/null && \
         journalctl --sync && journalctl --no-pager -o cat -t oci-hotplug-prestart --after-cursor=\"$(cat /run/test/cursor)\" | tail -n 1"
    ))
}

/// Checks that bytes sent to the adapter at `path` come back from there.
pub fn echoes(container: &Container, path: &str) {
    let heard = container.run(&format!(
        "exec 3<>{path}; stty raw -echo <&3; echo far away >&3; read -t {DEADLINE} words <&3; echo \"$words\""
    ));
    assert_eq!(heard, "far away");
}

/// Seconds since the machine was booted.
pub fn uptime(machine: &Machine) -> f64 {
    let seconds = machine.run("cut -d ' ' -f 1 /proc/uptime");
    seconds.parse().expect("seconds")
}

/// A container of podman with this request.
pub fn asking_for<'a>(machine: &'a Machine, request: &str) -> Container<'a> {
    podman(
        machine,
        Crun,
        &format!("--annotation 'io.oci-hotplug.devices={request}'"),
    )
}

/// A failure between a host and [`Far`], and how it is started and ended: shell commands that use
/// `$busid`.
pub const BREAKS: [(&str, &str, &str); 3] = [
    (
        "the network is cut",
        "tc qdisc replace dev near root netem loss 100%",
        "tc qdisc replace dev near root netem delay 0ms",
    ),
    (
        "the export is ended (usbip unbind, bind)",
        "usbip unbind -b $busid",
        "usbip bind -b $busid",
    ),
    (
        "usbipd is restarted, and the device bound again",
        "kill $(cat /run/usbipd.pid); usbip unbind -b $busid",
        "ip netns exec far usbipd -D -P/run/usbipd.pid; usbip bind -b $busid",
    ),
];

/// Another host: a network namespace with usbipd, behind a link that can be slowed down or cut.
pub struct Far<'a> {
    machine: &'a Machine,
    pub busid: String,
}

pub const FAR: &str = "10.77.0.2";

impl<'a> Far<'a> {
    /// Starts it with an adapter (0403:6001:FT001) that it exports.
    pub fn with_adapter(machine: &'a Machine) -> (Plugged<'a>, Self) {
        let adapter = machine.plug(&UsbSerial {
            serial: "FT001",
            port: "2",
        });
        machine.wait_until("test -e /dev/ttyUSB0");
        (adapter, Self::export(machine, "FT001"))
    }

    pub fn export(machine: &'a Machine, serial: &str) -> Self {
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

    /// Changes the link (tc-netem(8)).
    pub fn link(&self, netem: &str) {
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

/// Debian's usbipd, which exports one of the machine's own devices. It is stopped when this is
/// dropped.
pub struct Usbipd<'a> {
    machine: &'a Machine,
    pub busid: String,
}

impl<'a> Usbipd<'a> {
    pub fn export(machine: &'a Machine, serial: &str) -> Self {
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
