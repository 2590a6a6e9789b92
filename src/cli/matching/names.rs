//! Which node each `path=`, `link=` and symlink rule names.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Value, json};

use crate::cli::render::table;
use crate::model::device::Device;
use crate::model::plan::{Plan, Step};
use crate::model::request::entry::RequestEntry;
use crate::model::request::symlink::SymlinkRule;

/// The names that requests and rules give to nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Names {
    /// Each name with the host's path of its node; `None`: the request selects a device, but no
    /// node for this name.
    nodes: BTreeMap<PathBuf, Option<PathBuf>>,
    hints: Vec<String>,
}

impl Names {
    /// The names that this plan for an empty container puts in place.
    pub(super) fn new(plan: &Plan, entries: &[RequestEntry], symlinks: &[SymlinkRule]) -> Self {
        let devices: BTreeMap<&Path, &Device> = plan
            .steps
            .iter()
            .filter_map(|step| match step {
                Step::AddNode { path, attachment } => Some((path.as_path(), &attachment.device)),
                _ => None,
            })
            .collect();
        let mut named: BTreeMap<&Path, &Device> = devices.clone();
        for step in &plan.steps {
            if let Step::AddLink { path, link } = step {
                named.extend(
                    devices
                        .get(path.as_path())
                        .map(|device| (link.as_path(), *device)),
                );
            }
        }
        let present = entries.iter().filter(|entry| !entry.roots.is_empty());
        let by_requests = present.flat_map(|entry| {
            let options = &entry.request.options;
            options.path.iter().chain(&options.links)
        });
        let by_rules = symlinks.iter().map(|rule| &rule.path);
        let by_rules = by_rules.filter(|path| named.contains_key(path.as_path()));
        let mut names = Self::default();
        for name in by_requests.chain(by_rules) {
            let device = named.get(name.as_path());
            let node = device.and_then(|device| device.node.as_ref());
            names
                .nodes
                .insert(name.clone(), node.map(|node| node.path.clone()));
            names.hints.extend(device.and_then(|device| {
                let is_partition = |other: &&&Device| {
                    other.devtype.as_deref() == Some("partition")
                        && other.syspath.parent().as_ref() == Some(&device.syspath)
                };
                let has_partitions = devices.values().any(|other| is_partition(&other));
                has_partitions.then(|| {
                    format!(
                        "hint: {} is the whole disk; add \";only=property:DEVTYPE=partition\" to name its partition",
                        name.display()
                    )
                })
            }));
        }
        names
    }

    pub(super) fn to_json(&self) -> Value {
        json!(self.nodes)
    }

    pub(super) fn hints(&self) -> &[String] {
        &self.hints
    }

    pub(super) fn print(&self, out: &mut impl Write) -> Result<()> {
        let node = |node: &Option<PathBuf>| match node {
            Some(path) => path.display().to_string(),
            None => "(no node; the raw USB node needs only=subsystem:usb)".to_owned(),
        };
        let rows: Vec<[String; 2]> = self
            .nodes
            .iter()
            .map(|(name, path)| [name.display().to_string(), node(path)])
            .collect();
        if !rows.is_empty() {
            writeln!(out)?;
            table::write(out, ["NAME", "NODE"], &rows)?;
        }
        for hint in &self.hints {
            writeln!(out, "{hint}")?;
        }
        Ok(())
    }

    /// The names that have another node than in `before`.
    pub(super) fn changes<'a>(
        &'a self,
        before: &'a Names,
    ) -> impl Iterator<Item = (&'a PathBuf, &'a Option<PathBuf>)> {
        let changed = self.nodes.iter();
        changed.filter(|(name, node)| before.nodes.get(*name) != Some(*node))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::device::inventory::Inventory;
    use crate::model::device::recorded;
    use crate::model::oci::ProcessUser;
    use crate::model::plan::attachment::Attachments;
    use crate::model::plan::{Planner, plan_without_restrictions};
    use crate::model::request::entry::Origin;

    fn names(request: &str, rules: &[&str], devices: Vec<Device>) -> Names {
        let inventory = Inventory::new(devices);
        let entry = vec![RequestEntry::new(Origin::Root, request.parse().unwrap())];
        let rules: Vec<SymlinkRule> = rules.iter().map(|rule| rule.parse().unwrap()).collect();
        let mut planner = Planner::new(entry, rules.clone(), ProcessUser::default());
        planner.find_roots(&inventory);
        let plan = plan_without_restrictions(&planner, &inventory, &Attachments::default());
        Names::new(&plan, planner.entries(), &rules)
    }

    fn node(names: &Names, name: &str) -> Option<String> {
        let node = names.nodes.get(Path::new(name))?.as_ref()?;
        Some(node.display().to_string())
    }

    /// Case README 24.
    #[test]
    fn each_link_path_and_rule_is_shown_with_its_node() {
        let rules = ["usb:2341:8036:02=/dev/keypad", "usb:2341:8036:07=/dev/none"];
        let request = "usb:2341:8036;path=/dev/board;link=/dev/modem";
        let names = names(request, &rules, recorded::composite_device());
        for (name, expected) in [
            ("/dev/board", Some("/dev/ttyACM0")),
            ("/dev/modem", Some("/dev/ttyACM0")),
            ("/dev/keypad", Some("/dev/input/event7")),
            ("/dev/none", None),
        ] {
            assert_eq!(node(&names, name).as_deref(), expected, "{name}");
        }
        assert_eq!(names.hints(), [""; 0]);
        let mut text = Vec::new();
        names.print(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("/dev/keypad  /dev/input/event7\n"), "{text}");
    }

    /// Case newcomer: whole disk.
    #[test]
    fn a_name_for_a_whole_disk_comes_with_a_hint_that_names_the_partition() {
        let disk = || {
            let mut devices = recorded::root_hubs();
            devices.extend(recorded::companion_hub());
            devices
        };
        let whole = names("usb:0781;path=/dev/data", &[], disk());
        assert_eq!(node(&whole, "/dev/data").as_deref(), Some("/dev/sdb"));
        let [hint] = whole.hints() else {
            panic!("{:?}", whole.hints())
        };
        let option = hint.split('"').nth(1).unwrap();
        let partition = names(&format!("usb:0781;path=/dev/data{option}"), &[], disk());
        assert_eq!(node(&partition, "/dev/data").as_deref(), Some("/dev/sdb1"));
        assert_eq!(partition.hints(), [""; 0]);
    }
}
