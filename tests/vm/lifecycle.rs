//! What engines, systemd and operators do to a container while it runs: update, restart, stop, kill, reboot.

use crate::container::{Container, quoted};
use crate::engine::Runtime::{Crun, Runc};
use crate::engine::{podman, podman_image};
use crate::machine::machine;
use crate::story::nothing_is_left;
use crate::usb::UsbSerial;

const ANY_ADAPTER: &str = "--annotation io.oci-hotplug.devices=usb:0403:6001";

/// Writes a line whenever access comes or goes: the time, in seconds since boot, and whether it is there.
const ACCESS_LOG: &str = "while :; do if (: < /dev/ttyUSB0); then now=yes; else now=no; fi; \
    if [ \"$now\" != \"$was\" ]; then read up rest < /proc/uptime; echo $up $now; was=$now; fi; done";

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn podman_update_replaces_the_filter_and_access_is_back() {
    let vm = machine();
    let adapter = vm.plug(&UsbSerial {
        serial: "FT001",
        port: "2",
    });
    vm.wait_until("test -e /dev/ttyUSB0");
    for runtime in [Crun, Runc] {
        let container = podman(&vm, runtime, ANY_ADAPTER);
        container.run(&format!(
            "setsid sh -c {} > /run/access 2>/dev/null < /dev/null &",
            quoted(ACCESS_LOG)
        ));
        container.wait_until("grep yes /run/access");
        vm.run("podman update --pids-limit 100 $(podman ps -lq) && systemctl daemon-reload");
        let now = vm.run("cut -d. -f1 /proc/uptime");
        container.wait_until(&format!(
            "tail -n 1 /run/access | grep yes && test $(cut -d. -f1 /proc/uptime) -gt $(({now} + 2))"
        ));
        let longest = container.run(
            "awk '$2 == \"no\" { from = $1 } $2 == \"yes\" && from && $1 - from > most { most = $1 - from } \
             END { print most + 0 }' /run/access",
        );
        eprintln!(
            "vm: podman update with {}: without access for {longest} s",
            runtime.name()
        );
        // The watcher looks each second; the rest is the emulation's.
        assert!(
            longest.parse::<f64>().expect("seconds") < 1.5,
            "without access for {longest} s"
        );
        container.talks_through(&adapter, "/dev/ttyUSB0");
    }
    adapter.unplug();
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_container_that_is_restarted_or_killed_leaves_nothing_and_starts_anew() {
    let vm = machine();
    let _adapter = vm.plug(&UsbSerial {
        serial: "FT001",
        port: "2",
    });
    vm.wait_until("test -e /dev/ttyUSB0");
    let container = podman(&vm, Crun, ANY_ADAPTER);
    vm.run("podman restart -t 2 -l");
    container.run(": < /dev/ttyUSB0");
    // For a moment there are two: systemd's takes over from the hook's.
    vm.wait_until("test $(pgrep -c oci-hotplug-wat) = 1");
    vm.run("podman kill -l");
    nothing_is_left(&vm);
    vm.run("podman start -l");
    container.run(": < /dev/ttyUSB0");
    vm.run("podman stop -t 2 -l");
    nothing_is_left(&vm);
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_quadlet_unit_restarts_with_its_device() {
    let vm = machine();
    podman_image(&vm);
    vm.write(
        "/etc/containers/systemd/board.container",
        "[Container]\nImage=localhost/box\nContainerName=board\nNetwork=none\nPull=never\n\
         Exec=sh -c 'trap exit TERM; while :; do sleep 3600 & wait; done'\n\
         Annotation=io.oci-hotplug.devices=usb:0403:6001\n[Service]\nRestart=always\nRestartSec=0\n",
    );
    vm.run("systemctl daemon-reload && systemctl start board");
    let stop = "systemctl stop board; rm /etc/containers/systemd/board.container; systemctl daemon-reload";
    let container = Container::new(&vm, "podman exec board".into(), stop.into());
    let adapter = vm.plug(&UsbSerial {
        serial: "FT001",
        port: "2",
    });
    container.gains("/dev/ttyUSB0");
    vm.run("systemctl restart board");
    vm.wait_until("podman exec board test -c /dev/ttyUSB0");
    vm.run("podman kill board");
    vm.wait_until("podman exec board test -c /dev/ttyUSB0");
    container.talks_through(&adapter, "/dev/ttyUSB0");
    adapter.unplug();
    container.loses("/dev/ttyUSB0");
    drop(container);
    nothing_is_left(&vm);
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn containers_that_always_restart_have_their_devices_after_a_reboot() {
    let vm = machine();
    let adapter = vm.plug(&UsbSerial {
        serial: "FT001",
        port: "2",
    });
    vm.wait_until("test -e /dev/ttyUSB0");
    let container = podman(&vm, Crun, &format!("--restart always {ANY_ADAPTER}"));
    vm.run("systemctl enable --now podman-restart.service");
    vm.reboot(|| {
        vm.qmp().execute("system_reset", serde_json::json!({}));
    });
    vm.wait_until("podman ps --format '{{.Status}}' | grep Up");
    container.gains("/dev/ttyUSB0");
    container.talks_through(&adapter, "/dev/ttyUSB0");
    adapter.unplug();
    container.loses("/dev/ttyUSB0");
    vm.run("systemctl disable podman-restart.service");
}
