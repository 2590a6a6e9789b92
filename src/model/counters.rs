//! What happened in one container, as numbers. Must not know how they are shown.

use serde::{Deserialize, Serialize};

/// How often each thing happened since the container was enrolled. A new watcher continues with the
/// numbers of the previous one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Devices that were attached.
    pub attached: u64,
    /// Devices that were detached.
    pub detached: u64,
    /// Devices that the policy denied.
    pub denied: u64,
    /// Devices that another container held.
    pub waiting: u64,
    /// Disks that were attached while another container held them, too.
    pub shared: u64,
    /// Devices that nobody in the rootless container may open.
    pub inaccessible: u64,
    /// Steps that failed at the first attempt.
    pub failed: u64,
    /// How often the device filter was restored after an engine had replaced it.
    pub restored: u64,
    /// How often events of the kernel were lost.
    pub overrun: u64,
    /// How often device events woke a watcher.
    pub wakes: u64,
    /// How long the watcher was busy with device events until everything was in place, in
    /// microseconds: the sum of all wakes.
    pub busy_us: u64,
    /// The longest of these times since the current watcher started.
    pub longest_us: u64,
    /// Watchers that started.
    pub started: u64,
    /// Watchers that ended without recording it, as far as a later watcher has noticed.
    pub crashed: u64,
    /// Whether a watcher has started and has not recorded its end.
    pub running: bool,
}

impl Counters {
    /// Counts an event of the log, by its name. Events without a counter are ignored.
    pub fn count(&mut self, event: &str) {
        let counter = match event {
            "attached" => &mut self.attached,
            "detached" => &mut self.detached,
            "denied" => &mut self.denied,
            "waiting" => &mut self.waiting,
            "shared" => &mut self.shared,
            "inaccessible" => &mut self.inaccessible,
            "failed" => &mut self.failed,
            "restored" => &mut self.restored,
            "overrun" => &mut self.overrun,
            _ => return,
        };
        *counter += 1;
    }

    /// Counts a wake by device events that took this many microseconds.
    pub fn count_wake(&mut self, took_us: u64) {
        self.wakes += 1;
        self.busy_us += took_us;
        self.longest_us = self.longest_us.max(took_us);
    }

    /// Records the start of a watcher.
    pub fn begin(&mut self) {
        self.started += 1;
        self.crashed += u64::from(self.running);
        self.running = true;
        self.longest_us = 0;
    }

    /// Records an orderly end, or a handover to another watcher.
    pub fn end(&mut self) {
        self.running = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watcher_that_ends_without_recording_it_has_crashed() {
        let mut counters = Counters::default();
        counters.begin();
        counters.end();
        counters.begin();
        assert_eq!((counters.started, counters.crashed), (2, 0));
        counters.begin();
        assert_eq!((counters.started, counters.crashed), (3, 1));
    }

    #[test]
    fn each_event_of_the_log_has_its_own_counter() {
        let mut counters = Counters::default();
        let events = [
            "attached",
            "detached",
            "denied",
            "waiting",
            "shared",
            "failed",
            "restored",
            "overrun",
            "inaccessible",
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
            denied: 3,
            waiting: 4,
            shared: 5,
            failed: 6,
            restored: 7,
            overrun: 8,
            inaccessible: 9,
            ..Counters::default()
        };
        assert_eq!(counters, counted);
    }

    #[test]
    fn the_longest_time_is_that_of_the_current_watcher() {
        let mut counters = Counters::default();
        counters.count_wake(3);
        counters.count_wake(2);
        assert_eq!((counters.wakes, counters.busy_us, counters.longest_us), (2, 5, 3));
        counters.begin();
        assert_eq!((counters.wakes, counters.busy_us, counters.longest_us), (2, 5, 0));
    }
}
