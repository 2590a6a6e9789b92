//! Which events of devices without a node a container receives: interfaces of USB devices, sound
//! cards, input devices, network interfaces. PulseAudio waits for `card1`, SDL reads the parent of
//! `event7`.
//!
//! Kernel and udevd each have an order, and so have the announcements in the form of each:
//! first an `add`, then each later event once, at the end a `remove`. A device that the host had
//! before it belonged to the container has its `add` when it begins to belong.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::model::device::event::DeviceEvent;
use crate::model::device::{Device, SysPath, UdevState, nodeless};
use crate::model::plan::Candidates;
use crate::model::request::Ready;
use crate::model::uevent::{UeventAction, UeventForm};

/// The property of events that a program on the host caused (udevadm trigger).
const SYNTHETIC: &str = "SYNTH_UUID";

/// An event of a device without a node, as the host or as the container receives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    pub form: UeventForm,
    pub action: UeventAction,
    pub device: Device,
}

impl Announcement {
    /// An event of a device without a node; `None` for every other event. Removals and lost events
    /// are found by comparing.
    pub fn of_event(event: &DeviceEvent) -> Option<Self> {
        let (DeviceEvent::Added(device) | DeviceEvent::Changed(device) | DeviceEvent::Moved { device, .. }) =
            event
        else {
            return None;
        };
        let action = UeventAction::of_word(device.properties.get("ACTION")?)?;
        let form = match device.udev_state {
            UdevState::Processed => UeventForm::Udev,
            UdevState::Pending | UdevState::Overdue | UdevState::NoUdevd => UeventForm::Kernel,
        };
        device.node.is_none().then(|| Self {
            form,
            action,
            device: device.clone(),
        })
    }
}

/// What a container has received about a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announced {
    /// The device as last announced, for its `remove`.
    device: Device,
    kernel: Told,
    udev: Told,
}

/// What a container has received about a device in one form.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Told {
    is_present: bool,
    /// Whether its driver is bound, so that an `unbind` comes before the `remove`.
    is_bound: bool,
}

/// The devices without a node whose `add` a container has received, and not their `remove`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AnnouncedDevices(BTreeMap<SysPath, Announced>);

/// The devices of which a container has received something new, and those (`None`) whose `remove`
/// it has received.
pub(crate) type AnnouncedChanges = BTreeMap<SysPath, Option<Announced>>;

impl AnnouncedDevices {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn contains(&self, syspath: &SysPath) -> bool {
        self.0.contains_key(syspath)
    }

    /// Records a message that was sent.
    pub fn note(&mut self, sent: &Announcement) {
        let known = self.0.entry(sent.device.syspath.clone());
        let known = known.or_insert_with(|| Announced {
            device: sent.device.clone(),
            kernel: Told::default(),
            udev: Told::default(),
        });
        let told = match sent.form {
            UeventForm::Kernel => &mut known.kernel,
            UeventForm::Udev => &mut known.udev,
        };
        told.is_present = sent.action != UeventAction::Remove;
        match sent.action {
            UeventAction::Add => told.is_bound = sent.device.driver.is_some(),
            UeventAction::Bind => told.is_bound = true,
            UeventAction::Unbind => told.is_bound = false,
            _ => {}
        }
        // udevd's properties are those that the `remove` repeats.
        if sent.form == UeventForm::Udev || !known.udev.is_present {
            known.device.clone_from(&sent.device);
        }
        if !known.kernel.is_present && !known.udev.is_present {
            self.0.remove(&sent.device.syspath);
        }
    }

    /// Updates paths after a device moved in sysfs.
    pub fn follow_move(&mut self, from: &SysPath, to: &SysPath) {
        let all = std::mem::take(&mut self.0).into_iter();
        let moved = all.map(|(syspath, mut announced)| {
            let syspath = super::moved(&syspath, from, to).unwrap_or(syspath);
            announced.device.syspath = syspath.clone();
            (syspath, announced)
        });
        self.0 = moved.collect();
    }

    /// What is different from an earlier state.
    pub fn changes_since(&self, before: &Self) -> AnnouncedChanges {
        let removed = before.0.keys().filter(|syspath| !self.0.contains_key(*syspath));
        let is_new =
            |(syspath, announced): &(&SysPath, &Announced)| before.0.get(*syspath) != Some(*announced);
        let changed = self.0.iter().filter(is_new);
        let changed = changed.map(|(syspath, announced)| (syspath.clone(), Some(announced.clone())));
        removed
            .map(|syspath| (syspath.clone(), None))
            .chain(changed)
            .collect()
    }

    /// Applies such a difference.
    pub fn apply(&mut self, changes: AnnouncedChanges) {
        for (syspath, announced) in changes {
            match announced {
                Some(announced) => _ = self.0.insert(syspath, announced),
                None => _ = self.0.remove(&syspath),
            }
        }
    }

    fn has(&self, syspath: &SysPath, form: UeventForm) -> bool {
        self.0.get(syspath).is_some_and(|announced| match form {
            UeventForm::Kernel => announced.kernel.is_present,
            UeventForm::Udev => announced.udev.is_present,
        })
    }
}

