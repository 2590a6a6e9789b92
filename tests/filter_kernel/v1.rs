//! Access on cgroup v1: rules of our own beside those of the engine.

use std::fs;
use std::path::{Path, PathBuf};

use oci_hotplug::host::container::CgroupPaths;
use oci_hotplug::host::filter::{self, DeviceFilter, FilterError};
use oci_hotplug::model::cgroup::grants::{Change, GrantSet};

use super::owners::Owners;
use super::{FULL, Lab, NULL, Prober, ZERO, grants, is_owned, open, within_a_moment};

fn write(cgroup: &Path, file: &str, rule: &str) {
    fs::write(cgroup.join(file), rule)
        .unwrap_or_else(|error| panic!("writing {rule:?} to {file} of {}: {error}", cgroup.display()));
}

fn rules(cgroup: &Path) -> String {
    fs::read_to_string(cgroup.join("devices.list")).unwrap()
}

fn own_v1(cgroup: &Path) -> CgroupPaths {
    CgroupPaths {
        v1_devices: Some(cgroup.to_owned()),
        v2: Vec::new(),
    }
}

/// A lab with one cgroup that allows what an engine allows, and a process in it.
fn lab(engine: &[&str]) -> (Lab, PathBuf, Prober) {
    let mut lab = Lab::new("cgroup");
    let cgroup = lab.cgroup("");
    write(&cgroup, "devices.deny", "a");
    for rule in engine {
        write(&cgroup, "devices.allow", rule);
    }
    let prober = lab.prober(&cgroup);
    (lab, cgroup, prober)
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn a_device_opens_as_granted_and_no_longer_after_the_revoke() {
    let (lab, cgroup, mut prober) = lab(&["c 1:3 rwm", "c *:* m"]);
    let mut other = lab.prober(&cgroup);
    other.keep_opening("null");
    assert!(
        !prober.opens("r", "zero"),
        "refused before: the test would prove nothing"
    );
    let before = rules(&cgroup);
    let mut filter = open(&own_v1(&cgroup));
    assert_eq!(
        filter.ensure(&grants(&[(ZERO, "r"), (FULL, "rw")])).unwrap(),
        Change::Made
    );
    assert!(prober.opens("r", "zero"));
    assert!(!prober.opens("rw", "zero"));
    assert!(prober.opens("rw", "full"));
    assert_eq!(
        filter.ensure(&grants(&[(FULL, "rw"), (ZERO, "r")])).unwrap(),
        Change::None
    );
    assert_eq!(filter.ensure(&grants(&[(ZERO, "w")])).unwrap(), Change::Made);
    assert!(prober.opens("w", "zero"));
    assert!(!prober.opens("r", "zero"));
    assert!(!prober.opens("r", "full"), "revoked");
    assert_eq!(filter.ensure(&GrantSet::new()).unwrap(), Change::Made);
    assert!(!prober.opens("w", "zero"), "revoked");
    assert_eq!(rules(&cgroup), before, "the engine's rules are as they were");
    assert!(other.stop_opening("null") > 0);
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn access_that_the_engine_allows_stays_after_the_revoke() {
    let (_lab, cgroup, mut prober) = lab(&["c 1:3 rwm", "c 1:7 r", "c 1:* m"]);
    let mut filter = open(&own_v1(&cgroup));
    assert_eq!(
        filter.ensure(&grants(&[(FULL, "rwm"), (NULL, "rw")])).unwrap(),
        Change::Made
    );
    assert!(prober.opens("rw", "full"));
    assert_eq!(filter.ensure(&GrantSet::new()).unwrap(), Change::Made);
    assert!(prober.opens("r", "full"), "the engine's");
    assert!(!prober.opens("w", "full"), "ours");
    assert!(prober.opens("rw", "null"), "the engine's");
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn a_watcher_that_starts_again_distinguishes_our_rules_from_the_engines() {
    let (_lab, cgroup, mut prober) = lab(&["c 1:3 rwm"]);
    let before = rules(&cgroup);
    let wanted = grants(&[(ZERO, "rw")]);
    let mut filter = open(&own_v1(&cgroup));
    // What a watcher stores before it acts, so that even one that dies meanwhile is cleaned up
    // after.
    let memory = filter.memory().ahead_of(&wanted);
    assert_eq!(filter.ensure(&wanted).unwrap(), Change::Made);
    assert_eq!(filter.memory(), memory);
    drop(filter);
    assert!(prober.opens("rw", "zero"));
    let mut filter = filter::open(&own_v1(&cgroup), memory).unwrap();
    assert_eq!(filter.ensure(&wanted).unwrap(), Change::None);
    assert_eq!(filter.ensure(&GrantSet::new()).unwrap(), Change::Made);
    assert!(!prober.opens("r", "zero"));
    assert_eq!(rules(&cgroup), before);
    assert_eq!(filter.memory().held, GrantSet::new());
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn rules_are_restored_after_an_engine_rewrote_them() {
    let (_lab, cgroup, mut prober) = lab(&["c 1:3 rwm"]);
    let wanted = grants(&[(ZERO, "rw")]);
    let mut filter = open(&own_v1(&cgroup));
    assert_eq!(filter.ensure(&wanted).unwrap(), Change::Made);
    for _ in 0..100 {
        write(&cgroup, "devices.deny", "a");
        write(&cgroup, "devices.allow", "c 1:3 rwm");
        assert!(!prober.opens("r", "zero"));
        assert_eq!(filter.ensure(&wanted).unwrap(), Change::Made);
        assert!(prober.opens("rw", "zero"));
        assert_eq!(filter.ensure(&wanted).unwrap(), Change::None);
    }
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn a_parent_that_denies_is_reported_as_the_cause_and_other_grants_are_made() {
    let mut lab = Lab::new("cgroup");
    let parent = lab.cgroup("");
    write(&parent, "devices.deny", "a");
    write(&parent, "devices.allow", "c 1:3 rwm");
    write(&parent, "devices.allow", "c 1:7 rwm");
    let child = lab.cgroup("/container");
    write(&child, "devices.deny", "c 1:7 rwm");
    let mut prober = lab.prober(&child);
    let mut filter = open(&own_v1(&child));
    let error = filter.ensure(&grants(&[(ZERO, "r"), (FULL, "rw")])).unwrap_err();
    let expected = format!(
        "cannot write \"c 1:5 r\" to devices.allow of cgroup {}: Operation not permitted (os error 1); \
         a parent cgroup denies this device: allow it there (or in the slice or pod that the container is in)",
        child.display()
    );
    assert_eq!(error.to_string(), expected);
    assert!(
        prober.opens("rw", "full"),
        "one refused grant keeps no other from being made"
    );
    assert_eq!(filter.ensure(&GrantSet::new()).unwrap(), Change::Made);
    assert!(!prober.opens("r", "full"));
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn denied_devices_are_not_listed_if_all_others_are_allowed() {
    let mut lab = Lab::new("cgroup");
    let cgroup = lab.cgroup("");
    write(&cgroup, "devices.deny", "c 1:5 rwm");
    assert_eq!(
        rules(&cgroup),
        "a *:* rwm\n",
        "which is why no transition is computed from such a list"
    );
    assert!(!lab.prober(&cgroup).opens("r", "zero"));
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn nothing_is_written_if_everything_is_allowed() {
    let mut lab = Lab::new("cgroup");
    let cgroup = lab.cgroup("");
    let mut filter = open(&own_v1(&cgroup));
    assert_eq!(filter.ensure(&grants(&[(ZERO, "rw")])).unwrap(), Change::None);
    assert_eq!(filter.ensure(&GrantSet::new()).unwrap(), Change::None);
    assert!(
        lab.prober(&cgroup).opens("rw", "zero"),
        "and nothing is denied at the end"
    );
}

/// Case security 7.
#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn a_cgroup_has_an_owner_once_it_restricts_something() {
    let mut lab = Lab::new("cgroup");
    let (cgroup, mut owners) = (lab.cgroup(""), Owners::new());
    let [mut first, mut second] = ["first", "second"].map(|id| {
        let owner = owners.container(id);
        open(&own_v1(&cgroup)).owned_by(owner).unwrap()
    });
    let (zero, full) = (grants(&[(ZERO, "r")]), grants(&[(FULL, "r")]));
    assert_eq!(first.ensure(&zero).unwrap(), Change::None);
    assert_eq!(second.ensure(&full).unwrap(), Change::None);
    write(&cgroup, "devices.deny", "a");
    assert_eq!(first.ensure(&zero).unwrap(), Change::Made);
    is_owned(second.ensure(&full), "first");
    let mut prober = lab.prober(&cgroup);
    assert!(prober.opens("r", "zero") && !prober.opens("r", "full"));
    owners.end(0);
    // Its memory is that of a container that has ended: what it had is taken back before the next
    // one begins.
    filter::revoke(&first.memory(), &owners.container("first")).unwrap();
    assert_eq!(second.ensure(&full).unwrap(), Change::Made);
    assert!(prober.opens("r", "full") && !prober.opens("r", "zero"));
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn a_removed_cgroup_is_reported_as_gone() {
    let (_lab, cgroup, prober) = lab(&[]);
    let mut filter = open(&own_v1(&cgroup));
    drop(prober);
    assert!(within_a_moment(|| fs::remove_dir(&cgroup).is_ok()));
    let error = filter.ensure(&grants(&[(ZERO, "r")])).unwrap_err();
    assert!(
        matches!(&error, FilterError::Gone { cgroup: gone } if *gone == cgroup),
        "{error}"
    );
}
