//! What engines, systemd and operators do to a running container: update, restart, stop, kill,
//! reboot.

use serde_json::json;

use crate::container::Container;
use crate::engine::Runtime::Crun;
use crate::engine::{bundle_directory, docker, our_hooks, podman, podman_image};
use crate::machine::{Machine, machine};
use crate::setup::Setup;
use crate::story::nothing_is_left;
use crate::usb::{Plugged, UsbSerial};

const ANY_ADAPTER: &str = "--annotation io.oci-hotplug.devices=usb:0403:6001";

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_container_that_is_restarted_or_killed_leaves_nothing_and_starts_again() {
    let vm = machine();
    let _adapter = vm.plug(&UsbSerial {
        serial: "FT001",
        port: "2",
    });
    vm.wait_until("test -e /dev/ttyUSB0");
    let container = podman(&vm, Crun, ANY_ADAPTER);
    vm.run("podman restart -t 2 -l");
    container.run(": < /dev/ttyUSB0");
    // For a moment there are two watchers: the one of the systemd unit takes over from the one that
    // the hook started.
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
    let container = Container::new(&vm, "podman exec -i board".into(), stop.into());
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

/// Docker 26.1 starts such containers before it knows CDI devices (moby#49989): after a reboot they
/// need `docker start`.
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
    vm.reboot();
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

/// crun starts no poststop hook in this case: the watcher notices by itself that the container did
/// not start.
#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_container_whose_later_hook_fails_leaves_nothing_under_crun() {
    let vm = machine();
    let _adapter = plug(&vm, "FT001", "2");
    let begun = vm.run("journalctl --quiet --lines=0 --show-cursor | sed 's/-- cursor: //'");
    let setup = Setup::default().annotation("io.oci-hotplug.devices", "usb:0403:6001");
    let mut hooks = our_hooks();
    let later = hooks["createRuntime"].as_array_mut().expect("a list");
    later.push(json!({ "path": "/bin/false" }));
    let name = bundle_directory(&vm, &setup, &hooks);
    let created = vm.output(&format!(
        "cd /run/{name} && crun create {name} < /dev/null > output 2>&1"
    ));
    assert!(!created.status.success(), "crun goes on after a hook that fails");
    nothing_is_left(&vm);

    let later = "/usr/share/containers/oci/hooks.d/zz-later.json";
    vm.write(
        later,
        r#"{ "version": "1.0.0", "hook": { "path": "/bin/false" }, "stages": ["createRuntime"],
            "when": { "annotations": { "^io\\.oci-hotplug\\.devices$": "." } } }"#,
    );
    podman_image(&vm);
    let run = vm.output(&format!(
        "podman run --rm --network none {ANY_ADAPTER} localhost/box true"
    ));
    vm.run(&format!("rm {later}"));
    assert!(!run.status.success(), "podman goes on after a hook that fails");
    nothing_is_left(&vm);
    vm.wait_until("test -z \"$(systemctl list-units --all --plain --no-legend 'oci-hotplug*')\"");
    // The device was attached to both containers.
    let attached = vm.run(&format!(
        "journalctl --quiet --after-cursor '{begun}' OCI_HOTPLUG_EVENT=attached OCI_HOTPLUG_NODE=/dev/ttyUSB0 -o cat | wc -l"
    ));
    assert_eq!(attached, "2");
}

fn plug<'a>(vm: &'a Machine, serial: &'static str, port: &'static str) -> Plugged<'a> {
    let adapter = vm.plug(&UsbSerial { serial, port });
    vm.wait_until(&format!("ls /dev/serial/by-id/*{serial}*"));
    adapter
}

/// A container whose init writes down SIGHUP and ends with status 7 at SIGTERM.
fn with_policy<'a>(machine: &'a Machine, policy: &str) -> Container<'a> {
    podman_image(machine);
    let name = machine.new_name("removal");
    machine.run(&format!(
        "podman run -d --name {name} --network none \
         --annotation 'io.oci-hotplug.devices=usb:0403:6001;on-removal={policy}' localhost/box \
         sh -c 'trap \"echo hup > /tmp/signal\" HUP; trap \"exit 7\" TERM; while :; do sleep 3600 & wait $!; done'"
    ));
    Container::new(
        machine,
        format!("podman exec -i {name}"),
        format!("podman rm -f -t 2 {name}"),
    )
    .known_as("", &name)
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_removed_adapter_has_the_effect_on_each_container_that_its_request_names() {
    let vm = machine();
    let containers = ["keep", "signal:HUP", "stop", "kill"].map(|policy| with_policy(&vm, policy));
    let adapter = plug(&vm, "FT001", "2");
    for container in &containers {
        container.gains("/dev/ttyUSB0");
    }
    adapter.unplug();
    let becomes = |container: &Container<'_>, state: &str| {
        let inspect = "podman inspect --format '{{.State.Status}} {{.State.ExitCode}}'";
        vm.wait_until(&format!("test \"$({inspect} {})\" = '{state}'", container.name));
    };
    let [keep, signal, stop, kill] = &containers;
    becomes(stop, "exited 7");
    becomes(kill, "exited 137");
    signal.wait_until("grep hup /tmp/signal");
    keep.loses("/dev/ttyUSB0");
    keep.run("test ! -e /tmp/signal");
    let _adapter = plug(&vm, "FT001", "2");
    for running in [keep, signal] {
        running.gains("/dev/ttyUSB0");
        becomes(running, "running 0");
    }
}

