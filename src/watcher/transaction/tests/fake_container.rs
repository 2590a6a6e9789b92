//! A container in memory.

use super::*;

/// A container in memory, in which operations can fail.
#[derive(Default, Clone)]
pub(super) struct FakeContainer {
    pub(super) nodes: BTreeMap<PathBuf, NodeSpec>,
    /// Nodes of the image or the engine.
    pub(super) theirs: BTreeMap<PathBuf, DevNum>,
    pub(super) links: BTreeMap<PathBuf, PathBuf>,
    /// Links of the image or the engine.
    pub(super) their_links: BTreeMap<PathBuf, PathBuf>,
    pub(super) granted: GrantSet,
    pub(super) announced: Vec<String>,
    /// All uevents: form, action and the kernel's name of the device.
    pub(super) uevents: Vec<String>,
    pub(super) announced_devices: AnnouncedDevices,
    pub(super) noted: Attachments,
    /// All notes, the first one first.
    pub(super) notes: Vec<Attachments>,
    pub(super) notes_fail: bool,
    /// The nodes, which are those of the host, of devices that were unplugged and whose numbers
    /// other devices have.
    pub(super) dead: BTreeSet<PathBuf>,
    /// What a crash before each operation would leave.
    pub(super) crashes: Vec<Crash>,
    /// Paths whose operations fail.
    pub(super) broken: BTreeSet<PathBuf>,
    pub(super) filter_is_broken: bool,
    /// Numbers that a cgroup above the container denies.
    pub(super) denied: BTreeSet<DevNum>,
    pub(super) nobody_can_be_told: bool,
    /// Numbers whose access must be revoked before anything in the container is inspected.
    pub(super) going: BTreeSet<DevNum>,
    pub(super) log: Vec<String>,
    /// The udev database; `None`: it has none.
    pub(super) entries: Option<Entries>,
}

/// A container at a crash of its watcher.
#[derive(Clone)]
pub(super) struct Crash {
    pub(super) nodes: BTreeMap<PathBuf, NodeSpec>,
    pub(super) links: BTreeMap<PathBuf, PathBuf>,
    pub(super) noted: Attachments,
}

#[derive(Debug, thiserror::Error)]
#[error("{0} refuses")]
pub(super) struct Refusal(String);

impl FakeContainer {
    pub(super) fn check(&self, path: &Path) -> Result<(), Refusal> {
        if self.broken.contains(path) {
            Err(Refusal(path.display().to_string()))
        } else {
            Ok(())
        }
    }

    pub(super) fn may(&self, num: DevNum) -> Access {
        self.granted.get(&num).copied().unwrap_or(Access::NONE)
    }

    fn log_uevent(&mut self, form: UeventForm, action: UeventAction, device: &Device) {
        let form = match form {
            UeventForm::Kernel => "kernel",
            UeventForm::Udev => "udev",
        };
        self.uevents
            .push(format!("{form} {action} {}", device.syspath.name()));
    }

    /// Called by every operation that inspects or changes the container, because any of them could
    /// block for ever.
    pub(super) fn is_entered(&mut self) {
        self.crashes.push(Crash {
            nodes: self.nodes.clone(),
            links: self.links.clone(),
            noted: self.noted.clone(),
        });
        let left = self.going.iter().find(|num| self.granted.contains_key(num));
        assert!(
            left.is_none() || self.filter_is_broken,
            "the container is entered before access is revoked: {left:?}"
        );
    }
}

impl Effects for FakeContainer {
    type Error = Refusal;

    fn find_node(&mut self, path: &Path, node: &NodeSpec) -> Result<PathState, Refusal> {
        self.is_entered();
        let there = self
            .nodes
            .get(path)
            .map(|node| node.num)
            .or(self.theirs.get(path).copied());
        Ok(match there {
            None => PathState::Vacant,
            Some(num) if num == node.num && !self.dead.contains(path) => PathState::Same,
            Some(_) => PathState::Other,
        })
    }

    fn find_link(&mut self, link: &Path, target: &Path) -> Result<PathState, Refusal> {
        self.is_entered();
        Ok(match self.links.get(link).or(self.their_links.get(link)) {
            None => PathState::Vacant,
            Some(there) if there == target => PathState::Same,
            Some(_) => PathState::Other,
        })
    }

    fn add_node(&mut self, path: &Path, node: &NodeSpec) -> Result<NodeCreator, Refusal> {
        self.is_entered();
        self.check(path)?;
        assert!(
            !self.may(node.num).is_none(),
            "a node before its access: {}",
            path.display()
        );
        assert!(
            self.noted.get(path).is_some(),
            "a node before its note: {}",
            path.display()
        );
        self.log.push(format!("node {}", path.display()));
        match self.theirs.get(path) {
            Some(num) if *num == node.num => Ok(NodeCreator::Other),
            Some(_) => Err(Refusal("another node".into())),
            None => {
                self.nodes.insert(path.to_owned(), node.clone());
                Ok(NodeCreator::Watcher)
            }
        }
    }

