//! Properties of plans and their application, for any order of events.

use super::*;

/// A device of the properties: one of a few paths, with a device that is added, processed by udevd,
/// changed and removed.
fn place(index: usize, life: u32, udev_state: UdevState, seqnum: u64) -> Device {
    let mut device = Device::new(SysPath::new(format!(
        "/sys/devices/hub/port{}/tty{index}",
        index % 2
    )));
    device.subsystem = Some("tty".into());
    device.node = Some(crate::model::device::DevNode {
        path: format!("/dev/tty{index}").into(),
        num: DevNum {
            kind: if index % 3 == 0 {
                DevKind::Block
            } else {
                DevKind::Char
            },
            major: 7,
            minor: life * 10 + index as u32,
        },
    });
    device.udev_state = udev_state;
    device.seqnum = seqnum;
    if udev_state == UdevState::Processed {
        device.links.insert(format!("/dev/by-place/{}", index % 2).into());
        device.tags.insert("spoken".into());
    }
    device
}

/// What the kernel does, in this order.
#[derive(Debug, Clone)]
enum Act {
    Plug(usize),
    Pull(usize),
    Change(usize),
}

fn any_acts() -> impl Strategy<Value = Vec<Act>> {
    let act = (0..3, 0..4usize).prop_map(|(what, index)| match what {
        0 => Act::Plug(index),
        1 => Act::Pull(index),
        _ => Act::Change(index),
    });
    prop::collection::vec(act, 1..30)
}

const REQUESTS: [&str; 5] = [
    "subsystem:tty",
    "subsystem:tty;path=/dev/one, glob:/dev/tty*;access=r",
    "tag:spoken;link=/dev/spoken",
    "subsystem:tty&!tag:spoken",
    "devnode:/dev/tty1;ready=udev, devnode:/dev/by-place/0;mode=0600",
];

/// The events of the kernel and those of udevd for these acts, each in their own order.
fn events(acts: &[Act]) -> (Vec<DeviceEvent>, Vec<DeviceEvent>) {
    let mut lives = [0u32; 4];
    let mut present = [false; 4];
    let (mut kernel, mut udevd) = (Vec::new(), Vec::new());
    for (seqnum, act) in (1u64..).zip(acts) {
        let both = |event: fn(Device) -> DeviceEvent, index, life| {
            let states = [UdevState::Pending, UdevState::Processed];
            states.map(|state| event(place(index, life, state, seqnum)))
        };
        let [of_kernel, of_udevd] = match *act {
            Act::Plug(index) if !present[index] => {
                lives[index] += 1;
                present[index] = true;
                both(DeviceEvent::Added, index, lives[index])
            }
            Act::Pull(index) if present[index] => {
                present[index] = false;
                let syspath = place(index, 0, UdevState::Pending, 0).syspath;
                let removed = DeviceEvent::Removed { syspath, seqnum };
                [removed.clone(), removed]
            }
            Act::Change(index) if present[index] => both(DeviceEvent::Changed, index, lives[index]),
            _ => continue,
        };
        kernel.push(of_kernel);
        udevd.push(of_udevd);
    }
    (kernel, udevd)
}

/// One order of both; `choices` says when udevd's next event comes. It never comes before the
/// kernel's.
fn interleave(kernel: &[DeviceEvent], udevd: &[DeviceEvent], choices: &[bool]) -> Vec<DeviceEvent> {
    let (mut from_kernel, mut from_udevd) = (0, 0);
    let mut all = Vec::new();
    for choice in choices.iter().copied().chain(std::iter::repeat(true)) {
        if from_udevd == udevd.len() {
            break;
        }
        if (choice && from_udevd < from_kernel) || from_kernel == kernel.len() {
            all.push(udevd[from_udevd].clone());
            from_udevd += 1;
        } else {
            all.push(kernel[from_kernel].clone());
            from_kernel += 1;
        }
    }
    all
}

