//! Several devices claim one udev link. The host's link points to one of them.

use std::collections::VecDeque;

use super::*;
use crate::model::device::{Aliases, LinkTargets};
use crate::model::request::facts_needed::FactsNeeded;

/// The link that all sticks claim.
const CLAIMED: &str = "/dev/serial/by-id/usb-X";

/// A host with identical sticks, its udevd, and a watcher.
struct Host {
    scenario: Scenario,
    facts: FactsNeeded,
    /// The sticks that are plugged in, by place: the minor number of each.
    present: BTreeMap<usize, u32>,
    /// Kernel events that udevd has not processed: the stick's place, and its minor number unless
    /// it was removed.
    queue: VecDeque<(usize, Option<u32>)>,
    /// The stick that the host's link points to. The link dangles while that stick is absent.
    link: Option<(usize, u32)>,
    /// The sticks that udevd knows.
    known: BTreeMap<usize, u32>,
    /// Events that the watcher has not received.
    kernel: Vec<DeviceEvent>,
    udev: Vec<DeviceEvent>,
    links_may_have_moved: bool,
    seqnum: u64,
}

impl Host {
    fn new(requests: &str) -> Self {
        let parsed = parse_requests(requests).unwrap();
        Self {
            scenario: Scenario::new(requests, ""),
            facts: FactsNeeded::of(&parsed, &[]),
            present: BTreeMap::new(),
            queue: VecDeque::new(),
            link: None,
            known: BTreeMap::new(),
            kernel: Vec::new(),
            udev: Vec::new(),
            links_may_have_moved: false,
            seqnum: 1,
        }
    }

    fn syspath(place: usize) -> SysPath {
        SysPath::new(format!("/sys/devices/usb1/1-{place}/1-{place}:1.0/tty/ttyUSB"))
    }

    /// The place decides the node's name. Each plug brings a new number.
    fn stick(place: usize, minor: u32, udev_state: UdevState) -> Device {
        let mut device = Device::new(Self::syspath(place));
        device.subsystem = Some("tty".into());
        device.node = Some(crate::model::device::DevNode {
            path: format!("/dev/ttyUSB{place}").into(),
            num: DevNum {
                kind: DevKind::Char,
                major: 188,
                minor,
            },
        });
        device.udev_state = udev_state;
        if udev_state == UdevState::Processed {
            device.links.insert(CLAIMED.into());
            device
                .properties
                .insert("DEVLINKS".to_owned(), CLAIMED.to_owned());
        }
        device
    }

    fn target(&self) -> Option<PathBuf> {
        let (place, _) = self.link.filter(|(place, _)| self.present.contains_key(place))?;
        Some(format!("/dev/ttyUSB{place}").into())
    }

