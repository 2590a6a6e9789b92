//! Access on cgroup v2: our prologue in the engine's device program.

use std::fs;
use std::os::fd::AsFd;
use std::process::Command;
use std::time::{Duration, Instant};

use oci_hotplug::host::filter::{self, DeviceFilter, FilterError};
use oci_hotplug::model::cgroup::grants::{Change, GrantSet};
use oci_hotplug::model::device::{DevKind, DevNum};
use oci_hotplug::sys::bpf;

use super::engine::{Engine, own, v2_lab};
use super::engine_program::program_that_calls_a_helper;
use super::{FULL, Lab, ZERO, grants, open, within_a_moment};

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn a_device_opens_as_granted_and_no_longer_after_the_revoke() {
    let (_lab, cgroup, _engine, mut prober) = v2_lab();
    assert!(
        !prober.opens("r", "zero"),
        "refused before: the test would prove nothing"
    );
    let mut filter = open(&own(&[&cgroup]));
    assert_eq!(
        filter.ensure(&grants(&[(ZERO, "r"), (FULL, "rw")])).unwrap(),
        Change::Made
    );
    assert!(prober.opens("r", "zero"));
    assert!(!prober.opens("w", "zero"));
    assert!(!prober.opens("rw", "zero"));
    assert!(prober.opens("rw", "full"));
    assert_eq!(
        filter.ensure(&grants(&[(FULL, "rw"), (ZERO, "r")])).unwrap(),
        Change::None
    );
    assert_eq!(filter.ensure(&grants(&[(ZERO, "w")])).unwrap(), Change::Made);
    assert!(prober.opens("w", "zero"), "the grant was changed");
    assert!(!prober.opens("r", "zero"));
    assert!(!prober.opens("r", "full"), "revoked");
    assert_eq!(filter.ensure(&GrantSet::new()).unwrap(), Change::Made);
    assert!(!prober.opens("w", "zero"), "revoked");
    assert!(prober.opens("rw", "null"), "the engine's own");
    assert_eq!(filter.ensure(&GrantSet::new()).unwrap(), Change::None);
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn a_block_device_opens_as_granted() {
    let (lab, cgroup, _engine, mut prober) = v2_lab();
    let name = Command::new("losetup")
        .arg("--find")
        .output()
        .expect("losetup (package mount)")
        .stdout;
    let name = String::from_utf8(name).unwrap();
    let minor = name
        .trim()
        .strip_prefix("/dev/loop")
        .expect("a free loop device")
        .parse()
        .unwrap();
    let disk = DevNum {
        kind: DevKind::Block,
        major: 7,
        minor,
    };
    lab.node("disk", disk);
    lab.node(
        "twin",
        DevNum {
            kind: DevKind::Char,
            ..disk
        },
    );
    let mut filter = open(&own(&[&cgroup]));
    assert!(!prober.opens("r", "disk"));
    assert_eq!(filter.ensure(&grants(&[(disk, "r")])).unwrap(), Change::Made);
    assert!(prober.opens("r", "disk"));
    assert!(!prober.opens("w", "disk"));
    assert!(
        !prober.opens("r", "twin"),
        "the character device of the same number"
    );
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn the_engines_device_always_opens_and_a_rewritten_program_gets_the_prologue_again() {
    let (lab, cgroup, engine, mut prober) = v2_lab();
    let mut other = lab.prober(&cgroup);
    let mut filter = open(&own(&[&cgroup]));
    let wanted = grants(&[(ZERO, "rw")]);
    assert_eq!(filter.ensure(&wanted).unwrap(), Change::Made);
    // On a busy machine the other one is let in only now and then: until it was often enough to
    // prove something.
    let (begin, mut opened) = (Instant::now(), 0);
    while opened <= 100 {
        other.keep_opening("null");
        for _ in 0..100 {
            engine.rewrite(&Engine::defaults());
            assert!(
                !prober.opens("r", "zero"),
                "the engine's rewrite took the grant away"
            );
            assert_eq!(filter.ensure(&wanted).unwrap(), Change::Made);
            assert!(prober.opens("r", "zero"));
            assert_eq!(filter.ensure(&wanted).unwrap(), Change::None);
        }
        opened += other.stop_opening("null");
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "opened only {opened} times: no proof"
        );
    }
    assert_eq!(engine.ids().len(), 1);
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn grants_are_set_although_an_engine_rewrites_its_program_meanwhile() {
    let (_lab, cgroup, engine, mut prober) = v2_lab();
    let mut filter = open(&own(&[&cgroup]));
    let wanted = grants(&[(ZERO, "rw")]);
    std::thread::scope(|scope| {
        let rewriting = scope.spawn(|| (0..300).for_each(|_| engine.rewrite(&Engine::defaults())));
        while !rewriting.is_finished() {
            match filter.ensure(&wanted) {
                Ok(_) | Err(FilterError::KeepsChanging { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    });
    let _ = filter.ensure(&wanted).unwrap();
    assert!(prober.opens("rw", "zero"));
    assert!(prober.opens("rw", "null"));
    assert_eq!(engine.ids().len(), 1, "none was added, none was lost");
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn a_device_opens_only_when_leaf_and_parent_both_have_the_prologue() {
    let mut lab = Lab::new("cgroup2");
    let (parent, leaf) = (lab.cgroup(""), lab.cgroup("/container"));
    let (outer, inner) = (Engine::of(&parent), Engine::of(&leaf));
    outer.attach(&Engine::defaults());
    inner.attach(&Engine::defaults());
    // Two on one cgroup must both allow, too.
    inner.attach(&Engine::defaults());
    let mut prober = lab.prober(&leaf);
    let wanted = grants(&[(ZERO, "rw")]);
    let refused = open(&own(&[&leaf])).ensure(&wanted).unwrap_err().to_string();
    let expected = format!(
        "cgroup {}, which the container is in, denies c 1:5 (access rw) by its device program {} (engine): \
         allow the device there (in a systemd unit: DeviceAllow=)",
        parent.display(),
        outer.ids()[0]
    );
    assert_eq!(refused, expected);
    assert!(!prober.opens("r", "zero"), "the parent's program denies");
    let mut both = open(&own(&[&leaf, &parent]));
    assert_eq!(both.ensure(&wanted).unwrap(), Change::Made);
    assert!(prober.opens("rw", "zero"));
    assert!(prober.opens("rw", "null"));
    assert_eq!((outer.ids().len(), inner.ids().len()), (1, 2));
    outer.rewrite(&Engine::defaults());
    assert!(!prober.opens("r", "zero"));
    assert_eq!(both.ensure(&wanted).unwrap(), Change::Made);
    assert!(prober.opens("rw", "zero"));
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn a_watcher_that_starts_again_finds_the_map_and_its_grants() {
    let (_lab, cgroup, engine, mut prober) = v2_lab();
    let wanted = grants(&[(ZERO, "r"), (FULL, "rw")]);
    let mut filter = open(&own(&[&cgroup]));
    assert_eq!(filter.ensure(&wanted).unwrap(), Change::Made);
    let (memory, map) = (filter.memory(), engine.map_id());
    assert_eq!(memory.held, wanted);
    drop(filter);
    assert!(prober.opens("r", "zero"), "grants outlive their watcher");
    assert!(prober.opens("rw", "null"), "and so does what the engine allows");
    let mut filter = filter::open(&own(&[&cgroup]), memory.clone()).unwrap();
    assert_eq!(filter.memory(), memory);
    assert_eq!(filter.ensure(&wanted).unwrap(), Change::None);
    assert_eq!(engine.map_id(), map);
    assert_eq!(filter.ensure(&GrantSet::new()).unwrap(), Change::Made);
    assert!(!prober.opens("r", "zero"), "its successor can revoke");
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn a_prologue_with_the_map_of_a_dead_watcher_is_replaced() {
    let mut lab = Lab::new("cgroup2");
    let (parent, leaf) = (lab.cgroup(""), lab.cgroup("/container"));
    let (outer, inner) = (Engine::of(&parent), Engine::of(&leaf));
    outer.attach(&Engine::defaults());
    inner.attach(&Engine::defaults());
    let mut prober = lab.prober(&leaf);
    let old = grants(&[(ZERO, "rw")]);
    // Given in the leaf, and refused by the parent's program as yet.
    let refused = open(&own(&[&leaf])).ensure(&old).unwrap_err();
    assert!(matches!(refused, FilterError::Refused { .. }), "{refused}");
    assert_eq!(open(&own(&[&parent])).ensure(&old).unwrap(), Change::Made);
    assert_ne!(outer.map_id(), inner.map_id());
    let mut filter = open(&own(&[&leaf, &parent]));
    assert_eq!(filter.ensure(&GrantSet::new()).unwrap(), Change::Made);
    assert_eq!(
        outer.map_id(),
        inner.map_id(),
        "even without grants: the old map must grant nothing"
    );
    assert!(!prober.opens("r", "zero"));
    assert_eq!(filter.ensure(&grants(&[(FULL, "r")])).unwrap(), Change::Made);
    assert!(prober.opens("r", "full"));
    let original =
        oci_hotplug::model::cgroup::filter_program::decode(outer.infos()[0].xlated.as_ref().unwrap());
    let original = original.unwrap();
    let original = oci_hotplug::model::cgroup::filter_program::strip(&original).unwrap();
    assert_eq!(
        original,
        Engine::defaults(),
        "one prologue only, and the engine's program behind it"
    );
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn a_thousand_cycles_leave_no_program_map_or_descriptor() {
    let (_lab, cgroup, engine, mut prober) = v2_lab();
    let mut filter = open(&own(&[&cgroup]));
    assert_eq!(filter.ensure(&grants(&[(FULL, "r")])).unwrap(), Change::Made);
    let map = engine.map_id();
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = descriptors();
    for round in 0..1000 {
        let wanted = match round % 3 {
            0 => grants(&[(ZERO, "rw")]),
            1 => GrantSet::new(),
            _ => grants(&[(ZERO, "r"), (FULL, "rw")]),
        };
        assert_eq!(filter.ensure(&wanted).unwrap(), Change::Made);
        if round % 10 == 0 {
            engine.rewrite(&Engine::defaults());
        }
    }
    assert_eq!(
        filter.ensure(&grants(&[(ZERO, "rw")])).unwrap(),
        Change::None,
        "as the last round left it"
    );
    assert_eq!(descriptors(), before);
    assert_eq!(
        engine.map_id(),
        map,
        "it is the same map, and there is one program"
    );
    let over_our_map = || {
        let info = |id| bpf::prog_get_fd_by_id(id).and_then(|fd| bpf::prog_info(fd.as_fd()));
        let last = engine.ids()[0];
        (1..=last)
            .filter_map(|id| info(id).ok())
            .filter(|info| info.map_ids.contains(&map))
            .count()
    };
    assert!(
        within_a_moment(|| over_our_map() == 1),
        "{} programs look into our map",
        over_our_map()
    );
    assert!(prober.opens("rw", "zero"));
    assert!(!prober.opens("r", "full"));
    drop(filter);
    engine.rewrite(&Engine::defaults());
    let gone = || bpf::HashMap::open_by_id(map).is_err();
    assert!(
        within_a_moment(gone),
        "the map goes with the last program and watcher"
    );
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn a_program_that_calls_a_helper_is_reported_and_the_parent_is_changed_anyway() {
    let mut lab = Lab::new("cgroup2");
    let (parent, leaf) = (lab.cgroup(""), lab.cgroup("/container"));
    let (outer, inner) = (Engine::of(&parent), Engine::of(&leaf));
    inner.attach(&program_that_calls_a_helper());
    outer.attach(&Engine::defaults());
    let mut filter = open(&own(&[&leaf, &parent]));
    assert_eq!(
        filter.ensure(&GrantSet::new()).unwrap(),
        Change::None,
        "nothing to grant: no error yet"
    );
    let error = filter.ensure(&grants(&[(ZERO, "rw")])).unwrap_err();
    let expected = format!(
        "cannot extend device program {} (engine) of cgroup {} by our grants: \
         instruction 0 calls a kernel helper (let the program that attached it grant the devices itself)",
        inner.ids()[0],
        leaf.display()
    );
    assert_eq!(error.to_string(), expected);
    assert_eq!(outer.infos()[0].name, "oci_hotplug");
    assert!(
        lab.prober(&leaf).opens("rw", "zero"),
        "this helper's program allows everything"
    );
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn without_a_program_or_without_grants_nothing_is_changed() {
    let mut lab = Lab::new("cgroup2");
    let cgroup = lab.cgroup("");
    let engine = Engine::of(&cgroup);
    let wanted = grants(&[(ZERO, "rw")]);
    let mut filter = open(&own(&[&cgroup]));
    assert_eq!(
        filter.ensure(&wanted).unwrap(),
        Change::None,
        "a privileged container"
    );
    assert!(engine.ids().is_empty());
    assert!(lab.prober(&cgroup).opens("rw", "zero"));
    engine.attach(&Engine::defaults());
    let ids = engine.ids();
    assert_eq!(filter.ensure(&GrantSet::new()).unwrap(), Change::None);
    assert_eq!(engine.ids(), ids, "a container without devices keeps its program");
    assert_eq!(filter.ensure(&wanted).unwrap(), Change::Made);
    assert!(lab.prober(&cgroup).opens("rw", "zero"));
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn a_program_that_is_attached_alone_gets_the_prologue() {
    let mut lab = Lab::new("cgroup2");
    let cgroup = lab.cgroup("");
    let engine = Engine::of(&cgroup);
    let program = Engine::load(&Engine::defaults());
    bpf::prog_attach(engine.dir.as_fd(), program.as_fd(), 0).unwrap();
    let mut prober = lab.prober(&cgroup);
    let mut filter = open(&own(&[&cgroup]));
    assert_eq!(filter.ensure(&grants(&[(ZERO, "r")])).unwrap(), Change::Made);
    assert!(prober.opens("r", "zero"));
    assert!(prober.opens("rw", "null"));
    assert!(!prober.opens("w", "zero"));
    assert_eq!(bpf::prog_query(engine.dir.as_fd()).unwrap().flags, 0);
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn grants_beyond_the_limit_are_an_error_and_the_others_are_granted() {
    let (_lab, cgroup, _engine, mut prober) = v2_lab();
    let mut wanted: GrantSet = (0..4096)
        .map(|minor| {
            (
                DevNum {
                    kind: DevKind::Char,
                    major: 240,
                    minor,
                },
                "r".parse().unwrap(),
            )
        })
        .collect();
    wanted.insert(ZERO, "rw".parse().unwrap());
    let mut filter = open(&own(&[&cgroup]));
    let error = filter.ensure(&wanted).unwrap_err();
    assert!(matches!(error, FilterError::Full { limit: 4096, .. }), "{error}");
    assert!(prober.opens("rw", "zero"));
    let num = |minor| DevNum {
        kind: DevKind::Char,
        major: 240,
        minor,
    };
    wanted.remove(&num(4095));
    assert_eq!(
        filter.ensure(&wanted).unwrap(),
        Change::None,
        "the others are all in"
    );
    wanted.remove(&num(0));
    wanted.insert(num(4096), "r".parse().unwrap());
    assert_eq!(
        filter.ensure(&wanted).unwrap(),
        Change::Made,
        "one that goes makes room for one that comes"
    );
    assert!(prober.opens("rw", "zero"));
}