proptest! {
    #[test]
    fn after_applying_a_plan_the_next_plan_is_empty(
        acts in any_acts(),
        choices in prop::collection::vec(any::<bool>(), 60),
        requests in prop::sample::select(&REQUESTS[..]),
    ) {
        let (kernel, udevd) = events(&acts);
        let mut scenario = Scenario::new(requests, "");
        for event in interleave(&kernel, &udevd, &choices) {
            scenario.inventory.apply(event);
            prop_assert_eq!(scenario.reconcile(), []);
            let again = scenario.plan();
            prop_assert_eq!(again.steps, []);
            prop_assert_eq!(&scenario.container.granted, &scenario.attachments.grants());
            prop_assert_eq!(&scenario.container.noted, &scenario.attachments);
        }
    }

    #[test]
    fn every_order_of_events_has_the_same_result(
        acts in any_acts(),
        choices in prop::collection::vec(any::<bool>(), 60),
        // If two devices request one path, the first one keeps it: there the history counts, on
        // purpose.
        requests in prop::sample::select(&REQUESTS[..]).prop_filter("path=", |text| !text.contains("path=")),
    ) {
        let (kernel, udevd) = events(&acts);
        let end = |choices: &[bool], each: bool| {
            let mut scenario = Scenario::new(requests, "");
            for event in interleave(&kernel, &udevd, choices) {
                scenario.inventory.apply(event);
                if each {
                    scenario.reconcile();
                }
            }
            scenario.reconcile();
            scenario
        };
        // udevd sends its event at once, at some time, or only at the end; the watcher plans after
        // each event, or once at the end.
        let (prompt, some, last) = (end(&[true; 80], true), end(&choices, true), end(&[], true));
        let once = end(&choices, false);
        for scenario in [&some, &last, &once] {
            prop_assert_eq!(&scenario.container.granted, &prompt.container.granted);
            prop_assert_eq!(scenario.nodes(), prompt.nodes());
            prop_assert_eq!(scenario.container.links.len(), prompt.container.links.len());
        }
    }

    #[test]
    fn planning_only_for_affected_devices_has_the_same_result(
        acts in any_acts(),
        choices in prop::collection::vec(any::<bool>(), 60),
        requests in prop::sample::select(&[
            "devnode:/dev/tty1;link=/dev/one",
            "tag:spoken&devnode:/dev/by-place/0",
            "parent-of:devnode:/dev/tty2",
            "parent-of:subsystem:tty&!tag:spoken",
            "syspath:/sys/devices/hub/port0",
            "subsystem:tty&tag:lab",
            "subsystem:tty&!tag:lab",
            "glob:/dev/tty*&syspath:/sys/devices/hub/port1&!tag:lab;only=tag:spoken",
            "syspath:/sys/devices/hub/port0&!tag:spoken",
        ][..]),
        port_changes in prop::collection::vec((0..40usize, 0..2usize, any::<bool>()), 0..6),
    ) {
        let (kernel, udevd) = events(&acts);
        // The kernel adds the ports first.
        let ports = [0, 1].map(|port| Device::new(SysPath::new(format!("/sys/devices/hub/port{port}"))));
        let mut scenario = Scenario::new(requests, "");
        scenario.plug(&ports);
        let mut events = interleave(&kernel, &udevd, &choices);
        for (at, port, is_tagged) in port_changes {
            let mut port = ports[port].clone();
            port.udev_state = UdevState::Processed;
            if is_tagged {
                port.tags.insert("lab".into());
            }
            events.insert(at.min(events.len()), DeviceEvent::Changed(port));
        }
        let mut pending = false;
        for event in events {
            let syspath = event.syspath().cloned().expect("no overrun");
            scenario.inventory.apply(event);
            let affected = pending || scenario.planner.is_affected_by(&syspath, &scenario.inventory);
            // A watcher that does not plan does not look for roots either.
            let roots = scenario.planner.clone();
            let plan = scenario.plan();
            if affected {
                prop_assert_eq!(scenario.reconcile(), []);
            } else {
                prop_assert!(plan.steps.is_empty(), "{} was not to matter: {:?}", syspath, plan.steps);
                scenario.planner = roots;
            }
            pending = affected && !scenario.plan().pending.is_empty();
        }
    }

    #[test]
    fn after_all_devices_are_unplugged_nothing_is_left_despite_earlier_failures(
        acts in any_acts(),
        choices in prop::collection::vec(any::<bool>(), 60),
        requests in prop::sample::select(&REQUESTS[..]),
        broken in prop::collection::btree_set(0..4usize, 0..3),
        broken_link in any::<bool>(),
    ) {
        let (kernel, udevd) = events(&acts);
        let mut scenario = Scenario::new(requests, "");
        scenario.container.broken = broken.iter().map(|index| format!("/dev/tty{index}").into()).collect();
        if broken_link {
            scenario.container.broken.insert("/dev/by-place/0".into());
        }
        for event in interleave(&kernel, &udevd, &choices) {
            scenario.inventory.apply(event);
            scenario.reconcile();
            for (path, node) in &scenario.container.nodes {
                let stuck = scenario.container.broken.contains(path);
                prop_assert!(stuck || !scenario.container.may(node.num).is_none(), "{} without access", path.display());
            }
            for num in scenario.container.granted.keys() {
                let has_node = scenario.container.nodes.values().any(|node| node.num == *num);
                prop_assert!(has_node, "{} granted without a node", num);
            }
        }
        scenario.container.broken.clear();
        scenario.inventory.replace([]);
        prop_assert_eq!(scenario.reconcile(), []);
        prop_assert!(scenario.is_empty());
    }

    #[test]
    fn nothing_is_left_if_the_watcher_crashes_and_its_devices_are_gone_when_the_next_one_starts(
        acts in any_acts(),
        choices in prop::collection::vec(any::<bool>(), 60),
        requests in prop::sample::select(&REQUESTS[..]),
        are_numbers_taken in any::<bool>(),
        each in any::<bool>(),
        // From this event on, a node cannot be removed or created any more.
        breaks in (0..60usize, 0..4usize),
    ) {
        let (kernel, udevd) = events(&acts);
        let mut scenario = Scenario::new(requests, "");
        let events = interleave(&kernel, &udevd, &choices);
        let last = events.len().saturating_sub(1);
        for (index, event) in events.into_iter().enumerate() {
            if index == breaks.0 {
                scenario.container.broken.insert(format!("/dev/tty{}", breaks.1).into());
            }
            scenario.inventory.apply(event);
            if each || index == last {
                scenario.reconcile();
            }
        }
        for crash in std::mem::take(&mut scenario.container.crashes) {
            let mut next = Scenario::new(requests, "");
            next.container.dead = match are_numbers_taken {
                true => crash.nodes.keys().cloned().collect(),
                false => BTreeSet::new(),
            };
            next.container.nodes = crash.nodes;
            next.container.links = crash.links;
            next.container.noted = crash.noted.clone();
            next.attachments = crash.noted;
            prop_assert_eq!(check(&mut next.attachments, &mut next.container).len(), 0);
            prop_assert_eq!(next.reconcile(), []);
            prop_assert_eq!(next.nodes(), Vec::<String>::new());
            prop_assert_eq!(next.links(), Vec::<String>::new());
        }
    }
}
