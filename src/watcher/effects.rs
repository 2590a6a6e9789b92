//! The effects of a transaction on a container: filter, /dev, listeners and notes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::access::{ContainerAccess, Place};
use super::database::ContainerDatabase;
use super::error::EffectError;
use super::notes::NotesWriter;
use super::transaction::Effects;
use crate::host::announcer::Announcer;
use crate::host::container::Container;
use crate::host::container_dev::{ContainerDev, LinkOutcome, NodeOutcome, NodeOwner};
use crate::host::filter::FilterError;
use crate::host::state::cgroup_owners::Owner;
use crate::host::state::notes::Notes;
use crate::host::state::record_lock::RecordLock;
use crate::model::cgroup::grants::{Change, GrantSet};
use crate::model::device::{DevNum, Device, SysPath};
use crate::model::plan::announcements::{AnnouncedDevices, Announcement};
use crate::model::plan::attachment::{Attachments, NodeCreator, NodeSpec, PathState};
use crate::model::udev_database::{DatabaseId, DatabaseState, Entries, EntryFacts, RUN_UDEV, UdevMode};
use crate::model::uevent::{UeventAction, UeventForm};

/// One container's filter, /dev, listeners and notes.
pub(crate) struct ContainerEffects {
    container: Rc<Container>,
    access: ContainerAccess,
    dev: ContainerDev,
    database: ContainerDatabase,
    /// Whether the database is to be looked for before the next entry is written.
    must_find_database: bool,
    announcer: Announcer,
    lock: RecordLock,
    notes: NotesWriter,
    announced: AnnouncedDevices,
    /// The paths that an earlier watcher created: files at these paths may be replaced.
    made_before: BTreeSet<PathBuf>,
    /// The directories that the plan is about to create, for the note that is written before.
    directories_ahead: BTreeSet<PathBuf>,
}

impl ContainerEffects {
    /// Opens a container with the notes of an earlier watcher, and revokes all granted access but
    /// `due`; returns what is in force. Revoking comes first, because a container can delay the
    /// rest. If the rest fails, no access is left, because no watcher would be there to revoke it.
    ///
    /// # Errors
    /// When its cgroup, /dev or network namespace cannot be opened, or when another container owns
    /// its cgroup.
    pub(crate) fn open(
        container: &Rc<Container>,
        lock: RecordLock,
        notes: &mut Notes,
        due: GrantSet,
        udev: UdevMode,
    ) -> Result<(Self, GrantSet), EffectError> {
        let owner = Owner::new(lock.state_dir(), container.facts());
        // Version 0: there were no notes.
        let is_successor = notes.version > 0 || !notes.attachments.is_empty();
        let mut access = ContainerAccess::open(container, owner, &mut notes.filter, is_successor)?;
        let granted = revoke_all_but(due, &notes.filter.held, &mut access, &container.facts().id);
        let dev = ContainerDev::open_again(container, notes.directories.clone(), notes.root_file_system);
        let rest = dev
            .map_err(EffectError::from)
            .and_then(|dev| Ok((dev, Announcer::open(container)?)));
        let (dev, announcer) = match rest {
            Ok(opened) => opened,
            Err(error) => {
                if !granted.is_empty() {
                    let _ = access.ensure(&GrantSet::new())?;
                }
                return Err(error);
            }
        };
        let inside = Self {
            container: container.clone(),
            access,
            dev,
            database: ContainerDatabase::open(udev, &lock),
            must_find_database: false,
            announcer,
            lock,
            notes: NotesWriter::new(notes),
            announced: std::mem::take(&mut notes.announced),
            made_before: made_by_us(&notes.attachments),
            directories_ahead: BTreeSet::new(),
        };
        Ok((inside, granted))
    }

    pub(crate) fn lock(&self) -> &RecordLock {
        &self.lock
    }

    /// Replaces the lock, after the record was restored.
    pub(crate) fn set_lock(&mut self, lock: RecordLock) {
        self.lock = lock;
        self.notes.forget_journal();
        self.access.forget_owned();
        self.database.restart();
    }

    /// Mounts the container's udev database unless it is mounted. Returns whether a directory was
    /// created for that, which the notes must have.
    pub(crate) fn ensure_database(&mut self) -> bool {
        self.must_find_database = false;
        let before = self.dev.directories().len();
        self.database.ensure(&mut self.dev, &self.container, &self.lock);
        self.dev.directories().len() != before
    }

    /// Ends the pause before the next attempt of [`Self::ensure_database`].
    pub(crate) fn end_database_pause(&mut self) {
        self.database.end_pause();
    }

    /// Call this before a plan. Looks for the database if that decides on the plan, as
    /// [`Self::ensure_database`] does. Otherwise it is looked for when the plan has created its
    /// nodes.
    pub(crate) fn begin_plan(&mut self) -> bool {
        self.must_find_database = true;
        self.directories_ahead.clear();
        self.database.is_undecided() && self.ensure_database()
    }

