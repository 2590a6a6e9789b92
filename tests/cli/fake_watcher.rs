//! A watcher that answers every request with one status.

use oci_hotplug::host::container::ContainerFacts;
use oci_hotplug::host::state::control::{ControlResponse, Problem, Status};
use oci_hotplug::model::device::{Access, DevKind, DevNum, Device, SysPath};
use oci_hotplug::model::plan::attachment::{Attachment, Attachments, NodeCreator, NodeSpec};
use oci_hotplug::model::request::entry::{Origin, RequestEntry};
use oci_hotplug::model::udev_database::DatabaseState;

/// Answers in the directory of a container whose files have `name` in their names.
pub fn watcher(dir: &std::path::Path, name: &str) {
    use std::io::{BufRead, BufReader, Write};
    let mut node = Attachment {
        device: Device::new(SysPath::new("/sys/devices/virtual/mem/null")),
        access: Access::READ,
        node: NodeSpec {
            num: DevNum {
                kind: DevKind::Char,
                major: 1,
                minor: 3,
            },
            mode: 0o600,
            uid: 0,
            gid: 0,
        },
        node_creator: NodeCreator::Watcher,
        links: Default::default(),
        announced: None,
        since: 0,
    };
    node.links
        .insert(format!("/dev/{name}-link").into(), NodeCreator::Watcher);
    let mut attached = Attachments::default();
    attached.insert(format!("/dev/{name}").into(), node);
    let request = "devnode:/dev/null".parse().expect("a request");
    let mut asked = RequestEntry::new(Origin::Annotation, request);
    asked.cdi = Some(name.into());
    asked
        .roots
        .extend([SysPath::new("/sys/devices/virtual/mem/null")]);
    let status = Status {
        watcher: std::process::id() as i32,
        container: ContainerFacts {
            id: "alpha".into(),
            pid: 1,
            start_time: 1,
            bundle: format!("/b/{name}").into(),
            rootfs: "/b/rootfs".into(),
            cgroups_path: None,
            user: Default::default(),
            read_only_sys: false,
        },
        requests: vec![asked],
        attached,
        problems: vec![Problem {
            path: format!("/dev/{name}-problem").into(),
            device: None,
            waiting: false,
            reason: name.into(),
        }],
        counters: Default::default(),
        udev_database: Some(DatabaseState::Placed),
    };
    let answer = serde_json::to_string(&ControlResponse::Status(Box::new(status))).expect("JSON");
    let listener = std::os::unix::net::UnixListener::bind(dir.join("control.sock")).expect("a socket");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut question = String::new();
            let _ = BufReader::new(&stream).read_line(&mut question);
            let _ = stream.write_all(format!("{answer}\n").as_bytes());
        }
    });
}
