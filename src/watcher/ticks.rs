//! When ticks are due.
//!
//! Each is due at a whole second of the kernel's clock, so that the watchers of a host wake
//! together: they run the same code, and the processor has it in its caches for all but the first.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// Ticks are due at multiples of this.
const GRID: Duration = Duration::from_secs(1);

/// The ticks of one event loop.
#[derive(Debug)]
pub(super) struct Ticks {
    /// A moment at which the clock was at a multiple of [`GRID`].
    zero: Instant,
    /// When the last tick was due, or the moment from which the first interval counts.
    last: Instant,
    /// The last interval.
    interval: Duration,
}

impl Ticks {
    /// Begins the first interval now.
    pub(super) fn begin() -> Self {
        let clock = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from);
        let now = Instant::now();
        let past = Duration::from_nanos(clock.unwrap_or_default().subsec_nanos().into());
        Self {
            zero: now.checked_sub(past).unwrap_or(now),
            last: now,
            interval: Duration::ZERO,
        }
    }

    /// When the next tick is due: this long after the last one, at the next whole second. If the
    /// interval has become shorter, the tick is due at the next whole second from now, and not at
    /// once: what made it shorter has just been dealt with.
    pub(super) fn next(&mut self, interval: Duration) -> Instant {
        if interval < self.interval {
            let from = Instant::now().checked_sub(interval);
            self.last = from.map_or(self.last, |from| from.max(self.last));
        }
        self.interval = interval;
        self.on_grid(self.last + interval)
    }

    /// Takes the tick that is due at this time, if it is due now; returns whether it is.
    pub(super) fn take(&mut self, due: Instant) -> bool {
        let now = Instant::now();
        let is_due = due <= now;
        if is_due {
            // After a pause, as when the process was stopped, none is made up for.
            self.last = if due + GRID > now { due } else { now };
        }
        is_due
    }

    /// Begins an interval now.
    pub(super) fn restart(&mut self) {
        self.last = Instant::now();
    }

    /// The first multiple of [`GRID`] that is not before a time.
    fn on_grid(&self, time: Instant) -> Instant {
        let since = time.saturating_duration_since(self.zero);
        let past = Duration::from_nanos(since.subsec_nanos().into());
        match past.is_zero() {
            true => time,
            false => time + (GRID - past),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    /// The time since the last whole second of the kernel's clock.
    fn past(time: Instant) -> Duration {
        let clock = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap());
        let now = Instant::now();
        let at = clock + time.saturating_duration_since(now);
        Duration::from_nanos(at.subsec_nanos().into())
    }

    #[test]
    fn all_watchers_tick_at_the_same_times() {
        for _ in 0..3 {
            let mut ticks = Ticks::begin();
            let next = ticks.next(GRID);
            let past = past(next);
            assert!(
                past < 5 * MILLISECOND || past > GRID - 5 * MILLISECOND,
                "{past:?}"
            );
            let after = next.saturating_duration_since(Instant::now());
            assert!(after > GRID - 5 * MILLISECOND && after < 2 * GRID, "{after:?}");
            std::thread::sleep(7 * MILLISECOND);
        }
    }

    #[test]
    fn a_tick_is_taken_once_and_the_next_one_is_due_an_interval_after_it() {
        let mut ticks = Ticks::begin();
        let begin = ticks.zero;
        assert!(!ticks.take(begin + 10 * GRID), "it is not due yet");
        ticks.last = begin - 3 * GRID;
        let due = ticks.next(2 * GRID);
        assert_eq!(due, ticks.last + 2 * GRID);
        assert!(due < Instant::now() && ticks.take(due));
        // It was more than a second late, so the interval begins now.
        let next = ticks.next(2 * GRID);
        assert!(
            next >= Instant::now() + 2 * GRID - 5 * MILLISECOND,
            "{:?}",
            next - begin
        );
        assert_eq!(next, ticks.on_grid(next));
        // It was not late: the interval begins when it was due.
        ticks.last = begin - 2 * GRID;
        let due = ticks.next(2 * GRID);
        assert_eq!(due, begin);
        if ticks.take(due) && begin.elapsed() < GRID {
            assert_eq!(ticks.next(2 * GRID), begin + 2 * GRID);
        }
    }

    #[test]
    fn when_the_interval_becomes_shorter_the_tick_is_due_at_the_next_whole_second() {
        let mut ticks = Ticks::begin();
        let now = Instant::now();
        ticks.last = ticks.zero - 5 * GRID;
        let far = ticks.next(10 * GRID);
        assert_eq!(far, ticks.zero + 5 * GRID);
        let soon = ticks.next(GRID);
        assert!(soon >= now && soon <= Instant::now() + GRID, "{:?}", soon - now);
        assert_eq!(ticks.next(GRID), soon, "it is not put off again");
        assert_eq!(ticks.next(10 * GRID), ticks.on_grid(ticks.last + 10 * GRID));
    }
}
