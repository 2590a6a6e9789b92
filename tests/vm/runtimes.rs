//! OCI runtimes without an engine: hooks and annotations in config.json.

use crate::engine::Runtime::{Crun, Runc, Youki};
use crate::engine::bundle;
use crate::machine::machine;
use crate::story::{a_lab_is_followed, lab_by_annotations, lab_by_class};

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn runc_attaches_devices_without_an_engine() {
    let vm = machine();
    a_lab_is_followed(&vm, || bundle(&vm, Runc, &lab_by_annotations()), || ());
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn crun_attaches_devices_without_an_engine() {
    let vm = machine();
    a_lab_is_followed(&vm, || bundle(&vm, Crun, &lab_by_class()), || ());
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn youki_attaches_devices_without_an_engine() {
    let vm = machine();
    a_lab_is_followed(&vm, || bundle(&vm, Youki, &lab_by_annotations()), || ());
}