/// The messages of one plan.
#[derive(Debug, Default)]
pub(super) struct Announcements {
    /// `remove`, by path.
    pub removals: Vec<Announcement>,
    /// `add`, by path: parents come first.
    pub additions: Vec<Announcement>,
    /// The other events, in the order in which they arrived.
    pub changes: Vec<Announcement>,
}

impl Announcements {
    /// The `remove` of everything.
    pub(super) fn of_all_removals(announced: &AnnouncedDevices) -> Self {
        Self {
            removals: removals(announced, &BTreeMap::new(), |_| true),
            ..Self::default()
        }
    }
}

/// What the container is to receive, when these devices are attached: `events` are those since the
/// last plan.
pub(super) fn of(
    attached: &BTreeSet<&SysPath>,
    candidates: &Candidates<'_>,
    announced: &AnnouncedDevices,
    events: &[Announcement],
) -> Announcements {
    let places = candidates.places();
    let belonging = nodeless::belonging(places, attached, candidates.inventory());
    let mut announcements = Announcements {
        removals: removals(announced, &belonging, |syspath| {
            candidates.inventory().get(syspath).is_some()
        }),
        ..Announcements::default()
    };
    let mut replayed: Vec<(usize, Announcement)> = Vec::new();
    for device in belonging.values() {
        let own = events.iter().enumerate();
        let own = own.filter(|(_, event)| event.device.syspath == device.syspath);
        let stream = Stream {
            device,
            waits_for_udevd: waits_for_udevd(device, candidates),
            events: own.collect(),
        };
        for form in [UeventForm::Kernel, UeventForm::Udev] {
            let is_announced = announced.has(&device.syspath, form);
            let (addition, changes) = stream.messages(form, is_announced);
            announcements.additions.extend(addition);
            replayed.extend(changes);
        }
    }
    replayed.sort_by_key(|(at, _)| *at);
    announcements.changes = replayed.into_iter().map(|(_, change)| change).collect();
    announcements
}

/// Both forms of the `remove` of each device that does not belong to the container any more.
///
/// When a device is unplugged, udevd's `unbind` comes after the kernel's `remove`: it is announced
/// before the `remove`, which does not wait for udevd.
fn removals(
    announced: &AnnouncedDevices,
    belonging: &BTreeMap<&SysPath, &Device>,
    is_on_host: impl Fn(&SysPath) -> bool,
) -> Vec<Announcement> {
    let mut removals = Vec::new();
    for (syspath, gone) in &announced.0 {
        if belonging.contains_key(syspath) {
            continue;
        }
        for (form, told) in [(UeventForm::Kernel, gone.kernel), (UeventForm::Udev, gone.udev)] {
            let mut announce = |action| {
                removals.push(Announcement {
                    form,
                    action,
                    device: gone.device.clone(),
                });
            };
            if told.is_present && told.is_bound && !is_on_host(syspath) {
                announce(UeventAction::Unbind);
            }
            if told.is_present {
                announce(UeventAction::Remove);
            }
        }
    }
    removals
}

/// Whether all requests for the devices around this one have `ready=udev`: then the kernel's form
/// waits as well.
fn waits_for_udevd(device: &Device, candidates: &Candidates<'_>) -> bool {
    let above = candidates.iter().filter(|candidate| {
        let mut places = candidate.entry.places();
        places.any(|place| device.syspath.is_at_or_below(place))
    });
    let mut ready = above.map(|candidate| candidate.entry.request.options.ready);
    ready.all(|ready| ready == Some(Ready::Udev))
}

/// One device, with its events since the last plan and their positions.
struct Stream<'a> {
    device: &'a Device,
    waits_for_udevd: bool,
    events: Vec<(usize, &'a Announcement)>,
}

