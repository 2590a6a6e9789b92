//! Only what oci-hotplug attached is detached.

use std::fs;
use std::path::Path;

use oci_hotplug::usbip::Named;

use super::controllers::Kernel;

#[test]
fn a_port_that_someone_else_attached_is_not_detached() {
    let kernel = Kernel::new();
    let refused = kernel
        .usbip()
        .detach(&Named::Port(0))
        .expect_err("a refusal")
        .to_string();
    assert_eq!(
        refused,
        "cannot detach port 0: it holds a device, which oci-hotplug did not attach (`usbip detach -p 0` detaches it)"
    );
    for (named, text) in [
        (Named::Port(1), "port 1"),
        (
            Named::Device("lab/0403:6001".parse().expect("a device")),
            "lab/0403:6001",
        ),
    ] {
        let refused = kernel.usbip().detach(&named).expect_err("a refusal").to_string();
        assert_eq!(
            refused,
            format!("{text} is not attached to this host (`oci-hotplug usbip ports` shows what is)")
        );
    }
    assert_eq!(kernel.was_told("detach"), "");
}

#[test]
fn a_record_of_another_device_at_the_port_does_not_let_it_be_detached() {
    let kernel = Kernel::new();
    let record = |devid: u32| {
        format!(
            r#"{{"version":1,"port":0,"requested":"lab/0403:6001","remote":"lab/busid:1-1","devid":{devid},"speed":2,"local":null}}"#
        )
    };
    let path = kernel.state().join("usbip/port-0.json");
    fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).expect("the state");
    fs::write(&path, record(0x1_0008)).expect("a record");
    let refused = kernel
        .usbip()
        .detach(&Named::Port(0))
        .expect_err("a refusal")
        .to_string();
    assert!(refused.contains("which oci-hotplug did not attach"), "{refused}");
    assert_eq!(kernel.was_told("detach"), "");
    // The same file is sufficient if it names what is there.
    fs::write(&path, record(0x1_0009)).expect("a record");
    assert_eq!(
        kernel.usbip().attached().expect("ports")[0]
            .record
            .as_ref()
            .map(|record| record.port),
        Some(0)
    );
}
