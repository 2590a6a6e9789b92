//! Times and ages as the verbs print them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The age of a time in seconds since 1970; zero when the time is in the future, because the clock
/// was set back.
pub(in crate::cli) fn since(time: u64) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_secs(time))
}

/// An age in its largest unit.
pub(in crate::cli) fn ago(age: Duration) -> String {
    match age.as_secs() {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3600 => format!("{}m", seconds / 60),
        seconds @ 3600..86400 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_shown_in_its_largest_whole_unit() {
        let told =
            [0, 59, 60, 3599, 3600, 86399, 86400, 864000].map(|seconds| ago(Duration::from_secs(seconds)));
        assert_eq!(told, ["0s", "59s", "1m", "59m", "1h", "23h", "1d", "10d"]);
    }
}
