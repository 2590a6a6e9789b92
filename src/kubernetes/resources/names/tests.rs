use proptest::prelude::*;

use super::*;

#[test]
fn names_follow_kubelets_rules() {
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
fn the_names_of_the_compatible_plugins_are_unchanged() {
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
fn the_first_of_two_paths_with_one_name_keeps_it_and_the_second_gets_a_note() {
    let mut names = Names::default();
    let first = names.name("d.e", "/dev/a.b", "a_b").unwrap();
    let second = names.name("d.e", "/dev/a_b", "a_b").unwrap();
    assert_eq!(first.as_str(), "d.e/a_b");
    assert!(second.as_str().starts_with("d.e/a_b-"), "{second}");
    assert_eq!(names.name("d.e", "/dev/a.b", "a_b").unwrap(), first);
    assert_eq!(names.name("d.e", "/dev/a_b", "a_b").unwrap(), second);
    let notes = names.take_notes();
    assert!(
        notes[0].contains("/dev/a_b") && notes[0].contains("already in use"),
        "{notes:?}"
    );
    assert_eq!(notes.len(), 1);
}

#[test]
fn a_path_does_not_get_a_name_from_the_configuration() {
    let mut names = Names::default();
    names.reserve(&"d.e/x".parse().unwrap());
    assert_ne!(names.name("d.e", "/dev/x", "x").unwrap().as_str(), "d.e/x");
}

proptest! {
    #[test]
    fn kubelet_accepts_the_name_of_every_path(paths in prop::collection::vec("\\PC{0,90}", 1..20)) {
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
}
