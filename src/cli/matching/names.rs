//! Which node each `path=`, `link=` and symlink rule names.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Value, json};

use crate::cli::render::table;
use crate::model::device::Device;
use crate::model::plan::{Plan, Step};
use crate::model::request::NodePath;
use crate::model::request::entry::RequestEntry;
use crate::model::request::symlink::SymlinkRule;

/// The names that requests and rules give to nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Names {
    /// Each name with the host's path of its node; `None`: the request selects a device, but no
    /// node for this name.
    nodes: BTreeMap<PathBuf, Option<PathBuf>>,
    /// The subsystems of the nodes that a name without a node could have, by `only=`.
    instead: BTreeMap<PathBuf, BTreeSet<String>>,
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
        let mut names = Self::default();
        for entry in entries.iter().filter(|entry| !entry.roots.is_empty()) {
            let options = &entry.request.options;
            match &options.path {
                Some(NodePath::Node(path)) => names.add_node(path, &named, &devices),
                Some(NodePath::Directory(path)) => names.add_directory(path, &devices),
                None => {}
            }
            for link in &options.links {
                names.add_node(link, &named, &devices);
            }
            names.add_alternatives(entry, devices.values().copied());
        }
        let by_rules = symlinks.iter().map(|rule| &rule.path);
        for path in by_rules.filter(|path| named.contains_key(path.as_path())) {
            names.add_node(path, &named, &devices);
        }
        names
    }

    /// Adds the name of one node; a disk that has partitions comes with a hint.
    fn add_node(
        &mut self,
        name: &Path,
        named: &BTreeMap<&Path, &Device>,
        devices: &BTreeMap<&Path, &Device>,
    ) {
        let device = named.get(name);
        let node = device.and_then(|device| device.node.as_ref());
        self.nodes
            .insert(name.to_owned(), node.map(|node| node.path.clone()));
        self.hints.extend(device.and_then(|device| {
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

    /// Adds, to the request's names without a node, the nodes that it could name instead.
    fn add_alternatives<'a>(&mut self, entry: &RequestEntry, devices: impl Iterator<Item = &'a Device>) {
        let options = &entry.request.options;
        let path = options.path.iter().filter_map(NodePath::node);
        let names = path.chain(options.links.iter().map(PathBuf::as_path));
        let has_none = |name: &&Path| self.nodes.get(*name) == Some(&None);
        let without_node: Vec<PathBuf> = names.filter(has_none).map(Path::to_owned).collect();
        let is_its = |device: &&Device| entry.places().any(|place| device.syspath.is_at_or_below(place));
        let subsystems: BTreeSet<String> = devices
            .filter(is_its)
            .filter_map(|device| device.subsystem.clone())
            .collect();
        let instead = without_node.into_iter().map(|name| (name, subsystems.clone()));
        self.instead.extend(instead);
    }

    /// Adds the names in a directory, or the directory itself if it has none.
    fn add_directory(&mut self, directory: &Path, devices: &BTreeMap<&Path, &Device>) {
        let inside = devices
            .iter()
            .filter(|(path, _)| path.parent() == Some(directory));
        let nodes = inside.filter_map(|(path, device)| Some((path, device.node.as_ref()?)));
        let nodes: Vec<(PathBuf, Option<PathBuf>)> = nodes
            .map(|(path, node)| (path.to_path_buf(), Some(node.path.clone())))
            .collect();
        match nodes.is_empty() {
            true => self.nodes.extend([(directory.join(""), None)]),
            false => self.nodes.extend(nodes),
        }
    }

    pub(super) fn to_json(&self) -> Value {
        json!(self.nodes)
    }

    pub(super) fn hints(&self) -> &[String] {
        &self.hints
    }

    pub(super) fn print(&self, out: &mut impl Write) -> Result<()> {
        let node = |name: &PathBuf, node: &Option<PathBuf>| match node {
            Some(path) => path.display().to_string(),
            None => self.without_node(name),
        };
        let rows: Vec<[String; 2]> = self
            .nodes
            .iter()
            .map(|(name, path)| [name.display().to_string(), node(name, path)])
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

    /// What stands for the node of a name that has none.
    fn without_node(&self, name: &Path) -> String {
        let instead = self.instead.get(name).into_iter().flatten();
        let options: Vec<String> = instead
            .map(|subsystem| format!("only=subsystem:{subsystem}"))
            .collect();
        match options.is_empty() {
            true => "(no node)".to_owned(),
            false => format!("(no node; to name one, add {})", options.join(" or ")),
        }
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

    #[test]
    fn a_name_without_a_node_comes_with_the_options_that_give_it_one() {
        let mut devices = recorded::disk_with_partitions();
        devices.retain(|device| device.subsystem.as_deref() != Some("block"));
        let shown = |request: &str| {
            let mut text = Vec::new();
            names(request, &[], devices.clone()).print(&mut text).unwrap();
            String::from_utf8(text).unwrap()
        };
        let text = shown("pci:0000:00:17.0;link=/dev/data");
        let option = "only=subsystem:scsi_generic";
        assert!(
            text.contains(&format!("(no node; to name one, add {option})")),
            "{text}"
        );
        let text = shown(&format!("pci:0000:00:17.0;{option};link=/dev/data"));
        assert!(text.contains("/dev/data  /dev/sg0\n"), "{text}");
        let text = shown("pci:0000:00:17.0;only=subsystem:net;link=/dev/data");
        assert!(text.contains("/dev/data  (no node)\n"), "{text}");
    }

    #[test]
    fn the_names_in_a_directory_are_shown_with_their_nodes() {
        let devices = recorded::hub_with_two_adapters;
        let board = names("usb:0403:6001:B;path=/dev/board/", &[], devices());
        let expected = [("/dev/board/ttyUSB0".into(), Some("/dev/ttyUSB1".into()))];
        assert_eq!(board.nodes, expected.into());
        let none = names(
            "usb:0403:6001:B;only=subsystem:net;path=/dev/board/",
            &[],
            devices(),
        );
        assert_eq!(none.to_json(), json!({"/dev/board/": null}));
        let disk = names(
            "pci:0000:00:17.0;path=/dev/own/",
            &[],
            recorded::disk_with_partitions(),
        );
        assert_eq!(node(&disk, "/dev/own/sda2").as_deref(), Some("/dev/sda2"));
        assert_eq!(disk.hints(), [""; 0], "the partitions have names");
        assert_eq!(
            names("usb:dead;path=/dev/board/", &[], devices()),
            Names::default()
        );
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
