//! `oci-hotplug attach` gives devices to running containers of every engine, also to one that was
//! started without oci-hotplug, and `list` shows the name that the engine gave the container.

use crate::container::Container;
use crate::engine::Runtime::{Crun, Runc, Youki};
use crate::engine::{Engine, bundle_without_hooks};
use crate::machine::{Machine, machine};
use crate::setup::Setup;
use crate::story::nothing_is_left;
use crate::usb::{Plugged, UsbSerial};

const BOARD: &str = "usb:0403:6001:FT001";

fn plug<'a>(vm: &'a Machine, serial: &'static str, port: &'static str) -> Plugged<'a> {
    let adapter = vm.plug(&UsbSerial { serial, port });
    vm.wait_until(&format!("ls /dev/serial/by-id/*{serial}*"));
    adapter
}

/// The lines of `list` for this container, split into words.
fn listed(vm: &Machine, container: &Container) -> Vec<String> {
    let id = match container.id.len() {
        64 => &container.id[..12],
        _ => &container.id,
    };
    let list = vm.run("oci-hotplug list");
    let row = list.lines().find(|line| line.starts_with(id));
    let row = row.unwrap_or_else(|| panic!("{id} in {list}"));
    row.split_whitespace().map(str::to_owned).collect()
}

/// Attaches a device to a container without a watcher by the container's name, detaches it by the
/// id, and does the same by one of the container's processes.
fn a_container_without_us_is_attached_to(vm: &Machine, engine: &str, container: &Container) {
    let Container { id, name, .. } = container;
    assert_eq!(
        vm.run("ls /run/oci-hotplug/containers 2> /dev/null || true"),
        "",
        "{engine}: no watcher yet"
    );
    let board = plug(vm, "FT001", "2");
    let told = vm.run(&format!("oci-hotplug attach {name} '{BOARD};link=/dev/board'"));
    assert!(
        told.contains("\n  /dev/ttyUSB0  c 188:0  access rwm\n    link /dev/board"),
        "{told}"
    );
    container.talks_through(&board, "/dev/board");

    let row = listed(vm, container);
    let shown = if engine == "-" { "-" } else { name };
    assert_eq!(row[1..3], [shown.to_owned(), engine.to_owned()], "{row:?}");
    let inspected = vm.run(&format!("oci-hotplug inspect {name}"));
    assert!(inspected.contains("/dev/ttyUSB0"), "{inspected}");
    let tree = vm.run("oci-hotplug tree");
    let line = tree
        .lines()
        .find(|line| line.contains("/dev/ttyUSB0"))
        .expect("its line");
    assert!(line.ends_with(&format!(" {name}")), "{tree}");
    let explained = vm.run(&format!("oci-hotplug explain {name} /dev/ttyUSB0"));
    assert!(explained.contains(BOARD), "{explained}");

    let told = vm.run(&format!(
        "oci-hotplug detach {} '{BOARD};link=/dev/board'",
        prefix(id)
    ));
    assert!(told.contains("/dev/ttyUSB0 is removed"), "{told}");
    container.run("! test -e /dev/ttyUSB0 && ! test -L /dev/board");
    container.run_outside(&format!("oci-hotplug attach --pid $pid {BOARD}"));
    container.run(": < /dev/ttyUSB0");
    board.unplug();
    container.loses("/dev/ttyUSB0");
    let board = plug(vm, "FT001", "3");
    container.gains("/dev/ttyUSB0");
    container.talks_through(&board, "/dev/ttyUSB0");
}

/// A beginning of the id that no other container has.
fn prefix(id: &str) -> &str {
    &id[..id.len().min(10)]
}

