//! Docker, which has no hooks.d, through CDI: with its command line and with Compose.

use crate::container::Container;
use crate::engine::{docker, docker_image};
use crate::machine::machine;
use crate::story::{
    a_lab_is_followed, an_adapter_comes_and_goes, lab_by_annotations, lab_by_class, nothing_is_left,
};
use crate::usb::UsbSerial;

const ANNOTATED: &str =
    "--device oci-hotplug.dev/device=annotated --annotation io.oci-hotplug.devices=usb:0403:6001";

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn docker_with_the_annotated_device_attaches_devices_while_containerd_is_restarted() {
    let vm = machine();
    let options = lab_by_annotations()
        .cdi("oci-hotplug.dev/device=annotated")
        .options();
    a_lab_is_followed(
        &vm,
        || docker(&vm, &options),
        || drop(vm.run("systemctl restart containerd")),
    );
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn docker_with_the_device_of_a_class_needs_no_annotation() {
    let vm = machine();
    let adapter = vm.plug(&UsbSerial {
        serial: "FT001",
        port: "2",
    });
    vm.wait_until("test -e /dev/ttyUSB0");
    let container = docker(&vm, "--device oci-hotplug.dev/device=lab-board");
    container.talks_through(&adapter, "/dev/ttyUSB0");
    container.run(": < /dev/ttyBOARD");
    adapter.unplug();
    container.loses("/dev/ttyBOARD");
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn docker_compose_brings_devices_and_annotations() {
    let vm = machine();
    docker_image(&vm);
    vm.write(
        "/srv/board/compose.yaml",
        r#"
services:
  board:
    image: box
    command: sleep 1000000
    network_mode: none
    annotations:
      io.oci-hotplug.devices: usb:0403:6001
    deploy:
      resources:
        reservations:
          devices:
            - driver: cdi
              capabilities: [hotplug]
              device_ids: ["oci-hotplug.dev/device=annotated"]
"#,
    );
    vm.run("cd /srv/board && docker compose up -d");
    let container = Container::new(
        &vm,
        "docker compose -f /srv/board/compose.yaml exec -T board".into(),
        "docker compose -f /srv/board/compose.yaml down -t 1".into(),
    );
    an_adapter_comes_and_goes(&vm, &container);
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn docker_restart_brings_the_device_back() {
    let vm = machine();
    let container = docker(&vm, ANNOTATED);
    let adapter = vm.plug(&UsbSerial {
        serial: "FT001",
        port: "2",
    });
    container.gains("/dev/ttyUSB0");
    vm.run("docker restart -t 1 $(docker ps -q)");
    container.run(": < /dev/ttyUSB0");
    adapter.unplug();
    container.loses("/dev/ttyUSB0");
}

/// Docker 26.1 registers CDI only after it has started the containers with `--restart always`, so
/// they stay down (moby#49989, fixed in 28.2). With `live-restore`, as in this machine, they never
/// stop.
#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_restarted_dockerd_finds_its_container_with_the_device() {
    let vm = machine();
    let container = docker(&vm, ANNOTATED);
    let adapter = vm.plug(&UsbSerial {
        serial: "FT001",
        port: "2",
    });
    container.gains("/dev/ttyUSB0");
    vm.run("systemctl restart docker");
    container.talks_through(&adapter, "/dev/ttyUSB0");
    adapter.unplug();
    container.loses("/dev/ttyUSB0");
    drop(container);
    nothing_is_left(&vm);
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn docker_with_remapped_users_attaches_devices() {
    let vm = machine();
    vm.run("cp /etc/docker/daemon.json /run/daemon.json");
    vm.run("jq '.[\"userns-remap\"] = \"default\"' /run/daemon.json > /etc/docker/daemon.json");
    // With another setting of userns-remap, the daemon uses another store of images.
    vm.run(
        "getent passwd dockremap || useradd --system dockremap; \
         systemctl restart docker && docker import /var/lib/box.tar box",
    );
    let options = lab_by_class().cdi("oci-hotplug.dev/device=annotated").options();
    a_lab_is_followed(&vm, || docker(&vm, &options), || ());
    vm.run("cp /run/daemon.json /etc/docker/daemon.json; systemctl restart docker");
}
