//! Rows of a table: what was measured, its goal, min, median, 95th percentile and max, and the
//! ratio to another row.

use std::time::Duration;

use nix::time::ClockId;
use nix::unistd::Pid;

use crate::framework::Watcher;

/// The measurements of one figure.
#[derive(Debug, Clone, Default)]
pub struct Figure(Vec<f64>);

impl Figure {
    /// Adds one measurement.
    pub fn add(&mut self, duration: Duration) {
        self.0.push(duration.as_secs_f64() * 1e3);
    }

    /// Adds the time from `begin` to `end`, in nanoseconds of CLOCK_MONOTONIC. It may be negative:
    /// the process that measured `begin` may have been scheduled late.
    pub fn add_between(&mut self, begin: i64, end: i64) {
        #[allow(clippy::cast_precision_loss, reason = "differences of microseconds")]
        self.0.push((end - begin) as f64 / 1e6);
    }

    /// Adds one measurement that is not a duration.
    pub fn add_value(&mut self, value: f64) {
        self.0.push(value);
    }

    /// The median, in milliseconds if it is a duration.
    pub fn median(&self) -> f64 {
        self.sorted()[self.0.len() / 2]
    }

    /// The 95th percentile.
    pub fn p95(&self) -> f64 {
        self.sorted()[self.0.len() * 95 / 100]
    }

    /// The smallest and the largest measurement.
    pub fn range(&self) -> (f64, f64) {
        let sorted = self.sorted();
        (sorted[0], sorted[sorted.len() - 1])
    }

    /// The differences between measurements of the same round.
    pub fn minus(&self, other: &Self) -> Self {
        Self(
            self.0
                .iter()
                .zip(&other.0)
                .map(|(own, other)| own - other)
                .collect(),
        )
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

/// Prints the head of a table in milliseconds; `ratio` names the base of the ratio.
pub fn head(ratio: &str) {
    println!("| figure (ms) | goal | min | median | p95 | max | n | {ratio} |");
    println!("|---|---|---|---|---|---|---|---|");
}

/// Prints a row; `base` is compared with the median.
pub fn row(name: &str, goal: &str, figure: &Figure, base: Option<&Figure>) {
    let sorted = figure.sorted();
    let (Some(min), Some(max)) = (sorted.first(), sorted.last()) else {
        println!("| {name} | {goal} | no measurement | | | | 0 | |");
        return;
    };
    let ratio = base.map_or(String::new(), |base| {
        format!("{:.2}", figure.median() / base.median())
    });
    println!(
        "| {name} | {goal} | {min:.2} | {:.2} | {:.2} | {max:.2} | {} | {ratio} |",
        figure.median(),
        figure.p95(),
        sorted.len()
    );
}

/// The processor time of a process: of all its threads, also of those that have ended
/// (clock_getcpuclockid(3)).
pub fn cpu(watcher: &Watcher) -> Duration {
    let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(watcher.pid)).expect("the clock of a process");
    clock.now().expect("read the clock of a process").into()
}
