//! Refusals that were logged again and again, as for a container that its engine starts repeatedly.

use std::collections::HashMap;

use super::logged_event::LoggedEvent;
use super::timestamp::Timestamp;
use crate::host::log::event::{DENIED, FAILED, REFUSED_START, WAITING};

/// An event, and how often the log has it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Repeated {
    /// The last one.
    pub(super) event: LoggedEvent,
    pub(super) count: usize,
    /// When the first one was.
    pub(super) first: Timestamp,
}

impl Repeated {
    /// An event that the log has once.
    pub(super) fn once(event: LoggedEvent) -> Self {
        Self {
            count: 1,
            first: event.time,
            event,
        }
    }
}

/// The events in their order; of equal refusals only the last one.
pub(super) fn grouped(events: Vec<LoggedEvent>) -> Vec<Repeated> {
    let mut all: Vec<Option<Repeated>> = Vec::new();
    let mut last: HashMap<(String, String), usize> = HashMap::new();
    for event in events {
        let mut repeated = Repeated::once(event);
        let event = &repeated.event;
        if [DENIED, WAITING, FAILED, REFUSED_START].contains(&event.event.as_str()) {
            let key = (event.container.clone(), event.message.clone());
            let before = last.insert(key, all.len());
            if let Some(before) = before.and_then(|at| all[at].take()) {
                repeated.count += before.count;
                repeated.first = before.first;
            }
        }
        all.push(Some(repeated));
    }
    all.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(second: u64, container: &str, event: &str, message: &str) -> LoggedEvent {
        LoggedEvent {
            time: Timestamp::from_micros(second * 1_000_000).unwrap(),
            container: container.into(),
            event: event.into(),
            device: None,
            node: None,
            message: message.into(),
        }
    }

    #[test]
    fn of_equal_refusals_the_last_one_is_shown_with_their_number() {
        let events = vec![
            event(1, "a", REFUSED_START, "no"),
            event(2, "b", REFUSED_START, "no"),
            event(3, "a", "attached", "attached x"),
            event(4, "a", REFUSED_START, "no"),
            event(5, "a", "attached", "attached x"),
            event(6, "a", REFUSED_START, "another reason"),
            event(7, "a", REFUSED_START, "no"),
        ];
        let shown: Vec<(u64, String, usize)> = grouped(events)
            .into_iter()
            .map(|repeated| {
                let second = u64::try_from(repeated.event.time.seconds()).unwrap();
                (second, repeated.event.message, repeated.count)
            })
            .collect();
        let expected = [
            (2, "no", 1),
            (3, "attached x", 1),
            (5, "attached x", 1),
            (6, "another reason", 1),
            (7, "no", 3),
        ];
        assert_eq!(
            shown,
            expected.map(|(second, message, count)| (second, message.to_owned(), count))
        );
    }

    #[test]
    fn the_time_of_the_first_one_is_kept() {
        let events = (1..=3).map(|second| event(second, "a", DENIED, "no")).collect();
        let [repeated] = &grouped(events)[..] else {
            panic!("one group")
        };
        assert_eq!((repeated.first.seconds(), repeated.event.time.seconds()), (1, 3));
    }
}
