//! systemd supervises the watchers: each has a unit, is restarted when it is killed, and outlives
//! what happens to the engine.

use crate::container::Container;
use crate::engine::Runtime::{Crun, Runc};
use crate::engine::{docker, podman};
use crate::install::install;
use crate::machine::{Machine, machine};
use crate::story::nothing_is_left;
use crate::usb::{Plugged, UsbSerial};

const ANY_ADAPTER: &str = "--annotation io.oci-hotplug.devices=usb:0403:6001";

const ANNOTATED: &str =
    "--device oci-hotplug.dev/device=annotated --annotation io.oci-hotplug.devices=usb:0403:6001";

/// The name of the only active unit.
const UNIT: &str =
    "systemctl list-units --plain --no-legend --state=running 'oci-hotplug-watcher@*' | cut -d ' ' -f 1";

fn adapter(vm: &Machine) -> Plugged<'_> {
    vm.plug(&UsbSerial {
        serial: "FT001",
        port: "2",
    })
}

/// Waits until the container's watcher belongs to a systemd unit, and returns the unit.
fn supervised(vm: &Machine) -> String {
    vm.wait_until(&format!("test -n \"$({UNIT})\""));
    // The watcher that the hook started is gone: there is one process, in the unit's cgroup.
    vm.wait_until("test $(pgrep -c oci-hotplug-wat) = 1");
    vm.wait_until("grep -q oci-hotplug.slice/oci-hotplug-watcher@ /proc/$(pgrep oci-hotplug-wat)/cgroup");
    vm.run(UNIT)
}

/// Checks that no unit of ours is loaded, whatever its state.
fn no_unit_is_left(vm: &Machine) {
    vm.wait_until("test -z \"$(systemctl list-units --all --plain --no-legend 'oci-hotplug*')\"");
}

