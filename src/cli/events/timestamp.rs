//! Timestamps in UTC: what `--since` accepts, what the log has, and how they are printed.

use std::fmt;
use std::time::{Duration, SystemTime};

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::{Serialize, Serializer};

/// How a date may be written, without the `Z` at its end.
const FORMATS: [&str; 3] = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S%.f"];

/// A time not before 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Timestamp(jiff::Timestamp);

impl Timestamp {
    /// Microseconds since 1970.
    pub(super) fn from_micros(micros: u64) -> Option<Self> {
        let micros = i64::try_from(micros).ok()?;
        jiff::Timestamp::from_microsecond(micros).ok().map(Self)
    }

    /// Whole seconds since 1970.
    pub(super) fn seconds(self) -> i64 {
        self.0.as_second()
    }

    /// What `--since` means at `now`: an age such as `15m`, or a date.
    ///
    /// # Errors
    /// When it is neither; the message names the accepted forms.
    pub(super) fn since(text: &str, now: SystemTime) -> Result<Self, String> {
        Self::ago(text, now).or_else(|| Self::parse(text)).ok_or_else(|| {
            "write how long ago (90s, 15m, 2h, 7d), or a date in UTC (2026-11-21, \"2026-11-21 14:30\")"
                .to_owned()
        })
    }

    fn ago(text: &str, now: SystemTime) -> Option<Self> {
        let now = jiff::Timestamp::try_from(now).ok()?;
        let then = now.checked_sub(age(text)?);
        Some(Self(then.unwrap_or_default().max(jiff::Timestamp::UNIX_EPOCH)))
    }

    /// `YYYY-MM-DD[(T| )HH:MM[:SS[.fraction]]][Z]`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.strip_suffix('Z').unwrap_or(text).replacen(' ', "T", 1);
        let date = FORMATS
            .iter()
            .find_map(|format| DateTime::strptime(format, &text).ok())?;
        let timestamp = TimeZone::UTC.to_timestamp(date).ok()?;
        (timestamp >= jiff::Timestamp::UNIX_EPOCH).then_some(Self(timestamp))
    }
}

/// `90s`, `15m`, `2h`, `7d`.
fn age(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let number = text.strip_suffix(unit)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 60 * 60,
        'd' => 24 * 60 * 60,
        _ => return None,
    };
    let is_number = number.bytes().all(|digit| digit.is_ascii_digit());
    let number: u64 = number.parse().ok().filter(|_| is_number)?;
    Some(Duration::from_secs(number.checked_mul(seconds)?))
}

impl fmt::Display for Timestamp {
    /// `2026-11-21T14:13:38Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0}", self.0)
    }
}

impl Serialize for Timestamp {
    /// With the microseconds.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:.6}", self.0))
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use proptest::prelude::*;

    fn since(text: &str) -> Result<String, String> {
        let now = UNIX_EPOCH + Duration::from_secs(1_795_270_418);
        Timestamp::since(text, now).map(|timestamp| timestamp.to_string())
    }

    #[test]
    fn an_age_and_a_date_are_timestamps() {
        for (text, timestamp) in [
            ("18s", "2026-11-21T14:13:20Z"),
            ("15m", "2026-11-21T13:58:38Z"),
            ("2h", "2026-11-21T12:13:38Z"),
            ("7d", "2026-11-14T14:13:38Z"),
            ("2026-11-21", "2026-11-21T00:00:00Z"),
            ("2026-11-21 14:30", "2026-11-21T14:30:00Z"),
            ("2024-02-29T23:59:59.5Z", "2024-02-29T23:59:59Z"),
        ] {
            assert_eq!(since(text).as_deref(), Ok(timestamp), "{text}");
        }
    }

    #[test]
    fn a_text_that_is_neither_is_refused_with_valid_examples() {
        for text in [
            "",
            "m",
            "5",
            "yesterday",
            "-5m",
            "2026-02-29",
            "2026-13-01",
            "2026-11-21 24:00",
            "1969-12-31",
            "2026-11-21T14:13:38.Z",
            "1é",
        ] {
            assert!(since(text).is_err_and(|error| error.contains("15m")), "{text}");
        }
        assert_eq!(
            since("99999999999d"),
            since("99999999998d"),
            "longer ago than 1970"
        );
    }

    proptest! {
        #[test]
        fn a_timestamp_is_read_as_it_is_written(micros in 0..253_402_207_200_000_000u64) {
            let timestamp = Timestamp::from_micros(micros).unwrap();
            let text = serde_json::to_value(timestamp).unwrap();
            prop_assert_eq!(Timestamp::parse(text.as_str().unwrap()), Some(timestamp));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,30}") {
            let _ = Timestamp::since(&text, SystemTime::now());
        }
    }
}
