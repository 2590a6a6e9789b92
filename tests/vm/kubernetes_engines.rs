//! containerd and CRI-O, used as kubelet uses them (CRI): with CDI devices; CRI-O also with hooks.d
//! and a pod's annotation; containerd also with annotations that its configuration passes on.

use crate::engine::Cri::{Containerd, Crio};
use crate::engine::Runtime::{Crun, Runc};
use crate::engine::pod;
use crate::machine::machine;
use crate::setup::Setup;
use crate::story::{
    a_lab_is_followed, an_adapter_comes_and_goes, lab_by_annotations, lab_by_cdi, lab_by_class,
    nothing_is_left,
};

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn containerd_with_runc_attaches_the_devices_of_a_cdi_device_while_it_is_restarted() {
    let vm = machine();
    a_lab_is_followed(
        &vm,
        || pod(&vm, Containerd, Runc, &lab_by_cdi()),
        || drop(vm.run("systemctl restart containerd")),
    );
}

/// containerd passes on only the annotations that `container_annotations` names: without it our
/// hooks find no request.
#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn containerd_with_crun_attaches_the_devices_of_annotations_that_it_passes_on() {
    let vm = machine();
    let annotated = || lab_by_annotations().cdi("oci-hotplug.dev/device=annotated");
    let container = pod(&vm, Containerd, Crun, &annotated());
    // The directory does not exist before the first container with a watcher.
    assert_eq!(
        vm.run("test ! -e /run/oci-hotplug/containers || ls /run/oci-hotplug/containers"),
        ""
    );
    drop(container);
    let section = r#"\[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.crun\]"#;
    let through = r#"container_annotations = ["io.oci-hotplug.*", "org.lowrisc.hotplug.*"]"#;
    vm.run(&format!(
        "cp /etc/containerd/config.toml /run/ && sed -i '/{section}/a {through}' /etc/containerd/config.toml && \
         systemctl restart containerd"
    ));
    a_lab_is_followed(&vm, || pod(&vm, Containerd, Crun, &annotated()), || ());
    vm.run("cp /run/config.toml /etc/containerd/ && systemctl restart containerd");
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn crio_with_crun_attaches_the_devices_of_annotations_while_it_is_restarted() {
    let vm = machine();
    a_lab_is_followed(
        &vm,
        || pod(&vm, Crio, Crun, &lab_by_annotations()),
        || drop(vm.run("systemctl restart crio")),
    );
}

/// CRI-O watches only the directories that existed when it started, and package managers replace
/// directories.
#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn check_reports_that_crio_needs_a_restart_when_the_hook_directory_was_replaced() {
    let vm = machine();
    let is_reported = || {
        let output = vm.output("oci-hotplug check");
        String::from_utf8_lossy(&output.stdout).contains("systemctl restart crio")
    };
    vm.run("systemctl restart crio");
    assert!(!is_reported());
    let hooks = "/usr/share/containers/oci/hooks.d";
    vm.run(&format!(
        "cp -a {hooks} {hooks}.new && rm -r {hooks} && mv {hooks}.new {hooks}"
    ));
    assert!(is_reported());
    vm.run("systemctl restart crio");
    assert!(!is_reported());
    let adapter = Setup::default().annotation("io.oci-hotplug.devices", "usb:0403:6001");
    let container = pod(&vm, Crio, Crun, &adapter);
    an_adapter_comes_and_goes(&vm, &container);
    drop(container);
    nothing_is_left(&vm);
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn crio_with_runc_attaches_the_devices_of_an_annotation() {
    let vm = machine();
    a_lab_is_followed(&vm, || pod(&vm, Crio, Runc, &lab_by_class()), || ());
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn crio_attaches_the_adapter_of_a_cdi_device_with_crun_and_runc() {
    let vm = machine();
    for runtime in [Crun, Runc] {
        let serial = Setup::default().cdi("oci-hotplug.dev/device=serial");
        let container = pod(&vm, Crio, runtime, &serial);
        an_adapter_comes_and_goes(&vm, &container);
        drop(container);
        nothing_is_left(&vm);
    }
}
