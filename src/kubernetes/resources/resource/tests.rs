use std::sync::Arc;

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
        cdi_devices: Vec::new(),
        hotplug: false,
        format: Format::Other,
    }
}

fn ids(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

#[test]
fn a_missing_unit_stays_unhealthy_while_it_is_allocated() {
    let before = resource(&[("given", "a", None), ("free", "b", None)]);
    let mut now = resource(&[("new", "c", None)]);
    now.keep_allocated(&before, &["given".to_owned(), "unknown".to_owned()].into());
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
fn units_on_one_numa_node_are_preferred_to_neighbours() {
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
fn of_equal_units_the_lowest_are_preferred() {
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
    fn a_preference_contains_the_required_units_and_only_available_ones(
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