    fn targets<'a>(&self, links: impl IntoIterator<Item = &'a PathBuf>) -> LinkTargets {
        let links = links.into_iter();
        links
            .map(|link| (link.clone(), self.target().filter(|_| link == Path::new(CLAIMED))))
            .collect()
    }

    fn plug(&mut self, place: usize) {
        if !self.present.contains_key(&place) {
            self.seqnum += 1;
            let minor = u32::try_from(self.seqnum).unwrap();
            self.present.insert(place, minor);
            self.queue.push_back((place, Some(minor)));
            let mut device = Self::stick(place, minor, UdevState::Pending);
            device.seqnum = self.seqnum;
            self.kernel.push(DeviceEvent::Added(device));
        }
    }

    fn pull(&mut self, place: usize) {
        if self.present.remove(&place).is_some() {
            self.seqnum += 1;
            self.queue.push_back((place, None));
            self.kernel.push(DeviceEvent::Removed {
                syspath: Self::syspath(place),
                seqnum: self.seqnum,
            });
        }
    }

    /// udevd processes one event: it points the link to the claimant at the highest place, then
    /// sends its event.
    fn udevd_processes_one(&mut self) {
        let Some((place, minor)) = self.queue.pop_front() else {
            return;
        };
        match minor {
            Some(minor) => self.known.insert(place, minor),
            None => self.known.remove(&place),
        };
        self.link = self.known.last_key_value().map(|(place, minor)| (*place, *minor));
        self.links_may_have_moved = true;
        if let Some(minor) = minor.filter(|minor| self.present.get(&place) == Some(minor)) {
            let mut device = Self::stick(place, minor, UdevState::Processed);
            device.seqnum = u64::from(minor);
            self.udev.push(DeviceEvent::Added(device));
        }
    }

    fn follow(&mut self) {
        let followed = self.scenario.planner.followed_links(&self.scenario.inventory);
        let claimed = self.targets(followed);
        let named = Aliases::new(self.targets(&self.facts.followed_paths));
        self.scenario.inventory.take_links(&named, &claimed);
    }

    /// Does what `DeviceMonitor::drain` and `Watcher::take_events` do with the events that have
    /// arrived.
    fn watcher_wakes(&mut self) {
        let named = Aliases::new(self.targets(&self.facts.followed_paths));
        let mut events: Vec<DeviceEvent> = self.kernel.drain(..).collect();
        let udev: Vec<DeviceEvent> = self.udev.drain(..).collect();
        events.extend(udev.into_iter().filter(|event| {
            let DeviceEvent::Added(device) = event else {
                return false;
            };
            let minor = device.node.as_ref().unwrap().num.minor;
            // See `SysFs::is_same`.
            self.present
                .iter()
                .any(|(place, now)| *now == minor && Self::syspath(*place) == device.syspath)
        }));
        if std::mem::take(&mut self.links_may_have_moved) {
            self.follow();
        }
        for mut event in events {
            if let DeviceEvent::Added(device) = &mut event {
                device.sort_links(&self.targets(&[PathBuf::from(CLAIMED)]));
                device.aliases = named.of(device);
            }
            let removed = matches!(event, DeviceEvent::Removed { .. });
            self.scenario.inventory.apply(event);
            if removed {
                assert_eq!(self.scenario.reconcile(), []);
            }
        }
        assert_eq!(self.scenario.reconcile(), []);
    }

    /// Lets udevd and the watcher process all events.
    fn settle(&mut self) {
        while !self.queue.is_empty() {
            self.udevd_processes_one();
        }
        self.watcher_wakes();
        let again = self.scenario.plan();
        assert_eq!((&again.steps[..], conflicts(&again)), (&[][..], 0));
    }

    /// A container that starts now.
    fn cold_start(&self, requests: &str) -> Scenario {
        let mut scenario = Scenario::new(requests, "");
        let named = Aliases::new(self.targets(&self.facts.followed_paths));
        let devices = self.present.iter().map(|(place, minor)| {
            let mut device = Self::stick(*place, *minor, UdevState::Processed);
            device.sort_links(&self.targets(&[PathBuf::from(CLAIMED)]));
            device.aliases = named.of(&device);
            device
        });
        scenario.inventory.replace(devices.collect::<Vec<_>>());
        assert_eq!(scenario.reconcile(), []);
        scenario
    }

    fn links_in_the_container(&self) -> Vec<String> {
        self.scenario.links()
    }
}

const BY_LINK: [&str; 6] = [
    "devnode:/dev/serial/by-id/usb-X;link=/dev/stick",
    "glob:/dev/serial/by-id/*;link=/dev/stick",
    "regex:by-id/usb-X$;path=/dev/stick",
    "property:DEVLINKS=*usb-X*;link=/dev/stick",
    "subsystem:tty;only=devnode:/dev/serial/by-id/usb-X;path=/dev/stick",
    "subsystem:tty&devnode:/dev/serial/by-id/usb-X;link=/dev/stick",
];

