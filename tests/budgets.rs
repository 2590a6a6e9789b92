//! What the release executables and an idle watcher may take, against the checked-in
//! tests/budgets.toml.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;

#[allow(dead_code, unused_imports, reason = "tests/privileged uses what the budgets do not")]
#[path = "privileged/framework/mod.rs"]
mod framework;

#[path = "support/release.rs"]
mod release;

use framework::{Bundle, Disk, Hierarchy, Machine, RuncContainer};

/// The shipped executables.
const EXECUTABLES: [&str; 6] = [
    "oci-hotplug",
    "oci-hotplug-prestart",
    "oci-hotplug-poststop",
    "oci-hotplug-watcher",
    "oci-hotplug-usbip",
    "oci-hotplug-device-plugin",
];
const PSS_OF_ONE: &str = "PSS of one idle watcher";
const PSS_OF_TWENTY: &str = "PSS of each of 20 idle watchers";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    budget: Vec<Budget>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Budget {
    name: String,
    unit: Unit,
    /// How much more than the limit is accepted.
    tolerance_percent: u64,
    history: Vec<Limit>,
}

#[derive(Deserialize, Debug, Clone, Copy, PartialEq)]
enum Unit {
    #[serde(rename = "bytes")]
    Bytes,
    #[serde(rename = "KiB")]
    KiB,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Limit {
    /// As `2026-11-26`.
    date: String,
    limit: u64,
    reason: String,
}

fn budgets() -> Vec<Budget> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/budgets.toml");
    let text = fs::read_to_string(path).expect("read tests/budgets.toml");
    let file: File = toml::from_str(&text).expect("tests/budgets.toml has the format that it describes");
    file.budget
}

/// What is wrong with a measured value, if anything is.
fn excess(budget: &Budget, measured: u64) -> Option<String> {
    let Limit { date, limit, .. } = budget.history.last().expect("a budget has a limit");
    let (name, unit, tolerance) = (&budget.name, budget.unit, budget.tolerance_percent);
    println!("{name}: {measured} {unit:?}, the limit is {limit}");
    (measured * 100 > limit * (100 + tolerance)).then(|| {
        format!(
            "{name}: {measured} {unit:?}, the limit since {date} is {limit} (+{tolerance} %): make it smaller, or add a limit \
             and its reason to its history in tests/budgets.toml"
        )
    })
}

/// Checks one measured value, whose budget must be there.
#[track_caller]
fn check(name: &str, unit: Unit, measured: u64) {
    let all = budgets();
    let budget = all
        .iter()
        .find(|budget| budget.name == name && budget.unit == unit);
    let budget = budget.unwrap_or_else(|| panic!("tests/budgets.toml has no budget {name:?} in {unit:?}"));
    assert_eq!(excess(budget, measured), None);
}

#[test]
fn each_budget_has_its_limits_in_order_and_a_reason_for_each() {
    let all = budgets();
    let names: BTreeSet<&str> = all.iter().map(|budget| budget.name.as_str()).collect();
    let expected = EXECUTABLES.into_iter().chain([PSS_OF_ONE, PSS_OF_TWENTY]);
    assert_eq!(names, expected.collect());
    assert_eq!(names.len(), all.len(), "a budget stands in the file twice");
    let is_date = |text: &str| {
        text.len() == 10
            && text.char_indices().all(|(at, letter)| match at {
                4 | 7 => letter == '-',
                _ => letter.is_ascii_digit(),
            })
    };
    for budget in &all {
        let name = &budget.name;
        assert!(!budget.history.is_empty(), "{name} has no limit");
        assert!(
            budget.tolerance_percent <= 10,
            "{name}: a tolerance of a few per cent"
        );
        for limit in &budget.history {
            assert!(is_date(&limit.date), "{name}: {:?} is not a date", limit.date);
            let words = limit.reason.split_whitespace().count();
            assert!(words > 1, "{name}: {:?} is not a reason", limit.reason);
        }
        assert!(
            budget.history.is_sorted_by(|earlier, later| {
                earlier.date <= later.date && earlier.limit != later.limit
            }),
            "{name}: a later limit stands below an earlier one, and differs from it"
        );
    }
}

