//! What happens to devices: messages that have arrived, as events in their order.

use std::path::Path;

use super::dev_files::DeviceFiles;
use super::links::HostLinks;
use super::listing::take_udev_facts;
use super::message::{Happened, Message, properties_of};
use super::socket::{BATCH, LARGE_BATCH, Received};
use super::{DeviceMonitor, Ready};
use crate::model::device::event::DeviceEvent;
use crate::model::device::{Aliases, SysPath, UdevState};
use crate::model::uevent::UeventForm;
use crate::model::uevent::facts::{JudgeUevents, UeventFacts};
use crate::model::uevent::received::KeptUevent;

/// All events matter.
struct Everything;

impl JudgeUevents for Everything {
    fn concerns(&mut self, _: &UeventFacts<'_>) -> bool {
        true
    }

    fn may_move_links(&self, _: &UeventFacts<'_>) -> bool {
        true
    }
}

impl DeviceMonitor {
    /// What has happened up to now: the kernel's events, then udevd's, then those of static nodes.
    /// What is left of thousands is for the next call. See [`Self::drain_relevant`].
    pub fn drain(&mut self) -> Vec<DeviceEvent> {
        self.drain_relevant(Ready::All, &mut Everything)
    }

    /// The events that are relevant; of the others, only the device is stored
    /// ([`Self::take_skipped`]). `ready` is what has become readable.
    ///
    /// [`DeviceEvent::Overrun`] comes at most once, and last: what is enumerated after it is newer
    /// than all before it. Where udevd runs, none of its events comes before the kernel's event of
    /// the same number, and none that is older than the device's removal or of a device that is not
    /// there (any more), or not under this number, comes at all.
    pub fn drain_relevant(&mut self, ready: Ready, relevance: &mut dyn JudgeUevents) -> Vec<DeviceEvent> {
        self.dev_files_have_changed |= self.dev_files.as_ref().is_some_and(DeviceFiles::have_changed);
        // udevd sends after the kernel. So its socket is emptied first: for each message found
        // there, the kernel's is waiting already, and can be reported before it; or it was received
        // before.
        let udev = match ready {
            Ready::Kernel => Received::default(),
            Ready::Udev | Ready::All => self.udev.receive(&mut self.buffer, BATCH),
        };
        let most = if udev.messages.is_empty() {
            BATCH
        } else {
            LARGE_BATCH
        };
        let kernel = match ready == Ready::Udev && self.is_behind_kernel(&udev) {
            true => Received::default(),
            false => self.kernel.receive(&mut self.buffer, most),
        };
        for kept in &kernel.messages {
            self.heard.add(kept.message().number());
        }
        self.links_may_have_moved |= udev.overrun;
        let kernel_messages = self.relevant(UeventForm::Kernel, kernel.messages, relevance);
        let udev_messages = self.relevant(UeventForm::Udev, udev.messages, relevance);
        let mut events = self.report_all(kernel_messages, udev_messages);
        let has_removal = events
            .iter()
            .any(|event| matches!(event, DeviceEvent::Removed { .. }));
        // A node that went with its device (device_del in drivers/base/core.c removes it before it
        // tells) is missed by inotify where it is the far end of a link, or while nothing is
        // listened to.
        if self.static_nodes.woke() || has_removal {
            events.extend(self.static_nodes.look());
        }
        if kernel.overrun || udev.overrun {
            events.push(DeviceEvent::Overrun);
        }
        events
    }

    /// Whether the kernel's message was received before for each of these.
    fn is_behind_kernel(&self, udev: &Received) -> bool {
        let is_heard = |kept: &KeptUevent| self.heard.has(kept.message().number());
        !udev.overrun && udev.messages.iter().all(is_heard)
    }

    /// The messages that are relevant. Stores the devices of the others.
    fn relevant(
        &mut self,
        form: UeventForm,
        messages: Vec<KeptUevent>,
        relevance: &mut dyn JudgeUevents,
    ) -> Vec<KeptUevent> {
        let mut relevant = messages;
        relevant.retain(|kept| {
            let Some(facts) = UeventFacts::of(form, kept.message()) else {
                return false;
            };
            let is_relevant = relevance.concerns(&facts) || self.leads_to(&facts);
            if form == UeventForm::Udev {
                self.links_may_have_moved |= is_relevant || relevance.may_move_links(&facts);
            }
            if !is_relevant {
                self.skip(&facts);
            }
            is_relevant
        });
        relevant
    }

    /// Whether a followed path leads to the device or to its node.
    fn leads_to(&self, facts: &UeventFacts<'_>) -> bool {
        let ends = self.ends.borrow();
        !ends.is_empty()
            && (facts.has_path(|path| ends.contains(path))
                || ends.contains(Path::new(&format!("/sys{}", facts.devpath))))
    }

    fn skip(&mut self, facts: &UeventFacts<'_>) {
        let syspath = SysPath::new(format!("/sys{}", facts.devpath));
        self.skipped.add(syspath.clone());
        if facts.action != "remove" {
            return;
        }
        match facts.form {
            UeventForm::Kernel if self.udevd.runs() => self.gone.removed(syspath, facts.seqnum),
            UeventForm::Kernel => {}
            UeventForm::Udev => self.gone.removal_is_processed(&syspath, facts.seqnum),
        }
    }

    /// The events of the kernel's messages, then those of udevd's. Without messages nothing on the
    /// host is read.
    fn report_all(&mut self, kernel: Vec<KeptUevent>, udev: Vec<KeptUevent>) -> Vec<DeviceEvent> {
        if kernel.is_empty() && udev.is_empty() {
            return Vec::new();
        }
        let mut events = Vec::with_capacity(kernel.len() + udev.len());
        let links = self.links();
        let named = self.follow_named(&links);
        if !kernel.is_empty() {
            let udevd_runs = self.udevd.runs();
            let udev_state = if udevd_runs {
                UdevState::Pending
            } else {
                UdevState::NoUdevd
            };
            for kept in kernel {
                let properties = properties_of(&kept.message());
                if let Some(message) = Message::from_properties(properties, udev_state) {
                    self.gone.kernel_said(&message, udevd_runs);
                    events.push(self.report(message, &named));
                }
            }
        }
        for kept in udev {
            let properties = properties_of(&kept.message());
            if let Some(message) = Message::from_properties(properties, UdevState::Processed) {
                events.extend(self.report_udev(message, &links, &named));
            }
        }
        events
    }

    fn report_udev(
        &mut self,
        mut message: Message,
        links: &HostLinks,
        named: &Aliases,
    ) -> Option<DeviceEvent> {
        if !self.gone.udev_counts(&message) || !self.sysfs.is_same(&message.device) {
            return None;
        }
        take_udev_facts(&mut message.device, links);
        if matches!(message.happened, Happened::Moved(_)) {
            // The kernel told the move already; told twice it could take away what is at the old
            // place by now.
            message.happened = Happened::Changed;
        }
        Some(self.report(message, named))
    }

    fn report(&self, mut message: Message, named: &Aliases) -> DeviceEvent {
        if message.happened != Happened::Removed {
            let device = &mut message.device;
            self.sysfs.complete(device, &self.needed.attributes);
            device.aliases = named.of(device);
        }
        message.into_event()
    }
}