impl Stream<'_> {
    /// The `add` in this form, if it is due, and the events after it.
    fn messages(
        &self,
        form: UeventForm,
        is_announced: bool,
    ) -> (Option<Announcement>, Vec<(usize, Announcement)>) {
        let as_message = |event: &Announcement| Announcement {
            form,
            ..event.clone()
        };
        let mut events = self
            .events
            .iter()
            .filter(|(_, event)| self.source(form) == event.form);
        if !is_announced {
            let add = events.find(|(_, event)| event.action == UeventAction::Add);
            return match add {
                Some((_, add)) => {
                    let rest = events.map(|(at, event)| (*at, as_message(event)));
                    (Some(as_message(add)), rest.collect())
                }
                None => (self.late_addition(form), Vec::new()),
            };
        }
        // The device was read after its event had been sent, before it was received.
        let is_news = |event: &Announcement| {
            event.action != UeventAction::Add || event.device.properties.contains_key(SYNTHETIC)
        };
        let events = events.filter(|(_, event)| is_news(event));
        (None, events.map(|(at, event)| (*at, as_message(event))).collect())
    }

    /// Whose events lead to messages in a form.
    fn source(&self, form: UeventForm) -> UeventForm {
        match form {
            _ if self.device.udev_state == UdevState::NoUdevd => UeventForm::Kernel,
            UeventForm::Kernel if self.waits_for_udevd => UeventForm::Udev,
            form => form,
        }
    }

    /// The `add` of a device whose own has passed.
    fn late_addition(&self, form: UeventForm) -> Option<Announcement> {
        let is_due =
            self.source(form) == UeventForm::Kernel || self.device.udev_state == UdevState::Processed;
        is_due.then(|| Announcement {
            form,
            action: UeventAction::Add,
            device: self.device.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    use UeventAction::{Add, Bind, Change, Remove, Unbind};
    use UeventForm::{Kernel, Udev};

    fn device(name: &str) -> Device {
        Device::new(SysPath::new(format!("/sys/devices/{name}")))
    }

    fn announcement(form: UeventForm, action: UeventAction, device: Device) -> Announcement {
        Announcement { form, action, device }
    }

    /// What a container receives when a device is unplugged of which it has received this.
    fn removed(received: &[(UeventForm, UeventAction)], device: &Device) -> Vec<(UeventForm, UeventAction)> {
        let mut announced = AnnouncedDevices::default();
        for (form, action) in received {
            announced.note(&announcement(*form, *action, device.clone()));
        }
        let all = removals(&announced, &BTreeMap::new(), |_| false).into_iter();
        all.map(|removal| (removal.form, removal.action)).collect()
    }

    #[test]
    fn a_device_is_unbound_before_its_removal_if_it_was_bound_when_it_came_or_later() {
        let plain = device("a");
        let mut bound = device("a");
        bound.driver = Some("x".into());
        let add = (Kernel, Add);
        assert_eq!(removed(&[add], &plain), [(Kernel, Remove)]);
        assert_eq!(removed(&[add], &bound), [(Kernel, Unbind), (Kernel, Remove)]);
        assert_eq!(
            removed(&[add, (Kernel, Bind)], &plain),
            [(Kernel, Unbind), (Kernel, Remove)]
        );
        assert_eq!(removed(&[add, (Kernel, Unbind)], &bound), [(Kernel, Remove)]);
        assert_eq!(removed(&[add, (Kernel, Remove)], &bound), []);
        assert_eq!(
            removed(&[add, (Udev, Add)], &plain),
            [(Kernel, Remove), (Udev, Remove)]
        );
    }

    #[test]
    fn the_removal_has_the_properties_of_udevd_if_it_has_announced_the_device() {
        let with = |value: &str| {
            let mut device = device("a");
            device.properties.insert("ID_X".into(), value.into());
            device
        };
        let mut announced = AnnouncedDevices::default();
        let shown = |announced: &AnnouncedDevices| {
            let removals = Announcements::of_all_removals(announced).removals;
            removals[0].device.properties["ID_X"].clone()
        };
        for (form, action, value, expected) in [
            (Kernel, Add, "1", "1"),
            (Kernel, Change, "2", "2"),
            (Udev, Add, "3", "3"),
            (Kernel, Change, "4", "3"),
            (Udev, Change, "5", "5"),
        ] {
            announced.note(&announcement(form, action, with(value)));
            assert_eq!(shown(&announced), expected);
        }
    }

    #[test]
    fn a_device_counts_as_announced_until_both_forms_are_removed() {
        let (mut announced, here) = (AnnouncedDevices::default(), device("a"));
        let is = |announced: &AnnouncedDevices| (announced.is_empty(), announced.contains(&here.syspath));
        assert_eq!(is(&announced), (true, false));
        for (form, action, expected) in [
            (Kernel, Add, (false, true)),
            (Udev, Add, (false, true)),
            (Kernel, Remove, (false, true)),
            (Udev, Remove, (true, false)),
        ] {
            announced.note(&announcement(form, action, here.clone()));
            assert_eq!(is(&announced), expected, "{form:?} {action:?}");
        }
    }

    fn any_announced() -> impl Strategy<Value = AnnouncedDevices> {
        let form = prop::sample::select(vec![Kernel, Udev]);
        let action = prop::sample::select(vec![Add, Bind, Unbind, Remove]);
        prop::collection::vec((form, action, 0..3_u8), 0..6).prop_map(|events| {
            let mut announced = AnnouncedDevices::default();
            for (form, action, number) in events {
                announced.note(&announcement(form, action, device(&number.to_string())));
            }
            announced
        })
    }

    proptest! {
        #[test]
        fn the_changes_make_the_later_state_of_the_earlier_one(
            before in any_announced(),
            after in any_announced(),
        ) {
            let changes = after.changes_since(&before);
            prop_assert_eq!(changes.is_empty(), before == after);
            let is_change = |syspath: &&SysPath| before.0.get(*syspath) != after.0.get(*syspath);
            prop_assert!(changes.keys().all(|syspath| is_change(&syspath)));
            let mut changed = before;
            changed.apply(changes);
            prop_assert_eq!(changed, after);
        }
    }
}