    fn remove_node(&mut self, path: &Path, _: &NodeSpec) -> Result<(), Refusal> {
        self.is_entered();
        self.check(path)?;
        assert!(
            !self.links.values().any(|target| target == path),
            "a link to nowhere: {}",
            path.display()
        );
        self.log.push(format!("no node {}", path.display()));
        assert!(
            self.nodes.remove(path).is_some(),
            "removed what was not ours: {}",
            path.display()
        );
        Ok(())
    }

    fn remove_link_remains(&mut self, link: &Path, target: &Path) -> Result<(), Refusal> {
        self.remove_link(link, target)
    }

    fn remove_remains(&mut self, path: &Path) -> Result<(), Refusal> {
        self.is_entered();
        if self.dead.remove(path) {
            self.nodes.remove(path);
        }
        Ok(())
    }

    fn add_link(&mut self, link: &Path, target: &Path) -> Result<NodeCreator, Refusal> {
        self.is_entered();
        self.check(link)?;
        assert!(
            self.nodes.contains_key(target) || self.theirs.contains_key(target),
            "a link before its node: {}",
            link.display()
        );
        if self.their_links.get(link).is_some_and(|there| there == target) {
            return Ok(NodeCreator::Other);
        }
        self.log.push(format!("link {}", link.display()));
        self.links.insert(link.to_owned(), target.to_owned());
        Ok(NodeCreator::Watcher)
    }

    fn remove_link(&mut self, link: &Path, target: &Path) -> Result<(), Refusal> {
        self.is_entered();
        self.check(link)?;
        self.log.push(format!("no link {}", link.display()));
        if self.links.get(link).is_some_and(|there| there == target) {
            self.links.remove(link);
        }
        Ok(())
    }

    fn set_grants(&mut self, grants: &GrantSet) -> Result<Vec<(DevNum, String)>, Refusal> {
        if self.filter_is_broken {
            return Err(Refusal("the filter".into()));
        }
        if !self.notes_fail {
            let noted = self.noted.grants();
            for (num, access) in grants {
                let is_noted = [&self.granted, &noted]
                    .iter()
                    .any(|known| known.get(num).is_some_and(|known| known.covers(*access)));
                assert!(is_noted, "access before its note: {num}");
            }
        }
        self.log.push("grants".into());
        self.granted = grants.clone();
        let refused: Vec<DevNum> = grants
            .keys()
            .copied()
            .filter(|num| self.denied.contains(num))
            .collect();
        self.granted.retain(|num, _| !refused.contains(num));
        Ok(refused
            .into_iter()
            .map(|num| (num, format!("{num} refuses")))
            .collect())
    }

    fn write_entry(&mut self, id: &DatabaseId, facts: &EntryFacts) -> Result<(), Refusal> {
        self.is_entered();
        self.check(&path_of_entry(id))?;
        let entries = self.entries.as_mut().expect("the container has a database");
        if let DatabaseId::Number(num) = id {
            let mut numbers = self
                .nodes
                .values()
                .map(|node| node.num)
                .chain(self.theirs.values().copied());
            let is_there = numbers.any(|there| there == *num);
            assert!(
                is_there || facts.kind != EntryKind::Attached,
                "an entry before its node: {id}"
            );
        }
        entries.insert(id.clone(), Some(facts.clone()));
        self.log.push(format!("entry {id}"));
        Ok(())
    }

    fn remove_entry(&mut self, id: &DatabaseId) -> Result<(), Refusal> {
        self.is_entered();
        self.check(&path_of_entry(id))?;
        let entries = self.entries.as_mut().expect("the container has a database");
        assert!(
            entries.remove(id).is_some(),
            "removed an entry that is not there: {id}"
        );
        self.log.push(format!("no entry {id}"));
        Ok(())
    }

    fn announce(
        &mut self,
        form: UeventForm,
        action: UeventAction,
        device: &Device,
        path: &Path,
    ) -> Result<(), Refusal> {
        self.is_entered();
        if self.nobody_can_be_told {
            return Err(Refusal("the network namespace".into()));
        }
        self.log_uevent(form, action, device);
        if form == UeventForm::Udev {
            self.announced.push(format!("{action} {}", path.display()));
            self.log.push(format!("{action} {}", path.display()));
        }
        Ok(())
    }

    fn announce_nodeless(&mut self, announcement: &Announcement) -> Result<(), Refusal> {
        self.is_entered();
        self.announced_devices.note(announcement);
        self.log_uevent(announcement.form, announcement.action, &announcement.device);
        Ok(())
    }

    fn write_notes(&mut self, attachments: &Attachments) -> Result<(), Refusal> {
        self.is_entered();
        if self.notes_fail {
            return Err(Refusal("the notes".into()));
        }
        self.noted = attachments.clone();
        self.notes.push(attachments.clone());
        Ok(())
    }
}
