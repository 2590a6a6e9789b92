//! The rows that compare the two programs: printed with their ranges at once, and with medians only
//! in the table for docs/comparison.md.

use std::fs;
use std::path::Path;

use crate::figures::Figure;

const HEAD: &str = "| figure | oci-hotplug | container-hotplug | ratio |\n|---|---|---|---|";

/// The rows of the last table.
#[derive(Default)]
pub struct Table {
    rows: Vec<String>,
}

impl Table {
    /// Prints the head of a table with both programs.
    pub fn head(&self) {
        println!("{HEAD}");
    }

    /// Durations of many rounds: median, 95th percentile and maximum. Only for the last table,
    /// because the variants have rows of their sections.
    pub fn durations(&mut self, name: &str, ours: &Figure, peer: &Figure) {
        let of = |figure: &Figure| [figure.median(), figure.p95(), figure.range().1];
        let cell = |values: [f64; 3]| values.map(|value| format!("{value:.2}")).join(" / ") + " ms";
        let (ours, peer) = (of(ours), of(peer));
        let ratios = [0, 1, 2].map(|index: usize| ratio(ours[index], peer[index]));
        let name = format!("{name}: median / 95 % / maximum");
        self.add(&name, &cell(ours), &cell(peer), &ratios.join(" / "));
    }

    /// One value of each run: prints the median and the range, and keeps the median.
    pub fn values(&mut self, name: &str, unit: &str, ours: &Figure, peer: &Figure) {
        let median = |figure: &Figure| {
            format!("{} {unit}", number(figure.median()))
                .trim_end()
                .to_owned()
        };
        let all = |figure: &Figure| {
            let (min, max) = figure.range();
            format!("{} ({}–{})", median(figure), number(min), number(max))
        };
        let ratio = ratio(ours.median(), peer.median());
        println!("| {name} | {} | {} | {ratio} |", all(ours), all(peer));
        self.add(name, &median(ours), &median(peer), &ratio);
    }

    fn add(&mut self, name: &str, ours: &str, peer: &str, ratio: &str) {
        self.rows.push(format!("| {name} | {ours} | {peer} | {ratio} |"));
    }

    /// Writes the last table.
    pub fn write(&self, file: &Path) {
        let text = format!("{HEAD}\n{}\n", self.rows.join("\n"));
        fs::write(file, text).unwrap_or_else(|error| panic!("write {}: {error}", file.display()));
    }
}

/// Ours to the peer's; bold where the peer is ahead.
fn ratio(ours: f64, peer: f64) -> String {
    if peer <= 0.0 {
        return "–".to_owned();
    }
    let text = format!("{:.2}", ours / peer);
    if ours > peer && text != "1.00" {
        format!("**{text}**")
    } else {
        text
    }
}

/// Three digits, at least, except for a whole number.
fn number(value: f64) -> String {
    if value.fract() == 0.0 || value.abs() >= 100.0 {
        format!("{value:.0}")
    } else if value.abs() >= 10.0 {
        format!("{value:.1}")
    } else if value.abs() >= 1.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.3}")
    }
}