    /// Whether the container has a udev database.
    pub(crate) fn database_state(&self) -> &DatabaseState {
        self.database.state()
    }

    /// The entries of the container's udev database; `None` if it has none.
    pub(crate) fn entries(&self) -> Option<&Entries> {
        self.database.entries()
    }

    /// Mounts a node again that the container has unmounted, see [`ContainerDev::put_back`].
    pub(crate) fn put_back(&mut self, path: &Path, node: &NodeSpec) -> Result<Change, EffectError> {
        Ok(self.dev.put_back(path, node.num, &owner_of(node))?)
    }

    /// Removes the directory that was created to mount the udev database on, and so the mount.
    pub(crate) fn remove_database_mount(&mut self) {
        self.dev.remove_run_udev();
    }

    /// Removes our files that still exist after the container has ended.
    pub(crate) fn remove_outliving(&mut self, attachments: &Attachments, rootfs: &Path) {
        self.dev.remove_outliving(attachments);
        let left = self.dev.directories();
        if !left.contains(Path::new(RUN_UDEV)) {
            return;
        }
        // The container's root is read-only, but the host's path to it may not be.
        if let Ok(Some(mut ended)) = ContainerDev::open_ended(rootfs, left.clone()) {
            ended.remove_run_udev();
        }
    }

    /// Returns the lock, when nothing has to be changed any more.
    pub(crate) fn into_lock(self) -> RecordLock {
        self.lock
    }

    /// The counters, and what else the next notes have.
    pub(super) fn notes(&self) -> &NotesWriter {
        &self.notes
    }

    pub(super) fn notes_mut(&mut self) -> &mut NotesWriter {
        &mut self.notes
    }

    /// Writes what is attached, granted, selected and counted.
    pub(super) fn write_all_notes(&mut self, attachments: &Attachments) -> Result<(), EffectError> {
        let notes = self.current_notes(attachments);
        self.notes.write(&self.lock, notes)
    }

    fn current_notes(&self, attachments: &Attachments) -> Notes {
        Notes {
            attachments: attachments.clone(),
            filter: self.access.memory().ahead_of(&attachments.grants()),
            directories: self.dev.directories().clone(),
            root_file_system: Some(self.dev.root_file_system()),
            announced: self.announced.clone(),
            ..Notes::default()
        }
    }

    /// What an earlier watcher has created at a path can be replaced.
    fn without_own(&self, path: &Path, found: PathState) -> PathState {
        match found {
            PathState::Other if self.made_before.contains(path) => PathState::Vacant,
            found => found,
        }
    }

    /// Adds the directories that are created with a file at a path to the next note.
    fn note_directories_of(&mut self, path: &Path, found: PathState) {
        if found == PathState::NoDirectory {
            self.directories_ahead.extend(self.dev.missing_directories(path));
        }
    }

    /// Shortens the journal of the notes if it has become long.
    ///
    /// # Errors
    /// When it cannot be written; the long one stays.
    pub(crate) fn compact_notes(&mut self) -> Result<(), EffectError> {
        self.notes.compact(&self.lock)
    }

    /// The devices without a node that were announced in the container.
    pub(crate) fn announced(&self) -> &AnnouncedDevices {
        &self.announced
    }

    /// Updates them after a device moved in sysfs.
    pub(crate) fn follow_move(&mut self, from: &SysPath, to: &SysPath) {
        self.announced.follow_move(from, to);
    }

    /// Checks that access is still in force; grants it again if an engine has replaced the filter.
    ///
    /// # Errors
    /// When access is not in force, and cannot be granted again.
    pub(crate) fn ensure(&mut self, granted: &GrantSet) -> Result<Change, FilterError> {
        self.access.ensure(granted)
    }

    /// Whether the container is in the same cgroup as before, see
    /// [`ContainerAccess::is_in_place`].
    pub(super) fn is_in_place(&self) -> bool {
        self.access.is_in_place()
    }

    /// Whether access is certainly still in force, see [`ContainerAccess::is_unchanged`].
    pub(super) fn is_access_unchanged(&self) -> bool {
        self.access.is_unchanged()
    }

    /// Follows the container into another cgroup, see [`ContainerAccess::follow`].
    pub(super) fn follow(&mut self) -> Place {
        self.access.follow(&self.container)
    }

    /// Revokes all access after the container has ended. Returns whether nothing is granted any
    /// more.
    pub(crate) fn revoke(&self) -> bool {
        self.access.revoke()
    }
}

