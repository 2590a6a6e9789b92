//! The changes to send as events: a queue of bounded length, in which the same change of the same
//! unit has one entry with a count.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

/// The most changes in the queue, sent or not. Further changes are only counted.
const MAX_ENTRIES: usize = 256;

/// The same change of the same unit is sent once in this interval, with a count.
pub(crate) const REPEAT_INTERVAL: Duration = Duration::from_secs(10);

/// A change of a unit that a container has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Change {
    Vanished,
    Returned,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Subject {
    pub resource: String,
    pub unit: String,
    pub change: Change,
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// The path of the device in sysfs, or of its node.
    pub place: String,
    /// The container that had the unit at that time (`namespace/pod/container`), if known: a later
    /// holder gets no event.
    pub container: Option<String>,
    /// How often the change has happened since the last event.
    pub unsent: u32,
    pub last: Timestamp,
    pub not_before: Instant,
    pub sent: Option<SentEvent>,
}

/// A time, for comparisons and as text (RFC 3339).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Timestamp(Instant, pub String);

impl Timestamp {
    pub(crate) fn now() -> Self {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = SystemTime.format_time(&mut Writer::new(&mut text));
        Self(Instant::now(), text)
    }
}

/// An event that the API server has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SentEvent {
    pub holder: Holder,
    pub name: String,
    pub count: u32,
}

/// The container that has a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    pub namespace: String,
    pub pod: String,
    pub container: String,
    pub uid: Option<String>,
}

impl Holder {
    /// Whether it is the container `namespace/pod/container`.
    pub(crate) fn is(&self, container: &str) -> bool {
        format!("{}/{}/{}", self.namespace, self.pod, self.container) == container
    }
}

/// Changes to be sent, and recently sent ones.
#[derive(Debug, Default)]
pub(crate) struct Queue(BTreeMap<Subject, Entry>);

impl Queue {
    /// Adds a change; false if the queue is full.
    pub(crate) fn note(
        &mut self,
        subject: Subject,
        place: &str,
        container: Option<&str>,
        now: Timestamp,
    ) -> bool {
        if let Some(entry) = self.0.get_mut(&subject) {
            entry.unsent += 1;
            entry.last = now;
            place.clone_into(&mut entry.place);
            entry.container = container.map(str::to_owned);
            return true;
        }
        if self.0.len() >= MAX_ENTRIES {
            let sent = self.0.iter().filter(|(_, entry)| entry.unsent == 0);
            let Some(oldest) = sent.min_by_key(|(_, entry)| &entry.last) else {
                return false;
            };
            let oldest = oldest.0.clone();
            self.0.remove(&oldest);
        }
        let entry = Entry {
            place: place.to_owned(),
            container: container.map(str::to_owned),
            unsent: 1,
            not_before: now.0,
            last: now,
            sent: None,
        };
        self.0.insert(subject, entry);
        true
    }

    /// Whether there is an entry, sent or not.
    pub(crate) fn has(&self, subject: &Subject) -> bool {
        self.0.contains_key(subject)
    }

    /// The next change to send, and when: the one that has been due longest.
    pub(crate) fn next(&self) -> Option<(Instant, Subject, Entry)> {
        let unsent = self.0.iter().filter(|(_, entry)| entry.unsent > 0);
        let (subject, entry) = unsent.min_by_key(|(_, entry)| (entry.not_before, &entry.last))?;
        Some((entry.not_before, subject.clone(), entry.clone()))
    }

    /// Postpones the changes of a unit that cannot be sent now, in order, behind those of other
    /// units.
    pub(crate) fn postpone(&mut self, subject: &Subject, to: Instant) {
        let is_of_unit =
            |other: &Subject| (&other.resource, &other.unit) == (&subject.resource, &subject.unit);
        for (_, entry) in self.0.iter_mut().filter(|(other, _)| is_of_unit(other)) {
            entry.not_before = entry.not_before.max(to);
        }
    }

