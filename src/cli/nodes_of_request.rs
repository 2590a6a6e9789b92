//! Which attachments belong to one request: those that the watcher's plan for this request alone
//! would keep.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::host::state::control::Status;
use crate::model::device::inventory::Inventory;
use crate::model::plan::attachment::Attachment;
use crate::model::plan::{Planner, Step, plan_without_restrictions};
use crate::model::request::entry::RequestEntry;

/// The nodes that would stay or be created if the container had only this request.
pub(super) fn nodes_of_request<'s>(
    entry: &RequestEntry,
    status: &'s Status,
) -> Vec<(&'s Path, &'s Attachment)> {
    let devices = status
        .attached
        .iter()
        .map(|(_, attachment)| attachment.device.clone());
    let planner = Planner::new(vec![entry.clone()], Vec::new(), status.container.user);
    let plan = plan_without_restrictions(&planner, &Inventory::new(devices), &status.attached);
    let (mut going, mut coming) = (BTreeSet::<PathBuf>::new(), BTreeSet::<PathBuf>::new());
    for step in plan.steps {
        match step {
            Step::RemoveNode { path } => going.extend([path]),
            // Another request for the same node may have determined its mode and owner.
            Step::AddNode { path, attachment } => {
                let there = status.attached.get(&path);
                if there.is_some_and(|there| there.device.syspath == attachment.device.syspath) {
                    coming.extend([path]);
                }
            }
            _ => {}
        }
    }
    let stays = |path: &PathBuf| !going.contains(path) || coming.contains(path);
    let nodes = status.attached.iter().filter(|(path, _)| stays(path));
    nodes
        .map(|(path, attachment)| (path.as_path(), attachment))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::container::ContainerFacts;
    use crate::model::device::{DevKind, DevNode, DevNum, Device, SysPath, UdevState};
    use crate::model::plan::attachment::Attachments;
    use crate::model::request::entry::Origin;

    fn device(name: &str, minor: u32) -> Device {
        let mut device = Device::new(SysPath::new(format!("/sys/devices/{name}")));
        device.udev_state = UdevState::Processed;
        device.node = Some(DevNode {
            path: PathBuf::from(format!("/dev/{name}")),
            num: DevNum {
                kind: DevKind::Char,
                major: 9,
                minor,
            },
        });
        device
    }

    fn entry(text: &str) -> RequestEntry {
        let mut entry = RequestEntry::new(Origin::Annotation, text.parse().unwrap());
        entry.roots.extend([SysPath::new("/sys/devices/a")]);
        entry
    }

    /// The status once the devices of all these requests are attached.
    fn status(all: &[RequestEntry]) -> Status {
        let inventory = Inventory::new([device("a", 1), device("b", 2)]);
        let planner = Planner::new(all.to_vec(), Vec::new(), Default::default());
        let plan = plan_without_restrictions(&planner, &inventory, &Attachments::default());
        let mut attached = Attachments::default();
        for step in plan.steps {
            if let Step::AddNode { path, attachment } = step {
                attached.insert(path, *attachment);
            }
        }
        Status {
            watcher: 1,
            container: ContainerFacts {
                id: "c".into(),
                pid: 1,
                start_time: 1,
                bundle: "/b".into(),
                rootfs: "/".into(),
                cgroups_path: None,
                user: Default::default(),
                read_only_sys: false,
            },
            requests: all.to_vec(),
            attached,
            problems: Vec::new(),
            counters: Default::default(),
            udev_database: None,
        }
    }

    #[test]
    fn each_request_has_the_nodes_that_it_is_served_with() {
        let (own, elsewhere) = (entry("devnode:/dev/a"), entry("devnode:/dev/a;path=/dev/board"));
        let mut other = entry("devnode:/dev/b");
        other.roots = [SysPath::new("/sys/devices/b")].into();
        let twice = entry("devnode:/dev/a;mode=0600");
        let status = status(&[own.clone(), elsewhere.clone(), other.clone(), twice.clone()]);
        let paths = |entry: &RequestEntry| -> Vec<&Path> {
            nodes_of_request(entry, &status)
                .into_iter()
                .map(|(path, _)| path)
                .collect()
        };
        assert_eq!(paths(&own), [Path::new("/dev/a")]);
        assert_eq!(paths(&elsewhere), [Path::new("/dev/board")]);
        assert_eq!(paths(&other), [Path::new("/dev/b")]);
        assert_eq!(
            paths(&twice),
            [Path::new("/dev/a")],
            "shared with another request"
        );
    }
}
