use proptest::prelude::*;

use super::*;

fn unit(place: &str, numa: Option<i64>) -> Unit {
    Unit {
        healthy: true,
        attached: None,
        numa,
        place: place.to_owned(),
        offer: Arc::default(),
    }
}

fn resource(units: &[(&str, &str, Option<i64>)]) -> Resource {
    Resource {
        name: "a.b/c".parse().unwrap(),
        units: units
            .iter()
            .map(|(id, place, numa)| ((*id).to_owned(), unit(place, *numa)))
            .collect(),
        wishes: Vec::new(),
        hotplug: false,
        metrics: Metrics::Ours,
    }
}

fn ids(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

#[test]
fn names_are_judged_as_kubelet_judges_them() {
    let longest = format!("a.b/{}", "x".repeat(63));
    for good in [
        "hostdev.k8s.io/dev_mem",
        "smarter-devices/video0",
        "a/b",
        &longest,
    ] {
        assert!(good.parse::<ResourceName>().is_ok(), "{good}");
    }
    let too_long = format!("a.b/{}", "x".repeat(64));
    for bad in [
        "",
        "cpu",
        "a/b/c",
        "/b",
        "a/",
        "a/_b",
        "a/b-",
        "A/b",
        "a..b/c",
        "-a/b",
        "a.b/c d",
        "kubernetes.io/x",
        "x.kubernetes.io/x",
        "requests.a/b",
        &too_long,
    ] {
        assert!(bad.parse::<ResourceName>().is_err(), "{bad}");
    }
}

#[test]
fn the_two_plugins_names_stay_as_they_were() {
    let mut names = Names::default();
    for (domain, path, plain, name) in [
        ("hostdev.k8s.io", "/dev/mem", "dev_mem", "hostdev.k8s.io/dev_mem"),
        (
            "smarter-devices",
            "/dev/net/tun",
            "net_tun",
            "smarter-devices/net_tun",
        ),
        ("smarter-devices", "/dev/snd", "snd", "smarter-devices/snd"),
    ] {
        assert_eq!(names.name(domain, path, plain).unwrap().as_str(), name);
    }
    assert_eq!(names.take_notes(), [""; 0]);
}

#[test]
fn of_two_paths_with_one_name_the_first_keeps_it_and_the_second_is_told_of() {
    let mut names = Names::default();
    let first = names.name("d.e", "/dev/a.b", "a_b").unwrap();
    let second = names.name("d.e", "/dev/a_b", "a_b").unwrap();
    assert_eq!(first.as_str(), "d.e/a_b");
    assert!(second.as_str().starts_with("d.e/a_b-"), "{second}");
    assert_eq!(names.name("d.e", "/dev/a.b", "a_b").unwrap(), first);
    assert_eq!(names.name("d.e", "/dev/a_b", "a_b").unwrap(), second);
    let notes = names.take_notes();
    assert!(
        notes[0].contains("/dev/a_b") && notes[0].contains("another's name"),
        "{notes:?}"
    );
    assert_eq!(notes.len(), 1);
}

#[test]
fn a_name_that_the_configuration_gives_is_no_paths() {
    let mut names = Names::default();
    names.reserve(&"d.e/x".parse().unwrap());
    assert_ne!(names.name("d.e", "/dev/x", "x").unwrap().as_str(), "d.e/x");
}

#[test]
fn what_was_given_and_has_gone_stays_unhealthy_and_what_was_not_goes() {
    let before = resource(&[("given", "a", None), ("free", "b", None)]);
    let mut now = resource(&[("new", "c", None)]);
    now.keep_allocated(&before, &["given".to_owned(), "stranger".to_owned()].into());
    let shown: Vec<(&str, bool)> = now
        .units
        .iter()
        .map(|(id, unit)| (id.as_str(), unit.healthy))
        .collect();
    assert_eq!(shown, [("given", false), ("new", true)]);
}

#[test]
fn units_behind_one_hub_are_preferred_together() {
    let resource = resource(&[
        ("a", "/sys/usb1/1-1/1-1.1", None),
        ("b", "/sys/usb1/1-2/1-2.1", None),
        ("c", "/sys/usb1/1-2/1-2.4", None),
        ("d", "/sys/usb2/2-1", None),
    ]);
    let all = ids(&["a", "b", "c", "d"]);
    assert_eq!(resource.preferred(&all, &[], 2), ids(&["b", "c"]));
    assert_eq!(resource.preferred(&all, &ids(&["a"]), 2), ids(&["a", "b"]));
    assert_eq!(resource.preferred(&all, &ids(&["c"]), 2), ids(&["c", "b"]));
}

#[test]
fn units_at_one_numa_node_go_before_neighbours() {
    let resource = resource(&[
        ("a", "/x/1", Some(0)),
        ("b", "/x/2", Some(1)),
        ("c", "/y", Some(0)),
    ]);
    assert_eq!(
        resource.preferred(&ids(&["a", "b", "c"]), &[], 2),
        ids(&["a", "c"])
    );
}

#[test]
fn where_all_are_alike_the_lowest_are_preferred() {
    let resource = resource(&[
        ("s-0", "0000", None),
        ("s-1", "0001", None),
        ("s-2", "0002", None),
    ]);
    assert_eq!(
        resource.preferred(&ids(&["s-2", "s-1", "s-0"]), &[], 1),
        ids(&["s-0"])
    );
}

proptest! {
    #[test]
    fn whatever_a_path_is_called_its_name_is_one_that_kubelet_takes(paths in prop::collection::vec("\\PC{0,90}", 1..20)) {
        let mut names = Names::default();
        let mut given = BTreeMap::new();
        for path in &paths {
            let name = names.name("d.e", path, path).unwrap();
            prop_assert!(name.as_str().parse::<ResourceName>().is_ok(), "{}", name);
            prop_assert_eq!(given.entry(path.clone()).or_insert_with(|| name.clone()), &name);
        }
        let different: BTreeSet<&ResourceName> = given.values().collect();
        prop_assert_eq!(different.len(), given.len());
    }

    #[test]
    fn ids_are_short_and_differ_between_resources_devices_and_numbers(
        first in ("[a-z]{1,63}", "\\PC{0,40}", 0..1000u32),
        second in ("[a-z]{1,63}", "\\PC{0,40}", 0..1000u32),
    ) {
        let id = |(name, what, number): &(String, String, u32)| {
            unit_id(&format!("d.e/{name}").parse().unwrap(), what, *number)
        };
        prop_assert!(id(&first).len() <= MAX_ID);
        prop_assert_eq!(id(&first) == id(&second), first == second);
    }

    #[test]
    fn a_preference_has_what_it_must_and_only_what_is_available(
        places in prop::collection::vec(("(/[ab]){0,4}", prop::option::of(0..2i64)), 0..12),
        must in 0..4usize,
        size in 0..14usize,
    ) {
        let known: Vec<(String, &str, Option<i64>)> = places
            .iter()
            .zip(0..)
            .map(|((place, numa), number)| (format!("id{number}"), place.as_str(), *numa))
            .collect();
        let borrowed: Vec<(&str, &str, Option<i64>)> = known.iter().map(|(id, place, numa)| (id.as_str(), *place, *numa)).collect();
        let resource = resource(&borrowed);
        let all: Vec<String> = resource.units.keys().cloned().collect();
        let must: Vec<String> = all.iter().take(must).cloned().collect();
        let chosen = resource.preferred(&all, &must, size);
        let different: BTreeSet<&String> = chosen.iter().collect();
        prop_assert_eq!(different.len(), chosen.len());
        prop_assert_eq!(chosen.len(), size.min(all.len()));
        prop_assert!(chosen.iter().all(|id| all.contains(id)));
        prop_assert!(must.iter().take(size).all(|id| chosen.contains(id)));
    }
}
