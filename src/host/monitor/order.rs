//! udevd's events come late: which of them still count. Pure.
//!
//! Must not know what the events carry.

use std::collections::{HashMap, VecDeque};

use super::message::{Happened, Message};
use crate::model::device::SysPath;

/// Most removals remembered: only a udevd that died over its work leaves some behind.
const LIMIT: usize = 4096;

/// Devices that the kernel removed and that udevd has not yet taken leave of, with the removal's
/// number.
#[derive(Debug, Default)]
pub(super) struct Gone(HashMap<SysPath, u64>);

impl Gone {
    /// Takes note of a message of the kernel's.
    pub(super) fn kernel_said(&mut self, message: &Message, udevd_runs: bool) {
        if !udevd_runs {
            self.0.clear();
            return;
        }
        if message.happened == Happened::Removed {
            self.removed(message.device.syspath.clone(), message.device.seqnum);
        }
    }

    /// Takes note of a removal that the kernel reported, where udevd runs.
    pub(super) fn removed(&mut self, syspath: SysPath, number: u64) {
        if self.0.len() >= LIMIT {
            self.0.retain(|_, gone| *gone + LIMIT as u64 > number);
        }
        self.0.insert(syspath, number);
    }

    /// udevd has processed a removal: it sends nothing older of the device after that.
    pub(super) fn removal_is_processed(&mut self, syspath: &SysPath, number: u64) {
        if self.0.get(syspath).is_some_and(|gone| *gone <= number) {
            self.0.remove(syspath);
        }
    }

    /// Whether a message of udevd's still tells something.
    ///
    /// Its removals do not: the kernel told them long before, and by now another device may be at
    /// the same place. Nor does what it says of the time before a removal. As udevd handles the
    /// events of one device in their order, its own removal is the end of that.
    pub(super) fn udev_counts(&mut self, message: &Message) -> bool {
        let device = &message.device;
        let gone = self.0.get(&device.syspath).copied();
        let is_older = gone.is_some_and(|gone| device.seqnum <= gone);
        let is_removal = message.happened == Happened::Removed;
        if is_removal {
            self.removal_is_processed(&device.syspath, device.seqnum);
        }
        !is_older && !is_removal
    }
}

/// How many of the kernel's latest messages are remembered by their numbers.
const HEARD: usize = 64;

/// The numbers of the kernel's latest messages that were received.
#[derive(Debug, Default)]
pub(super) struct Heard(VecDeque<u64>);

impl Heard {
    /// Takes note of a message of the kernel's.
    pub(super) fn add(&mut self, number: u64) {
        if self.0.len() == HEARD {
            self.0.pop_front();
        }
        self.0.push_back(number);
    }

    /// Whether this message of the kernel's was certainly received. Its latest messages need not be
    /// in the order of their numbers.
    pub(super) fn has(&self, number: u64) -> bool {
        // Most often it is one of the last.
        self.0.iter().rev().any(|known| *known == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::device::Device;

    fn message(happened: Happened, seqnum: u64) -> Message {
        let mut device = Device::new(SysPath::new("/sys/devices/a"));
        device.seqnum = seqnum;
        Message { happened, device }
    }

    fn removed_at(number: u64) -> Gone {
        let mut gone = Gone::default();
        gone.kernel_said(&message(Happened::Removed, number), true);
        gone
    }

    #[test]
    fn events_of_udevd_about_a_present_device_are_accepted() {
        let mut gone = Gone::default();
        gone.kernel_said(&message(Happened::Added, 1), true);
        assert!(gone.udev_counts(&message(Happened::Added, 1)));
        assert!(gone.udev_counts(&message(Happened::Changed, 2)));
    }

    #[test]
    fn a_late_add_after_the_removal_does_not_count_and_the_next_one_does() {
        let mut gone = removed_at(2);
        gone.kernel_said(&message(Happened::Added, 3), true);
        assert!(!gone.udev_counts(&message(Happened::Added, 1)));
        assert!(!gone.udev_counts(&message(Happened::Removed, 2)));
        assert!(gone.udev_counts(&message(Happened::Added, 3)));
    }

    #[test]
    fn an_older_removal_of_udevd_s_does_not_end_a_newer_one() {
        let mut gone = removed_at(2);
        gone.kernel_said(&message(Happened::Removed, 4), true);
        assert!(!gone.udev_counts(&message(Happened::Removed, 2)));
        assert!(!gone.udev_counts(&message(Happened::Added, 3)));
        assert!(!gone.udev_counts(&message(Happened::Removed, 4)));
        assert!(gone.0.is_empty());
    }

    #[test]
    fn removals_are_not_remembered_where_no_udevd_runs() {
        let mut gone = removed_at(2);
        gone.kernel_said(&message(Happened::Removed, 3), false);
        assert!(gone.0.is_empty());
    }

    #[test]
    fn removals_that_udevd_never_reports_do_not_accumulate() {
        let mut gone = Gone::default();
        for number in 1..=3 * LIMIT as u64 {
            let mut message = message(Happened::Removed, number);
            message.device.syspath = SysPath::new(format!("/sys/devices/{number}"));
            gone.kernel_said(&message, true);
        }
        assert!(gone.0.len() <= LIMIT);
    }

    #[test]
    fn only_a_message_that_was_received_lately_is_remembered() {
        let mut heard = Heard::default();
        assert!(!heard.has(0));
        for number in [5, 7, 6, 9] {
            heard.add(number);
        }
        let known: Vec<u64> = (0..12).filter(|number| heard.has(*number)).collect();
        assert_eq!(known, [5, 6, 7, 9], "8 is still to come");
        for number in 10..10 + HEARD as u64 {
            heard.add(number);
        }
        assert!(!heard.has(9) && heard.has(10));
        assert_eq!(heard.0.len(), HEARD);
    }
}