fn engine_name(engine: Engine) -> &'static str {
    match engine {
        Engine::Podman => "podman",
        Engine::Docker => "docker",
        Engine::Containerd => "containerd",
        Engine::Crio => "cri-o",
    }
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_container_of_any_engine_that_was_started_without_us_is_attached_to_by_name_id_and_pid() {
    let vm = machine();
    for engine in Engine::ALL {
        eprintln!("vm: {engine:?}");
        let container = engine.start(&vm, &Setup::default());
        a_container_without_us_is_attached_to(&vm, engine_name(engine), &container);
        drop(container);
        nothing_is_left(&vm);
    }
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_container_of_a_runtime_alone_that_was_started_without_us_is_attached_to_by_name_id_and_pid() {
    let vm = machine();
    for runtime in [Crun, Runc, Youki] {
        eprintln!("vm: {runtime:?}");
        let container = bundle_without_hooks(&vm, runtime, &Setup::default());
        a_container_without_us_is_attached_to(&vm, "-", &container);
        drop(container);
        nothing_is_left(&vm);
    }
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_container_of_any_engine_that_has_a_watcher_is_attached_to_and_keeps_what_it_had() {
    let vm = machine();
    let _board = plug(&vm, "FT001", "2");
    let probe = plug(&vm, "FT002", "3");
    vm.run(&format!("oci-hotplug cdi generate first --device {BOARD}"));
    for engine in Engine::ALL {
        eprintln!("vm: {engine:?}");
        let setup = Setup::default().cdi("oci-hotplug.dev/device=first");
        let container = engine.start(&vm, &setup);
        container.run(": < /dev/ttyUSB0 && ! test -e /dev/ttyUSB1");
        let node = container.run("stat -c %i /dev/ttyUSB0");
        let watchers = vm.run("oci-hotplug list | wc -l");
        vm.run(&format!(
            "oci-hotplug attach {} usb:0403:6001:FT002",
            container.name
        ));
        container.talks_through(&probe, "/dev/ttyUSB1");
        assert_eq!(vm.run("oci-hotplug list | wc -l"), watchers, "no second watcher");
        vm.run(&format!(
            "oci-hotplug detach {} usb:0403:6001:FT002",
            prefix(&container.id)
        ));
        container.run(": < /dev/ttyUSB0 && ! test -e /dev/ttyUSB1");
        assert_eq!(container.run("stat -c %i /dev/ttyUSB0"), node);
    }
    vm.run("rm /etc/cdi/oci-hotplug.dev-device_first.json");
}

/// A CDI spec as a vendor's toolkit writes it: a node at another path, with mode, owner and access,
/// and edits that only an engine can make.
const VENDOR: &str = r#"{ "cdiVersion": "0.5.0", "kind": "vendor.com/probe", "devices": [ { "name": "0", "containerEdits": {
    "deviceNodes": [ { "path": "/dev/probe0", "hostPath": "/dev/ttyUSB0", "permissions": "rw", "fileMode": 432, "uid": 0, "gid": 7 } ],
    "env": [ "PROBE=0" ] } } ] }"#;

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn the_cdi_device_of_another_vendor_is_attached_in_podman_and_in_docker() {
    let vm = machine();
    let board = plug(&vm, "FT001", "2");
    vm.write("/etc/cdi/vendor.com-probe.json", VENDOR);
    for engine in [Engine::Podman, Engine::Docker] {
        eprintln!("vm: {engine:?}");
        let container = engine.start(&vm, &Setup::default());
        let told = vm.run(&format!(
            "oci-hotplug attach {} vendor.com/probe=0",
            container.name
        ));
        assert!(told.contains("\n  /dev/probe0  c 188:0  access rw\n"), "{told}");
        assert!(
            told.contains("vendor.com/probe=0: not possible in a running container: environment PROBE=0"),
            "{told}"
        );
        assert_eq!(container.run("stat -c '%a %u %g' /dev/probe0"), "660 0 7");
        container.talks_through(&board, "/dev/probe0");
        vm.run(&format!(
            "oci-hotplug detach {} vendor.com/probe=0",
            container.name
        ));
        container.run("! test -e /dev/probe0");
    }
    vm.run("rm /etc/cdi/vendor.com-probe.json");
}