/// Reduces the access that an earlier watcher granted to what is due. Returns what is in force. A
/// container that has moved has no access: the first plan grants what is due.
fn revoke_all_but(due: GrantSet, held: &GrantSet, access: &mut ContainerAccess, id: &str) -> GrantSet {
    if held.is_empty() || due == *held {
        return held.clone();
    }
    let mut granted = due;
    match access.ensure(&granted) {
        Ok(_) => {}
        Err(FilterError::Refused { refused }) => refused.iter().for_each(|(num, _)| {
            granted.remove(num);
        }),
        // The next tick tries again.
        Err(error) => {
            tracing::error!(container = %id, "{error}");
            return held.clone();
        }
    }
    granted
}

fn owner_of(node: &NodeSpec) -> NodeOwner {
    NodeOwner {
        mode: node.mode,
        uid: node.uid,
        gid: node.gid,
    }
}

fn made_by_us(attachments: &Attachments) -> BTreeSet<PathBuf> {
    let mut paths = BTreeSet::new();
    for (path, attachment) in attachments.iter() {
        if attachment.node_creator == NodeCreator::Watcher {
            paths.insert(path.clone());
        }
        let links = attachment
            .links
            .iter()
            .filter(|(_, creator)| **creator == NodeCreator::Watcher);
        paths.extend(links.map(|(link, _)| link.clone()));
    }
    paths
}

impl Effects for ContainerEffects {
    type Error = EffectError;

    fn find_node(&mut self, path: &Path, node: &NodeSpec) -> Result<PathState, EffectError> {
        let found = self.dev.find_node(path, node.num)?;
        self.note_directories_of(path, found);
        Ok(self.without_own(path, found))
    }

    fn find_link(&mut self, link: &Path, target: &Path) -> Result<PathState, EffectError> {
        let found = self.dev.find_link(link, target)?;
        self.note_directories_of(link, found);
        Ok(self.without_own(link, found))
    }

    fn add_node(&mut self, path: &Path, node: &NodeSpec) -> Result<NodeCreator, EffectError> {
        let ours = self.made_before.remove(path);
        Ok(match self.dev.add_node(path, node.num, &owner_of(node), ours)? {
            NodeOutcome::Created | NodeOutcome::Unchanged => NodeCreator::Watcher,
            NodeOutcome::Adopted | NodeOutcome::HostOwned => NodeCreator::Other,
        })
    }

    fn remove_node(&mut self, path: &Path, node: &NodeSpec) -> Result<(), EffectError> {
        self.made_before.remove(path);
        let _ = self.dev.remove_node(path, node.num)?;
        Ok(())
    }

    fn remove_link_remains(&mut self, link: &Path, target: &Path) -> Result<(), EffectError> {
        self.made_before.remove(link);
        let _ = self.dev.remove_link_remains(link, target)?;
        Ok(())
    }

    fn remove_remains(&mut self, path: &Path) -> Result<(), EffectError> {
        if self.dev.remove_remains(path)? == Change::Made {
            self.made_before.remove(path);
        }
        Ok(())
    }

    fn add_link(&mut self, link: &Path, target: &Path) -> Result<NodeCreator, EffectError> {
        let ours = self.made_before.remove(link);
        Ok(match self.dev.add_link(link, target, ours)? {
            LinkOutcome::Created | LinkOutcome::Unchanged => NodeCreator::Watcher,
            LinkOutcome::Adopted | LinkOutcome::HostOwned => NodeCreator::Other,
        })
    }

    fn remove_link(&mut self, link: &Path, target: &Path) -> Result<(), EffectError> {
        self.made_before.remove(link);
        let _ = self.dev.remove_link(link, target)?;
        Ok(())
    }

    fn set_grants(&mut self, grants: &GrantSet) -> Result<Vec<(DevNum, String)>, EffectError> {
        Ok(self.access.set(grants)?)
    }

    fn write_entry(&mut self, id: &DatabaseId, facts: &EntryFacts) -> Result<(), EffectError> {
        if self.must_find_database {
            // A program in the container, such as its systemd, may have mounted over it. A
            // directory that is created now is in the notes that end the plan.
            self.ensure_database();
        }
        Ok(self.database.write(id, facts)?)
    }

    fn remove_entry(&mut self, id: &DatabaseId) -> Result<(), EffectError> {
        Ok(self.database.remove(id)?)
    }

    fn announce(
        &mut self,
        form: UeventForm,
        action: UeventAction,
        device: &Device,
        path: &Path,
    ) -> Result<(), EffectError> {
        let _ = self.announcer.announce(form, action, device, Some(path))?;
        Ok(())
    }

    fn announce_nodeless(&mut self, announcement: &Announcement) -> Result<(), EffectError> {
        self.announced.note(announcement);
        let _ = self.announcer.announce_nodeless(announcement)?;
        Ok(())
    }

    fn write_notes(&mut self, attachments: &Attachments) -> Result<(), EffectError> {
        let mut notes = self.current_notes(attachments);
        notes.directories.append(&mut self.directories_ahead);
        self.notes.write_news(&self.lock, notes)
    }
}
