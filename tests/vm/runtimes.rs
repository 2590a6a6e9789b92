//! OCI runtimes without an engine: hooks and annotations in config.json.

use crate::engine::Runtime::{self, Crun, Runc, Youki};
use crate::engine::bundle;
use crate::machine::machine;
use crate::story::{an_adapter_comes_and_goes, nothing_is_left};

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn runc_alone_follows_an_adapter() {
    follows_an_adapter(Runc);
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn crun_alone_follows_an_adapter() {
    follows_an_adapter(Crun);
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn youki_alone_follows_an_adapter() {
    follows_an_adapter(Youki);
}

fn follows_an_adapter(runtime: Runtime) {
    let vm = machine();
    let container = bundle(&vm, runtime, r#"{ "io.oci-hotplug.devices": "usb:0403:6001" }"#);
    an_adapter_comes_and_goes(&vm, &container);
    drop(container);
    nothing_is_left(&vm);
}
