use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::model::device::SysPath;
use crate::model::device::inventory::Inventory;
use crate::model::device::recorded;
use crate::model::oci::ProcessUser;
use crate::model::request::entry::{Origin, RequestEntry};
use crate::model::request::id::RequestId;

const SECOND: Duration = Duration::from_secs(1);

/// One container with this request, on a host whose devices come and go.
struct Scenario {
    planner: Planner,
    removals: Removals,
    begin: Instant,
}

impl Scenario {
    fn new(request: &str) -> Self {
        let entry = vec![RequestEntry::new(Origin::Root, request.parse().unwrap())];
        Self {
            planner: Planner::new(entry, Vec::new(), ProcessUser::default()),
            removals: Removals::default(),
            begin: Instant::now(),
        }
    }

    /// How many removals are acted on if these USB devices (by their ids) are present at this
    /// second.
    fn at(&mut self, second: u32, present: &[&str]) -> usize {
        let mut devices = recorded::root_hubs();
        for (number, ids) in present.iter().enumerate() {
            let (vendor, product) = ids.split_once(':').unwrap();
            let mut device = recorded::named(&devices, "usb1").clone();
            device.syspath = SysPath::new(format!("/sys/devices/{ids}/1-{number}"));
            device.attributes.insert("idVendor".into(), vendor.into());
            device.attributes.insert("idProduct".into(), product.into());
            devices.push(device);
        }
        let removed = self.planner.find_roots(&Inventory::new(devices));
        let now = self.begin + SECOND * second;
        let at_once = self.removals.take(removed, &self.planner, now);
        at_once.len() + self.removals.due(now).len()
    }
}

const CORAL: (&str, &str) = ("1a6e:089a", "18d1:9302");

/// Case README 26.
#[test]
fn a_device_that_returns_within_the_grace_period_stops_nothing() {
    let mut scenario = Scenario::new("usb:1a6e:089a;on-removal=stop;grace=10s");
    assert_eq!(scenario.at(0, &[CORAL.0]), 0);
    assert_eq!(scenario.at(1, &[]), 0);
    assert_eq!(scenario.removals.next(), Some(scenario.begin + SECOND * 11));
    assert_eq!(scenario.at(10, &[CORAL.0]), 0);
    assert_eq!((scenario.at(30, &[CORAL.0]), scenario.removals.next()), (0, None));
    assert_eq!(scenario.at(40, &[]), 0);
    assert_eq!(scenario.at(49, &[]), 0);
    assert_eq!(scenario.at(50, &[]), 1);
    assert_eq!(scenario.at(90, &[]), 0, "once");
}

/// Case README 26.
#[test]
fn without_a_grace_period_each_removed_root_is_acted_on_at_once() {
    let mut scenario = Scenario::new("usb:1a6e:089a;on-removal=stop");
    assert_eq!(scenario.at(0, &[CORAL.0, CORAL.0]), 0);
    assert_eq!(scenario.at(1, &[CORAL.0]), 1);
    assert_eq!(scenario.at(1, &[]), 1);
}

/// Case README 26. Case README 2.
#[test]
fn with_alternatives_the_request_is_without_a_root_only_when_no_alternative_has_one() {
    let mut scenario = Scenario::new("usb:1a6e:089a;or=usb:18d1:9302;on-removal=stop");
    assert_eq!(scenario.at(0, &[CORAL.0]), 0);
    assert_eq!(scenario.at(1, &[CORAL.1]), 0, "it changed its ids in one moment");
    assert_eq!(scenario.at(2, &[]), 1, "without a grace period it is gone");
    let mut scenario = Scenario::new("usb:1a6e:089a;or=usb:18d1:9302;on-removal=stop;grace=2s");
    assert_eq!(scenario.at(0, &[CORAL.0]), 0);
    assert_eq!(scenario.at(1, &[]), 0);
    assert_eq!(scenario.at(2, &[CORAL.1]), 0);
    assert_eq!(scenario.at(9, &[CORAL.1]), 0);
    assert_eq!(scenario.at(10, &[]), 0);
    assert_eq!(scenario.at(12, &[]), 1);
}

#[test]
fn each_request_has_one_grace_period_for_all_its_roots() {
    let root = |name: &str, request: RequestId, grace| RootRemoved {
        root: SysPath::new(format!("/sys/devices/{name}")),
        request,
        action: OnRemoval::Stop,
        grace: Some(grace),
    };
    let entries = [
        "usb:0403;on-removal=stop;grace=5s",
        "usb:1050;on-removal=stop;grace=5s",
    ]
    .map(|text| RequestEntry::new(Origin::Root, text.parse().unwrap()));
    let planner = Planner::new(entries.to_vec(), Vec::new(), ProcessUser::default());
    let [one, other] = [RequestId::FIRST, RequestId::FIRST.next()];
    let now = Instant::now();
    let took = |grace: Duration| {
        let mut removals = Removals::default();
        let removed = vec![
            root("a", one, grace),
            root("b", one, grace),
            root("c", other, grace),
        ];
        let at_once = removals.take(removed, &planner, now);
        let names = |roots: Vec<&RootRemoved>| -> Vec<String> {
            roots
                .iter()
                .map(|removed| removed.root.name().to_owned())
                .collect()
        };
        let pending = removals.pending().map(|(removed, _)| removed).collect();
        (names(at_once.iter().collect()), names(pending))
    };
    let none: Vec<String> = Vec::new();
    assert_eq!(
        took(5 * SECOND),
        (none.clone(), vec!["a".to_owned(), "c".to_owned()])
    );
    assert_eq!(took(Duration::ZERO), (vec!["a".to_owned(), "c".to_owned()], none));
}

#[test]
fn removing_a_request_cancels_its_pending_removals() {
    let mut scenario = Scenario::new("usb:1a6e:089a;on-removal=kill;grace=5s");
    scenario.at(0, &[CORAL.0]);
    scenario.at(1, &[]);
    assert_eq!(scenario.removals.pending().count(), 1);
    let entry = scenario.planner.entries().to_vec();
    scenario.planner.remove(&entry);
    assert_eq!(scenario.at(9, &[]), 0);
}

proptest! {
    #[test]
    fn the_removal_is_acted_on_exactly_when_the_grace_period_ends(
        present in prop::collection::vec(any::<bool>(), 1..40),
        grace in 1..5usize,
    ) {
        let mut scenario = Scenario::new(&format!("usb:1a6e:089a;on-removal=stop;grace={grace}s"));
        scenario.at(0, &[CORAL.0]);
        let mut away = 0;
        for (second, is_there) in (1..).zip(present) {
            let acted = scenario.at(second, if is_there { &[CORAL.0] } else { &[] });
            away = if is_there { 0 } else { away + 1 };
            // The device was removed in this second, so the period ends after `grace` more.
            prop_assert_eq!(acted, usize::from(away == grace + 1));
        }
    }
}
