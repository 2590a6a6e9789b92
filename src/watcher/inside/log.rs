//! What is logged of the container's devices.

use std::path::{Path, PathBuf};

use super::Inside;
use crate::host::log::event;
use crate::host::users::closed_to_all;
use crate::model::device::UdevState;
use crate::model::plan::attachment::{Attachment, Attachments};

impl Inside {
    /// Logs what was detached and attached, in this order. Returns the paths of the latter.
    pub(super) fn log_changes(&self, before: &Attachments) -> Vec<PathBuf> {
        let is_gone = |(path, _): &(&PathBuf, &Attachment)| self.attachments.get(path).is_none();
        for (path, attachment) in before.iter().rev().filter(is_gone) {
            let text = format!("detached {} ({})", path.display(), attachment.node.num);
            self.log_event(event::DETACHED, attachment.device.syspath.as_str(), path, &text);
        }
        let mut attached = Vec::new();
        for (path, attachment) in self.attachments.iter() {
            if before.get(path).is_some_and(|old| is_same(old, attachment)) {
                continue;
            }
            let text = format!(
                "attached {} ({} {}) of {}",
                path.display(),
                attachment.node.num,
                attachment.access,
                attachment.device.syspath
            );
            self.log_event(event::ATTACHED, attachment.device.syspath.as_str(), path, &text);
            attached.push(path.clone());
        }
        attached
    }

    /// Logs the devices that nobody in a rootless container may open, once udevd has given their
    /// nodes owner and mode.
    pub(super) fn log_inaccessible(&self, before: &Attachments) {
        if !self.container.is_rootless() {
            return;
        }
        let is_final = |attachment: &Attachment| attachment.device.udev_state != UdevState::Pending;
        for (path, attachment) in self
            .attachments
            .iter()
            .filter(|(_, attachment)| is_final(attachment))
        {
            let old = before.get(path).filter(|old| is_same(old, attachment));
            if old.is_some_and(is_final) {
                continue;
            }
            if let Some(fault) = closed_to_all(&attachment.device, self.record.container.pid) {
                let device = attachment.device.syspath.as_str();
                self.log_event(event::INACCESSIBLE, device, path, &fault);
            }
        }
    }

    /// Counts and logs an event of a device, in the form that `oci-hotplug events` reads: all
    /// fields are texts and have this order, so that the journal stores them unchanged and the log
    /// file quotes them. Device and node are empty for events that concern all of them.
    pub(in crate::watcher) fn log_event(&self, event: &'static str, device: &str, node: &Path, text: &str) {
        self.count(|counters| counters.count(event));
        let container = self.id();
        let node = &*node.to_string_lossy();
        match event {
            event::ATTACHED | event::DETACHED => tracing::info!(container, event, device, node, "{text}"),
            event::FAILED => tracing::error!(container, event, device, node, "{text}"),
            _ => tracing::warn!(container, event, device, node, "{text}"),
        }
    }
}

fn is_same(old: &Attachment, new: &Attachment) -> bool {
    old.device.syspath == new.device.syspath && old.node == new.node
}