/// Case README 1.
#[test]
fn a_stick_that_takes_over_the_link_replaces_the_other_stick_until_it_is_unplugged() {
    for request in BY_LINK {
        let mut host = Host::new(request);
        let nodes_with = |host: &mut Host, place: usize| {
            host.settle();
            let nodes: Vec<u32> = host
                .scenario
                .container
                .nodes
                .values()
                .map(|node| node.num.minor)
                .collect();
            assert_eq!(nodes, [host.present[&place]], "{request}");
            let granted: Vec<u32> = host
                .scenario
                .container
                .granted
                .keys()
                .map(|num| num.minor)
                .collect();
            assert_eq!(granted, [host.present[&place]], "{request}");
        };
        host.plug(1);
        nodes_with(&mut host, 1);
        host.plug(2);
        nodes_with(&mut host, 2);
        host.pull(2);
        host.watcher_wakes();
        assert_eq!(
            host.scenario.nodes(),
            [""; 0],
            "{request}: the host's link dangles"
        );
        nodes_with(&mut host, 1);
        host.pull(1);
        host.settle();
        assert!(host.scenario.is_empty(), "{request}");
    }
}

/// Case README 1.
#[test]
fn the_containers_udev_link_has_the_same_target_as_the_hosts() {
    let mut host = Host::new("subsystem:tty");
    let stick = |place: usize| format!("{CLAIMED} -> /dev/ttyUSB{place}");
    for place in [1, 2] {
        host.plug(place);
        host.settle();
        assert_eq!(host.links_in_the_container(), [stick(place)]);
    }
    assert_eq!(host.scenario.nodes().len(), 2);
    let announced = &host.scenario.container.announced;
    assert_eq!(announced.last().map(String::as_str), Some("add /dev/ttyUSB2"));
    assert!(
        announced.contains(&"change /dev/ttyUSB1".to_owned()),
        "it lost the link: {announced:?}"
    );
    host.pull(2);
    host.settle();
    assert_eq!(host.links_in_the_container(), [stick(1)]);
}

/// Case security 12.
#[test]
fn a_stale_link_does_not_select_the_next_device_with_the_same_node_name() {
    let mut host = Host::new("devnode:/dev/serial/by-id/usb-X");
    host.plug(1);
    host.settle();
    host.pull(1);
    // udevd is slow: the link still exists when another device gets the node's name.
    host.watcher_wakes();
    let mut other = Host::stick(1, 999, UdevState::Pending);
    other.syspath = SysPath::new("/sys/devices/usb1/1-9/1-9:1.0/tty/ttyUSB");
    host.present.insert(1, 999);
    other.aliases = Aliases::new(host.targets(&host.facts.followed_paths)).of(&other);
    assert_eq!(other.aliases.len(), 1, "the host's link points to it");
    let syspath = other.syspath.clone();
    host.scenario.take(DeviceEvent::Added(other));
    assert!(host.scenario.is_empty());
    assert_eq!(
        host.scenario.plan().unconfirmed_links,
        [syspath],
        "readiness waits for udevd"
    );
}

#[derive(Debug, Clone)]
enum Step {
    Plug(usize),
    Pull(usize),
    UdevdProcessesOne,
    WatcherWakes,
}

fn any_steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..4usize).prop_map(Step::Plug),
        (0..4usize).prop_map(Step::Pull),
        Just(Step::UdevdProcessesOne),
        Just(Step::WatcherWakes),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    /// Case README 1.
    #[test]
    fn hotplug_and_cold_start_give_the_same_result(
        steps in any_steps(),
        request in prop::sample::select(&BY_LINK[..]),
    ) {
        let mut host = Host::new(request);
        for step in steps {
            match step {
                Step::Plug(place) => host.plug(place),
                Step::Pull(place) => host.pull(place),
                Step::UdevdProcessesOne => host.udevd_processes_one(),
                Step::WatcherWakes => host.watcher_wakes(),
            }
            let with_node: BTreeSet<u32> =
                host.scenario.container.nodes.values().map(|node| node.num.minor).collect();
            prop_assert!(with_node.len() <= 1, "one link selects one device: {:?}", with_node);
        }
        host.settle();
        let cold = host.cold_start(request);
        prop_assert_eq!(&host.scenario.container.nodes, &cold.container.nodes);
        prop_assert_eq!(&host.scenario.container.links, &cold.container.links);
        prop_assert_eq!(&host.scenario.container.granted, &cold.container.granted);
        prop_assert_eq!(host.scenario.container.nodes.len(), usize::from(host.target().is_some()));
    }
}
