//! Which bytes of a medium are locked, and how: pure values.

use std::collections::BTreeMap;

use crate::model::device::SysPath;
use crate::model::device::same_data::Extent;

/// How a container holds a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hold {
    /// Other containers may hold it, too.
    Shared,
    /// No other container may hold it.
    Exclusive,
}

/// How a device is held, and where its bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) extents: Vec<Extent>,
    pub(super) hold: Hold,
}

/// The devices of one container, by their paths in sysfs.
pub(super) type Held = BTreeMap<SysPath, Lease>;

/// The first and the last byte of a range, and how it is locked.
pub(super) type Segment = (u64, u64, Hold);

/// What to lock of a medium for these devices, in order. A byte of several devices is locked as the
/// strongest hold says.
pub(super) fn segments(held: &Held, medium: &SysPath) -> Vec<Segment> {
    // Where the extents begin and end. A medium can have many partitions, and each plan calls this:
    // it takes one pass over them.
    let mut ends: Vec<(u64, Hold, bool)> = Vec::new();
    for lease in held.values() {
        for extent in lease.extents.iter().filter(|extent| extent.medium == *medium) {
            ends.push((extent.first, lease.hold, true));
            ends.push((extent.last + 1, lease.hold, false));
        }
    }
    ends.sort_unstable();
    let (mut shared, mut exclusive) = (0_usize, 0_usize);
    let mut wanted: Vec<Segment> = Vec::new();
    for (index, (at, hold, begins)) in ends.iter().enumerate() {
        let count = match hold {
            Hold::Shared => &mut shared,
            Hold::Exclusive => &mut exclusive,
        };
        *count = if *begins {
            *count + 1
        } else {
            count.wrapping_sub(1)
        };
        let Some((next, ..)) = ends.get(index + 1).filter(|(next, ..)| next > at) else {
            continue;
        };
        let hold = match (shared, exclusive) {
            (0, 0) => continue,
            (_, 0) => Hold::Shared,
            _ => Hold::Exclusive,
        };
        match wanted.last_mut() {
            Some((_, end, before)) if *before == hold && *end + 1 == *at => *end = next - 1,
            _ => wanted.push((*at, next - 1, hold)),
        }
    }
    wanted
}

/// The ranges in which neither `now` nor `goal` changes, with the hold in each. Both arguments are
/// in order and without overlaps.
pub(super) fn changes(now: &[Segment], goal: &[Segment]) -> Vec<(u64, u64, Option<Hold>, Option<Hold>)> {
    let mut ends: Vec<u64> = now
        .iter()
        .chain(goal)
        .flat_map(|(first, last, _)| [*first, last + 1])
        .collect();
    ends.sort_unstable();
    ends.dedup();
    let (mut now, mut goal) = (now.iter().peekable(), goal.iter().peekable());
    let mut changes = Vec::with_capacity(ends.len());
    for range in ends.windows(2) {
        let (first, last) = (range[0], range[1] - 1);
        let hold_in = |segments: &mut std::iter::Peekable<std::slice::Iter<'_, Segment>>| {
            while segments.next_if(|(_, end, _)| *end < first).is_some() {}
            let here = segments.peek().filter(|(begin, ..)| *begin <= first);
            here.map(|(_, _, hold)| *hold)
        };
        changes.push((first, last, hold_in(&mut now), hold_in(&mut goal)));
    }
    changes
}
