//! The pauses between attempts that fail: each is twice as long as the one before it.
//!
//! Does not know what is attempted.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The maximum number of times that a pause is doubled.
const MAX_DOUBLINGS: u32 = 16;

/// The failures of one series of attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Backoff {
    first: Duration,
    failures: u32,
}

impl Backoff {
    /// A series without failures; `first` is the pause after the first failure.
    pub(crate) const fn new(first: Duration) -> Self {
        Self { first, failures: 0 }
    }

    /// The number of failed attempts since the last success.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// Counts a failure and returns the pause until the next attempt, at most `longest`.
    pub(crate) fn failed(&mut self, longest: Duration) -> Duration {
        let pause = self.first.saturating_mul(1 << self.failures.min(MAX_DOUBLINGS));
        self.failures = self.failures.saturating_add(1);
        pause.min(longest)
    }

    /// Begins a new series, after a success or when the circumstances have changed.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Makes a pause up to a quarter shorter or longer, so that programs that lost the same server do
/// not all return to it at once.
pub(crate) fn jittered(pause: Duration) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seed = now.subsec_nanos() ^ std::process::id();
    pause.mul_f32(0.75 + (seed % 512) as f32 / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_maximum_and_start_again_after_a_reset() {
        let mut backoff = Backoff::new(Duration::from_millis(200));
        let longest = Duration::from_secs(1);
        let pauses = [200, 400, 800, 1000, 1000].map(Duration::from_millis);
        assert_eq!(pauses.map(|_| backoff.failed(longest)), pauses);
        assert_eq!(backoff.failures(), 5);
        backoff.reset();
        assert_eq!((backoff.failures(), backoff.failed(longest)), (0, pauses[0]));
        for _ in 0..100 {
            assert!(backoff.failed(longest) <= longest);
        }
    }

    #[test]
    fn jitter_is_at_most_a_quarter() {
        for _ in 0..1000 {
            let pause = jittered(Duration::from_secs(4)).as_secs_f32();
            assert!((3.0..5.0).contains(&pause), "{pause}");
        }
    }
}