#[test]
fn a_value_that_exceeds_a_limit_by_more_than_the_tolerance_is_an_error() {
    let budget: Budget = toml::from_str(
        "name = 'x'\nunit = 'KiB'\ntolerance-percent = 5\nhistory = [\
         { date = '2026-01-01', limit = 500, reason = '' }, { date = '2026-02-01', limit = 1000, reason = '' }]",
    )
    .expect("a budget");
    assert_eq!(excess(&budget, 1050), None);
    let told = excess(&budget, 1051).expect("it is refused");
    assert!(
        told.starts_with("x: 1051 KiB, the limit since 2026-02-01 is 1000 (+5 %)"),
        "{told}"
    );
}

#[test]
#[ignore = "needs a release build: tests/run.sh --privileged"]
fn each_executable_keeps_to_its_size() {
    let all = budgets();
    let faults: Vec<String> = EXECUTABLES
        .iter()
        .filter_map(|name| {
            let budget = all
                .iter()
                .find(|budget| budget.name == *name && budget.unit == Unit::Bytes)?;
            let bytes = fs::metadata(release::executable(name))
                .expect("look at an executable")
                .len();
            excess(budget, bytes)
        })
        .collect();
    assert_eq!(faults, Vec::<String>::new());
}

/// A container with the release executables as its hooks, and with five partitions of the disk.
fn start<'m>(machine: &'m Machine, disk: &Disk) -> RuncContainer<'m> {
    let hook = |name: &str| {
        format!(
            "exec '{}' --state-dir '{}' --config '{}'",
            release::executable(name).display(),
            machine.state_dir().display(),
            machine.config().display()
        )
    };
    let after = framework::Place::After;
    let container = Bundle::requesting(machine, &format!("glob:{}p*", disk.node))
        .without_hooks()
        .foreign_hook("createRuntime", after, &hook("oci-hotplug-prestart"))
        .foreign_hook("poststop", after, &hook("oci-hotplug-poststop"))
        .start();
    (1..=5).for_each(|partition| {
        container.eventually_reads(&disk.partition(partition), &disk.content(partition));
    });
    container
}

/// The mean PSS of the watchers of `count` containers in KiB (proc_pid_smaps(5)). No other test's
/// watchers share their pages.
fn pss(machine: &Machine, count: usize) -> u64 {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let disk = Disk::new(machine);
    (1..=5).for_each(|partition| drop(disk.plug(partition)));
    let containers: Vec<_> = (0..count).map(|_| start(machine, &disk)).collect();
    let watchers: Vec<_> = containers.iter().map(RuncContainer::expect_watcher).collect();
    for watcher in &watchers {
        let runs = fs::read_link(format!("/proc/{}/exe", watcher.pid)).expect("its executable");
        assert_eq!(runs, release::executable("oci-hotplug-watcher"));
        watcher.eventually_waits_for_events();
    }
    let sum: u64 = watchers.iter().map(|watcher| watcher.memory("Pss")).sum();
    sum / watchers.len() as u64
}

#[test]
#[ignore = "needs root, runc and the real kernel: tests/run.sh --privileged"]
fn an_idle_watcher_keeps_to_its_memory() {
    Hierarchy::V2.run_test(|machine| check(PSS_OF_ONE, Unit::KiB, pss(machine, 1)));
}

#[test]
#[ignore = "needs root, runc and the real kernel: tests/run.sh --privileged"]
fn each_of_twenty_idle_watchers_keeps_to_its_memory() {
    Hierarchy::V2.run_test(|machine| check(PSS_OF_TWENTY, Unit::KiB, pss(machine, 20)));
}