/// kill -9: systemd restarts the watcher, which notices what happened meanwhile.
fn a_killed_watcher_is_back(vm: &Machine, container: &Container, adapter: Plugged<'_>, unit: &str) {
    let killed =
        vm.run("pid=$(pgrep oci-hotplug-wat); kill -9 $pid; cut -d ' ' -f 1 /proc/uptime; echo $pid");
    let (killed_at, pid) = killed.split_once('\n').expect("a time and a process");
    adapter.unplug();
    vm.wait_until(&format!(
        "new=$(systemctl show -P MainPID '{unit}'); test $new != 0 && test $new != {pid} && systemctl is-active '{unit}'"
    ));
    // systemd's timestamps, on the clock of /proc/uptime.
    let active = vm.run(&format!(
        "systemctl show -P ExecMainStartTimestampMonotonic '{unit}'"
    ));
    let back =
        active.parse::<f64>().expect("microseconds") / 1e6 - killed_at.parse::<f64>().expect("seconds");
    eprintln!("vm: started again after {back:.2} s");
    assert!(back < 2.0, "started again after {back} s");
    container.loses("/dev/ttyUSB0");
    let adapter = self::adapter(vm);
    container.gains("/dev/ttyUSB0");
    container.talks_through(&adapter, "/dev/ttyUSB0");
    adapter.unplug();
    container.loses("/dev/ttyUSB0");
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn podmans_watcher_lives_in_a_unit_and_comes_back_when_it_is_killed() {
    let vm = machine();
    let adapter = adapter(&vm);
    vm.wait_until("test -e /dev/ttyUSB0");
    let container = podman(&vm, Crun, ANY_ADAPTER);
    container.run(": < /dev/ttyUSB0");
    let unit = supervised(&vm);
    let id = vm.run("podman ps -lq --no-trunc");
    assert_eq!(
        unit,
        vm.run(&format!(
            "systemd-escape --template=oci-hotplug-watcher@.service {id}"
        ))
    );
    vm.wait_until(&format!(
        "systemctl status '{unit}' | grep 'Status: \"container {id}: 2 device nodes attached\"'"
    ));
    assert!(
        vm.run("oci-hotplug inspect $(podman ps -lq)")
            .contains(&format!("of {unit}\n"))
    );
    a_killed_watcher_is_back(&vm, &container, adapter, &unit);
    drop(container);
    nothing_is_left(&vm);
    no_unit_is_left(&vm);
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn dockers_watcher_outlives_docker_and_containerd() {
    let vm = machine();
    let adapter = adapter(&vm);
    let container = docker(&vm, ANNOTATED);
    container.gains("/dev/ttyUSB0");
    let unit = supervised(&vm);
    let pid = vm.run("pgrep oci-hotplug-wat");
    vm.run("systemctl restart docker containerd");
    vm.wait_until("docker exec $(docker ps -q) true");
    assert_eq!(vm.run("pgrep oci-hotplug-wat"), pid, "the watcher is another");
    container.talks_through(&adapter, "/dev/ttyUSB0");
    a_killed_watcher_is_back(&vm, &container, adapter, &unit);
    drop(container);
    nothing_is_left(&vm);
    no_unit_is_left(&vm);
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_watcher_outlives_the_service_that_podman_ran_in() {
    let vm = machine();
    let adapter = adapter(&vm);
    crate::engine::podman_image(&vm);
    // If podman is started in a service, the hook's watcher is in that service's cgroup, which is
    // killed as a whole, because conmon does not end on SIGTERM.
    vm.run(&format!(
        "systemd-run --unit starter --property KillMode=control-group --property KillSignal=SIGKILL --property RemainAfterExit=yes \
         podman run -d --name started --network none {ANY_ADAPTER} localhost/box sleep 1000000"
    ));
    vm.wait_until("podman exec started true");
    let container = Container::new(
        &vm,
        "podman exec -i started".into(),
        // Its conmon was killed: podman's first `rm` complains about that, and the second removes
        // the container.
        "podman rm -f -t 0 started || podman rm -f -t 0 started".into(),
    );
    container.gains("/dev/ttyUSB0");
    supervised(&vm);
    let pid = vm.run("pgrep oci-hotplug-wat");
    vm.run(
        "systemctl start podman.socket podman.service && systemctl stop starter podman.service podman.socket",
    );
    assert_eq!(vm.run("pgrep oci-hotplug-wat"), pid, "the watcher is another");
    container.talks_through(&adapter, "/dev/ttyUSB0");
    drop(container);
    no_unit_is_left(&vm);
}

/// systemd ends all processes of a service with it. So `attach` returns only when the watcher that
/// it started is in a separate unit.
#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_watcher_outlives_the_service_that_attach_ran_in() {
    let vm = machine();
    let adapter = adapter(&vm);
    vm.wait_until("test -e /dev/ttyUSB0");
    let service = "systemd-run --quiet --pipe --wait --collect --property KillSignal=SIGKILL";
    let attach = |container: &Container| {
        format!(
            "{service} oci-hotplug attach {} usb:0403:6001 2>&1",
            container.name
        )
    };

    let container = podman(&vm, Crun, "");
    let told = vm.run(&attach(&container));
    assert!(!told.contains("warning"), "{told}");
    assert_eq!(vm.run("pgrep -c oci-hotplug-wat"), "1");
    supervised(&vm);
    container.talks_through(&adapter, "/dev/ttyUSB0");
    drop(container);
    nothing_is_left(&vm);
    no_unit_is_left(&vm);

    // Without a unit there is nothing to wait for, and the operator is warned.
    let container = podman(&vm, Crun, "");
    vm.run("mkdir -p /etc/oci-hotplug/config.d && echo 'systemd-unit = \"none\"' > /etc/oci-hotplug/config.d/alone.toml");
    let told = vm.run(&attach(&container));
    vm.run("rm /etc/oci-hotplug/config.d/alone.toml");
    assert!(told.contains("warning: the watcher of container "), "{told}");
    vm.wait_until("! pgrep oci-hotplug-wat");
    vm.run("oci-hotplug recover");
    container.talks_through(&adapter, "/dev/ttyUSB0");
    drop(container);
    nothing_is_left(&vm);
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn an_update_moves_units_to_the_new_version_without_effect_on_the_container() {
    let vm = machine();
    let adapter = adapter(&vm);
    vm.wait_until("test -e /dev/ttyUSB0");
    let container = podman(&vm, Runc, ANY_ADAPTER);
    let unit = supervised(&vm);
    let (node, pid) = (
        container.run("stat -c '%i %z' /dev/ttyUSB0"),
        vm.run("pgrep oci-hotplug-wat"),
    );
    install(&vm);
    // Another file with the same content.
    vm.run(
        "w=/usr/libexec/oci/hooks.d/oci-hotplug-watcher; cp $w $w.new && mv $w.new $w && systemctl daemon-reload && \
         oci-hotplug recover --restart-watchers",
    );
    assert_eq!(supervised(&vm), unit);
    assert_ne!(vm.run("pgrep oci-hotplug-wat"), pid);
    assert_eq!(
        vm.run("readlink /proc/$(pgrep oci-hotplug-wat)/exe"),
        "/usr/libexec/oci/hooks.d/oci-hotplug-watcher"
    );
    assert_eq!(container.run("stat -c '%i %z' /dev/ttyUSB0"), node);
    container.talks_through(&adapter, "/dev/ttyUSB0");
    adapter.unplug();
    container.loses("/dev/ttyUSB0");
    drop(container);
    nothing_is_left(&vm);
    no_unit_is_left(&vm);
}
