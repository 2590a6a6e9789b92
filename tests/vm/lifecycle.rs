//! What engines, systemd and operators do to a container while it runs: update, restart, stop, kill, reboot.

use crate::container::Container;
use crate::engine::Runtime::Crun;
use crate::engine::{docker, podman, podman_image};
use crate::machine::machine;
use crate::story::nothing_is_left;
use crate::usb::UsbSerial;

const ANY_ADAPTER: &str = "--annotation io.oci-hotplug.devices=usb:0403:6001";

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

/// Docker 26.1 starts such containers before it knows CDI (moby issue 49989): there it takes one `docker start`.
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
    let dockers = docker(
        &vm,
        &format!("--restart always --device oci-hotplug.dev/device=annotated {ANY_ADAPTER}"),
    );
    vm.run("systemctl enable podman-restart.service docker.service");
    vm.reboot(|| {
        vm.qmp().execute("system_reset", serde_json::json!({}));
    });
    vm.wait_until("podman ps --format '{{.Status}}' | grep Up");
    container.gains("/dev/ttyUSB0");
    container.talks_through(&adapter, "/dev/ttyUSB0");
    vm.wait_until("systemctl is-active docker");
    eprintln!(
        "vm: Docker's container after the reboot: {}",
        vm.run("docker inspect --format '{{.State.Status}} {{.State.ExitCode}} {{.State.Error}}' $(docker ps -aq)")
    );
    vm.run("docker start $(docker ps -aq)");
    dockers.run(": < /dev/ttyUSB0");
    adapter.unplug();
    container.loses("/dev/ttyUSB0");
    dockers.loses("/dev/ttyUSB0");
    vm.run("systemctl disable podman-restart.service docker.service");
}
