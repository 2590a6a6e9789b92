//! What happened in one container, as numbers. Must not know how they are shown.

use serde::{Deserialize, Serialize};

/// How often each thing happened since the container was enrolled. One watcher goes on where the
/// last left off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Devices that came in.
    pub attached: u64,
    /// Devices that left.
    pub detached: u64,
    /// Devices that the policy kept out.
    pub refused: u64,
    /// Devices that another container had.
    pub waiting: u64,
    /// Disks that came in while another container had them.
    pub shared: u64,
    /// What could not be done at the first attempt.
    pub failed: u64,
    /// How often an engine had replaced the device filter.
    pub restored: u64,
    /// How often events of the kernel were lost.
    pub overrun: u64,
    /// How often device events woke a watcher.
    pub wakes: u64,
    /// How long it then took until all that followed was in place: microseconds, of all wakes
    /// together.
    pub busy_us: u64,
    /// The same of the longest, since the watcher of now began.
    pub longest_us: u64,
    /// How many watchers began.
    pub began: u64,
    /// How many of them ended without a word, as far as a later one has seen.
    pub died: u64,
    /// Whether a watcher has begun and not said that it ends.
    pub at_work: bool,
}

impl Counters {
    /// One more of what the log calls so; what it does not know is not counted.
    pub fn count(&mut self, event: &str) {
        let counter = match event {
            "attached" => &mut self.attached,
            "detached" => &mut self.detached,
            "refused" => &mut self.refused,
            "waiting" => &mut self.waiting,
            "shared" => &mut self.shared,
            "failed" => &mut self.failed,
            "restored" => &mut self.restored,
            "overrun" => &mut self.overrun,
            _ => return,
        };
        *counter += 1;
    }

    /// Device events that took so long, in microseconds.
    pub fn count_wake(&mut self, took_us: u64) {
        self.wakes += 1;
        self.busy_us += took_us;
        self.longest_us = self.longest_us.max(took_us);
    }

    /// A new watcher begins.
    pub fn begin(&mut self) {
        self.began += 1;
        self.died += u64::from(self.at_work);
        self.at_work = true;
        self.longest_us = 0;
    }

    /// It ends, or makes room for another, as it should.
    pub fn end(&mut self) {
        self.at_work = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watcher_that_goes_without_a_word_has_died() {
        let mut counters = Counters::default();
        counters.begin();
        counters.end();
        counters.begin();
        assert_eq!((counters.began, counters.died), (2, 0));
        counters.begin();
        assert_eq!((counters.began, counters.died), (3, 1));
    }

    #[test]
    fn each_event_of_the_log_has_a_counter_of_its_own() {
        let mut counters = Counters::default();
        let events = [
            "attached", "detached", "refused", "waiting", "shared", "failed", "restored", "overrun",
        ];
        for (event, times) in events.into_iter().zip(1..) {
            for _ in 0..times {
                counters.count(event);
            }
        }
        counters.count("started");
        let counted = Counters {
            attached: 1,
            detached: 2,
            refused: 3,
            waiting: 4,
            shared: 5,
            failed: 6,
            restored: 7,
            overrun: 8,
            ..Counters::default()
        };
        assert_eq!(counters, counted);
    }

    #[test]
    fn the_longest_is_that_of_the_watcher_of_now() {
        let mut counters = Counters::default();
        counters.count_wake(3);
        counters.count_wake(2);
        assert_eq!((counters.wakes, counters.busy_us, counters.longest_us), (2, 5, 3));
        counters.begin();
        assert_eq!((counters.wakes, counters.busy_us, counters.longest_us), (2, 5, 0));
    }
}
