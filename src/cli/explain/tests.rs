use super::*;
use crate::cli::pictures;
use crate::host::state::record::Record;
use crate::model::device::recorded::documented_host;
use crate::model::plan::attachment::Attachments;
use crate::model::policy::HostUse;
use crate::model::request::entry::{Origin, RequestEntry};

fn record() -> Record {
    let text = r#"{"version":1,"container":{"id":"lab","pid":1,"start_time":1,"bundle":"/b","rootfs":"/b/rootfs","cgroups_path":null,"user":{"uid":0,"gid":0}},"requests":[],"symlinks":[],"enrolled":0}"#;
    serde_json::from_str(text).unwrap()
}

/// The explanation of a node of the recorded host for a container with these requests.
fn explained(requests: &[&str], node: &str) -> String {
    let inventory = Inventory::new(documented_host());
    let record = record();
    let entry = |text: &&str| RequestEntry::new(Origin::Annotation, text.parse().unwrap());
    let mut planner = Planner::new(
        requests.iter().map(entry).collect(),
        Vec::new(),
        record.container.user,
    );
    planner.find_roots(&inventory);
    let status = Status {
        watcher: 1,
        container: record.container.clone(),
        requests: planner.entries().to_vec(),
        attached: Attachments::default(),
        problems: Vec::new(),
        counters: Default::default(),
        udev_database: None,
    };
    let config = Config::parse("/etc/oci-hotplug/config.toml".as_ref(), "").unwrap();
    let device = inventory.iter().find(|device| {
        device
            .node
            .as_ref()
            .is_some_and(|found| found.path.as_os_str() == node)
    });
    let facts = Facts {
        name: "lab",
        asked: "lab",
        device: device.unwrap(),
        inventory: &inventory,
        policy: &config.usable_policy(),
        host_use: &HostUse::default(),
        record: &record,
        status: &status,
        planner: &planner,
        reserved: Vec::new(),
    };
    let explained: Vec<Explained> = status.requests.iter().map(|entry| facts.explain(entry)).collect();
    let conclusion = facts.conclude(&explained);
    draw(
        facts.device,
        &explained,
        &conclusion.short,
        Some(pictures::COLUMNS),
    )
}

#[test]
fn a_refused_input_device_is_pictured() {
    let drawn = explained(&["usb:0403:6001", "usb:0627:0001"], "/dev/input/event10");
    pictures::check("explain", "oci-hotplug explain lab /dev/input/event10", &drawn);
}

#[test]
fn a_device_below_the_other_half_of_a_hub_is_explained() {
    let reason = "this device is below 2-1, the USB 3 half of 1-1";
    let drawn = explained(&["port:1-1"], "/dev/sdb").replace("\n                 ", " ");
    assert!(drawn.contains(reason) && drawn.contains("usb1/1-1;"), "{drawn}");
    let drawn = explained(&["port:1-1"], "/dev/bus/usb/002/002").replace("\n                 ", " ");
    assert!(
        drawn.contains("and this device is the USB 3 half of 1-1"),
        "{drawn}"
    );
    let drawn = explained(&["port:2-1"], "/dev/ttyUSB0").replace("\n                 ", " ");
    assert!(drawn.contains("below 1-1, the USB 2 half of 2-1"), "{drawn}");
}