    /// Records that an event for `count` changes was sent, or, if `sent` is `None`, never will be.
    pub(crate) fn finish(&mut self, subject: &Subject, count: u32, sent: Option<SentEvent>, now: Instant) {
        if let Some(entry) = self.0.get_mut(subject) {
            entry.unsent = entry.unsent.saturating_sub(count);
            entry.not_before = now + REPEAT_INTERVAL;
            entry.sent = sent;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(unit: &str, change: Change) -> Subject {
        Subject {
            resource: "example.com/serial".to_owned(),
            unit: unit.to_owned(),
            change,
        }
    }

    fn sent(count: u32) -> Option<SentEvent> {
        let holder = Holder {
            namespace: "default".to_owned(),
            pod: "lab".to_owned(),
            container: "app".to_owned(),
            uid: None,
        };
        let name = "lab.1".to_owned();
        Some(SentEvent { holder, name, count })
    }

    #[test]
    fn a_flapping_unit_has_one_event_per_interval_with_a_count() {
        let (mut queue, flapping) = (Queue::default(), subject("a", Change::Vanished));
        for _ in 0..1000 {
            assert!(queue.note(flapping.clone(), "/sys/a", None, Timestamp::now()));
        }
        let (at, next, entry) = queue.next().unwrap();
        assert!(at <= Instant::now() && next == flapping && entry.unsent == 1000);
        assert!(queue.note(flapping.clone(), "/sys/b", None, Timestamp::now()));
        let now = Instant::now();
        queue.finish(&flapping, entry.unsent, sent(1000), now);
        let (at, _, entry) = queue.next().unwrap();
        assert_eq!(
            (at, entry.unsent, entry.place.as_str()),
            (now + REPEAT_INTERVAL, 1, "/sys/b")
        );
        assert_eq!(entry.sent, sent(1000));
        queue.finish(&flapping, 1, sent(1001), now);
        assert!(queue.next().is_none());
    }

    #[test]
    fn the_change_that_has_waited_longest_is_next() {
        let mut queue = Queue::default();
        let (first, second) = (subject("b", Change::Vanished), subject("a", Change::Vanished));
        queue.note(first.clone(), "", None, Timestamp::now());
        queue.note(second.clone(), "", None, Timestamp::now());
        assert_eq!(queue.next().unwrap().1, first);
        queue.finish(&first, 1, None, Instant::now());
        queue.note(first, "", None, Timestamp::now());
        assert_eq!(queue.next().unwrap().1, second);
    }

    #[tokio::test]
    async fn a_postponed_change_does_not_delay_others() {
        let mut queue = Queue::default();
        let (first, second) = (subject("1", Change::Vanished), subject("2", Change::Vanished));
        queue.note(first.clone(), "", None, Timestamp::now());
        queue.note(second.clone(), "", None, Timestamp::now());
        let later = Instant::now() + Duration::from_secs(60);
        queue.postpone(&first, later);
        assert_eq!(queue.next().unwrap().1, second);
        queue.finish(&second, 1, None, Instant::now());
        assert_eq!(queue.next().map(|(at, next, _)| (at, next)), Some((later, first)));
    }

    #[test]
    fn a_holder_is_compared_by_its_full_name() {
        let holder = sent(1).unwrap().holder;
        assert!(holder.is("default/lab/app") && !holder.is("default/lab-2/app"));
    }

    #[test]
    fn the_queue_is_bounded_and_sent_changes_make_room() {
        let mut queue = Queue::default();
        let unit = |number: usize| subject(&number.to_string(), Change::Returned);
        for number in 0..MAX_ENTRIES {
            assert!(queue.note(unit(number), "", None, Timestamp::now()));
        }
        assert!(!queue.note(unit(MAX_ENTRIES), "", None, Timestamp::now()));
        assert!(queue.note(unit(0), "", None, Timestamp::now()), "it has an entry");
        queue.finish(&unit(7), 1, sent(1), Instant::now());
        assert!(queue.note(unit(MAX_ENTRIES), "", None, Timestamp::now()));
        assert_eq!(queue.0.len(), MAX_ENTRIES);
        assert!(!queue.0.contains_key(&unit(7)));
    }
}
