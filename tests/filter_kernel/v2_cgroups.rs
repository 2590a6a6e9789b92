//! Which cgroups of v2 can be managed, and for which container.

use std::fs;

use oci_hotplug::host::filter::{self, DeviceFilter, FilterError, FilterMemory};
use oci_hotplug::model::cgroup::grants::{Change, GrantSet};

use super::engine::{Engine, own, v2_lab};
use super::owners::Owners;
use super::{FULL, Lab, ZERO, grants, is_owned, open, within_a_moment};

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn a_removed_cgroup_is_reported_as_gone() {
    let (_lab, cgroup, _engine, prober) = v2_lab();
    let mut filter = open(&own(&[&cgroup]));
    drop(prober);
    assert!(within_a_moment(|| fs::remove_dir(&cgroup).is_ok()));
    for wanted in [grants(&[(ZERO, "r")]), GrantSet::new()] {
        let error = filter.ensure(&wanted).unwrap_err();
        assert!(
            matches!(&error, FilterError::Gone { cgroup: gone } if *gone == cgroup),
            "{error}"
        );
    }
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn a_directory_outside_a_cgroup_hierarchy_is_refused() {
    let lab = Lab::new("cgroup2");
    let error = filter::open(&own(&[lab.dir.path()]), FilterMemory::default()).unwrap_err();
    assert!(matches!(error, FilterError::Query { .. }), "{error}");
}

/// Case security 7. As with `podman run --cgroups=disabled`: nothing is restricted there, until an
/// engine does.
#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn a_cgroup_has_an_owner_once_it_restricts_something() {
    let mut lab = Lab::new("cgroup2");
    let (cgroup, mut owners) = (lab.cgroup(""), Owners::new());
    let [mut first, mut second] = ["first", "second"].map(|id| {
        let owner = owners.container(id);
        open(&own(&[&cgroup])).owned_by(owner).unwrap()
    });
    let (zero, full) = (grants(&[(ZERO, "r")]), grants(&[(FULL, "r")]));
    assert_eq!(first.ensure(&zero).unwrap(), Change::None);
    assert_eq!(second.ensure(&full).unwrap(), Change::None);

    Engine::of(&cgroup).attach(&Engine::defaults());
    let mut prober = lab.prober(&cgroup);
    assert_eq!(first.ensure(&zero).unwrap(), Change::Made);
    for _ in 0..3 {
        is_owned(second.ensure(&full), "first");
        assert_eq!(first.ensure(&zero).unwrap(), Change::None);
        assert!(prober.opens("r", "zero") && !prober.opens("r", "full"));
    }
    is_owned(
        open(&own(&[&cgroup])).owned_by(owners.container("third")),
        "first",
    );

    // The first ends without having taken its grants back.
    owners.end(0);
    assert_eq!(second.ensure(&full).unwrap(), Change::Made);
    assert!(prober.opens("r", "full") && !prober.opens("r", "zero"));
    filter::revoke(&first.memory(), &owners.container("first")).unwrap();
    assert!(prober.opens("r", "full"), "what the next owner has is left alone");
}

/// Case security 7. A container inside a container, and two containers of one pod.
#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn only_the_same_cgroup_conflicts_and_not_one_above_or_beside_it() {
    let mut lab = Lab::new("cgroup2");
    let pod = lab.cgroup("");
    let [outer, sibling] = ["/outer", "/sibling"].map(|name| lab.cgroup(name));
    let inner = lab.cgroup("/outer/inner");
    let mut owners = Owners::new();
    let mut filters = Vec::new();
    for (index, cgroup) in [&pod, &outer, &sibling, &inner].into_iter().enumerate() {
        Engine::of(cgroup).attach(&Engine::defaults());
        if index > 0 {
            let owner = owners.container(&format!("c{index}"));
            filters.push(open(&own(&[cgroup])).owned_by(owner).unwrap());
        }
    }
    // crun's leaf and scope: one of them is enough for a conflict, and then neither is taken.
    is_owned(open(&own(&[&inner, &pod])).owned_by(owners.container("d")), "c3");
    let whole = open(&own(&[&pod])).owned_by(owners.container("e"));
    assert!(whole.is_ok(), "{whole:?}");
    is_owned(open(&own(&[&outer])).owned_by(owners.container("f")), "c1");
}
