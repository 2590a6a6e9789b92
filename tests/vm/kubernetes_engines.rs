//! containerd and CRI-O, asked as kubelet asks them (CRI): CDI devices, and for CRI-O hooks.d with a pod's annotation.

use crate::engine::Cri::{Containerd, Crio};
use crate::engine::Runtime::{Crun, Runc};
use crate::engine::pod;
use crate::machine::machine;
use crate::story::{an_adapter_comes_and_goes, nothing_is_left};

const SERIAL: &str = r#"[{ "name": "oci-hotplug.dev/device=serial" }]"#;
const ANNOTATION: &str = r#"{ "io.oci-hotplug.devices": "usb:0403:6001" }"#;

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn containerd_with_runc_follows_an_adapter_of_a_cdi_device() {
    let vm = machine();
    let container = pod(&vm, Containerd, Runc, "{}", SERIAL);
    an_adapter_comes_and_goes(&vm, &container);
    drop(container);
    nothing_is_left(&vm);
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn containerd_with_crun_follows_an_adapter_of_a_cdi_device() {
    let vm = machine();
    let container = pod(&vm, Containerd, Crun, "{}", SERIAL);
    an_adapter_comes_and_goes(&vm, &container);
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn crio_with_crun_follows_an_adapter_that_an_annotation_asks_for() {
    let vm = machine();
    let container = pod(&vm, Crio, Crun, ANNOTATION, "[]");
    an_adapter_comes_and_goes(&vm, &container);
    drop(container);
    nothing_is_left(&vm);
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn crio_with_runc_follows_an_adapter_that_an_annotation_asks_for() {
    let vm = machine();
    let container = pod(&vm, Crio, Runc, ANNOTATION, "[]");
    an_adapter_comes_and_goes(&vm, &container);
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn crio_with_crun_follows_an_adapter_of_a_cdi_device() {
    let vm = machine();
    let container = pod(&vm, Crio, Crun, "{}", SERIAL);
    an_adapter_comes_and_goes(&vm, &container);
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn crio_with_runc_follows_an_adapter_of_a_cdi_device() {
    let vm = machine();
    let container = pod(&vm, Crio, Runc, "{}", SERIAL);
    an_adapter_comes_and_goes(&vm, &container);
}