/// The machine's clock, which is set back when this is dropped.
struct Clock<'a> {
    machine: &'a Machine,
    /// When the machine was booted, in seconds since 1970.
    booted: String,
}

impl<'a> Clock<'a> {
    fn new(machine: &'a Machine) -> Self {
        let booted = machine.run("echo $(($(date +%s) - $(cut -d. -f1 /proc/uptime)))");
        Self { machine, booted }
    }

    fn set(&self, days: i32) -> std::process::Output {
        self.machine.output(&format!(
            "date -s @$(({} + $(cut -d. -f1 /proc/uptime) + {days} * 86400))",
            self.booted
        ))
    }

    fn jumps_to_days_from_now(&self, days: i32) {
        assert!(self.set(days).status.success());
    }
}

impl Drop for Clock<'_> {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_clock_that_jumps_by_days_loses_no_record_and_no_lease_and_delays_no_start() {
    let vm = machine();
    assert_eq!(
        vm.run("timedatectl show -P NTP"),
        "no",
        "nobody else sets the clock"
    );
    let clock = Clock::new(&vm);
    let adapter = plug(&vm, "FT001", "2");
    let alone = "--annotation 'io.oci-hotplug.devices=usb:0403:6001:FT001;exclusive,usb:0403:6001:FT002'";
    let first = podman(&vm, Crun, alone);
    first.run(": < /dev/ttyUSB0");
    let second = podman(&vm, Crun, alone);
    second.run("! test -e /dev/ttyUSB0");
    let records = || {
        vm.run("oci-hotplug list --json | jq -c '.containers | map([.id, .health, .attached, .requests])'")
    };
    vm.wait_until("test $(pgrep -c oci-hotplug-wat) = 2");
    let before = records();
    for days in [1, -1] {
        clock.jumps_to_days_from_now(days);
        // Running watchers continue; the missing ones are started.
        vm.run("oci-hotplug recover");
        assert_eq!(records(), before);
        first.talks_through(&adapter, "/dev/ttyUSB0");
        let other = plug(&vm, "FT002", "3");
        first.gains("/dev/ttyUSB1");
        second.gains("/dev/ttyUSB1");
        other.unplug();
        first.loses("/dev/ttyUSB1");
        // systemd restarts a watcher that is killed, and a new container starts as fast as before.
        let starts =
            "systemctl list-units --plain --no-legend --state=running 'oci-hotplug-watcher@*' | wc -l";
        let killed = vm.run("pid=$(pgrep -n oci-hotplug-wat); kill -9 $pid; echo $pid");
        vm.wait_until(&format!(
            "! test -e /proc/{killed} && test $({starts}) = 2 && test $(pgrep -c oci-hotplug-wat) = 2"
        ));
        let from = vm.run("cut -d ' ' -f 1 /proc/uptime");
        let third = podman(
            &vm,
            Crun,
            "--annotation io.oci-hotplug.devices=usb:0403:6001:FT002",
        );
        let took = vm
            .run("cut -d ' ' -f 1 /proc/uptime")
            .parse::<f64>()
            .expect("seconds")
            - from.parse::<f64>().expect("seconds");
        eprintln!("vm: a start took {took:.1} s");
        assert!(took < 20.0, "a start took {took} s");
        drop(third);
        vm.wait_until("test $(oci-hotplug list --json | jq '.containers | length') = 2");
    }
    drop(first);
    second.gains("/dev/ttyUSB0");
    second.talks_through(&adapter, "/dev/ttyUSB0");
    drop(second);
    nothing_is_left(&vm);
    assert_eq!(vm.run("find /run/oci-hotplug/leases -type f"), "");
}
