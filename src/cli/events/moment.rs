//! Moments in UTC: what `--since` takes, what the log has, and how they are shown. Civil dates of the Gregorian
//! calendar, without leap seconds, as Unix time has it.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};

const DAY: u64 = 24 * 60 * 60;

/// Microseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(u64);

impl Moment {
    /// So many microseconds since 1970.
    pub fn of_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Whole seconds since 1970.
    pub fn seconds(self) -> u64 {
        self.0 / 1_000_000
    }

    /// What `--since` means at `now`: an age such as `15m`, or a date.
    ///
    /// # Errors
    /// When it is neither; what would be right.
    pub fn since(text: &str, now: SystemTime) -> Result<Self, String> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        age(text)
            .map(|age| Self(now.saturating_sub(age).as_micros() as u64))
            .or_else(|| Self::parse(text))
            .ok_or_else(|| {
                "write how long ago (90s, 15m, 2h, 7d), or a date in UTC (2026-11-21, \"2026-11-21 14:30\")"
                    .to_owned()
            })
    }

    /// `YYYY-MM-DD[(T| )HH:MM[:SS[.fraction]]][Z]`.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_suffix('Z').unwrap_or(text);
        let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, "00:00"));
        let date: Vec<u64> = numbers(date, '-')?;
        let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
        let time: Vec<u64> = numbers(time, ':')?;
        let [year, month, day] = date[..] else { return None };
        let (hour, minute, second) = match time[..] {
            [hour, minute] => (hour, minute, 0),
            [hour, minute, second] => (hour, minute, second),
            _ => return None,
        };
        let is_date = (1970..=9999).contains(&year)
            && (1..=12).contains(&month)
            && (1..=days_of_month(year, month)).contains(&day);
        if !is_date || hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let is_fraction = !fraction.is_empty() && fraction.bytes().all(|digit| digit.is_ascii_digit());
        let micros: u64 = format!("{fraction:0<6}")
            .get(..6)?
            .parse()
            .ok()
            .filter(|_| is_fraction)?;
        let days = (1970..year).map(days_of_year).sum::<u64>()
            + (1..month).map(|month| days_of_month(year, month)).sum::<u64>()
            + (day - 1);
        let seconds = days * DAY + hour * 3600 + minute * 60 + second;
        Some(Self(seconds * 1_000_000 + micros))
    }
}

/// Numbers of digits alone.
fn numbers(text: &str, separator: char) -> Option<Vec<u64>> {
    text.split(separator)
        .map(|number| {
            let is_number =
                (1..=4).contains(&number.len()) && number.bytes().all(|digit| digit.is_ascii_digit());
            is_number.then(|| number.parse().ok()).flatten()
        })
        .collect()
}

/// `90s`, `15m`, `2h`, `7d`.
fn age(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let number = text.strip_suffix(unit)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => DAY,
        _ => return None,
    };
    let is_number = number.bytes().all(|digit| digit.is_ascii_digit());
    let number: u64 = number.parse().ok().filter(|_| is_number)?;
    Some(Duration::from_secs(number.checked_mul(seconds)?))
}

fn is_leap(year: u64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_of_year(year: u64) -> u64 {
    if is_leap(year) { 366 } else { 365 }
}

fn days_of_month(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

impl fmt::Display for Moment {
    /// `2026-11-21T14:13:38Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.seconds();
        let (mut days, second) = (seconds / DAY, seconds % DAY);
        let (mut year, mut month) = (1970, 1);
        while days >= days_of_year(year) {
            days -= days_of_year(year);
            year += 1;
        }
        while days >= days_of_month(year, month) {
            days -= days_of_month(year, month);
            month += 1;
        }
        write!(
            f,
            "{year:04}-{month:02}-{:02}T{:02}:{:02}:{:02}Z",
            days + 1,
            second / 3600,
            second / 60 % 60,
            second % 60
        )
    }
}

impl Serialize for Moment {
    /// With the microseconds.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let whole = self.to_string();
        serializer.collect_str(&format_args!(
            "{}.{:06}Z",
            whole.trim_end_matches('Z'),
            self.0 % 1_000_000
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn since(text: &str) -> Result<String, String> {
        let now = UNIX_EPOCH + Duration::from_secs(1_795_270_418);
        Moment::since(text, now).map(|moment| moment.to_string())
    }

    #[test]
    fn an_age_and_a_date_are_moments() {
        for (text, moment) in [
            ("18s", "2026-11-21T14:13:20Z"),
            ("15m", "2026-11-21T13:58:38Z"),
            ("2h", "2026-11-21T12:13:38Z"),
            ("7d", "2026-11-14T14:13:38Z"),
            ("2026-11-21", "2026-11-21T00:00:00Z"),
            ("2026-11-21 14:30", "2026-11-21T14:30:00Z"),
            ("2024-02-29T23:59:59.5Z", "2024-02-29T23:59:59Z"),
        ] {
            assert_eq!(since(text).as_deref(), Ok(moment), "{text}");
        }
    }

    #[test]
    fn what_is_neither_is_refused_with_what_would_be_right() {
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
        fn a_moment_is_read_as_it_is_written(micros in 0..253_402_300_799_000_000u64) {
            let text = serde_json::to_value(Moment(micros)).unwrap();
            prop_assert_eq!(Moment::parse(text.as_str().unwrap()), Some(Moment(micros)));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,30}") {
            let _ = Moment::since(&text, SystemTime::now());
        }
    }
}
