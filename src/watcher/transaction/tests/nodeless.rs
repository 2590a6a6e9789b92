//! Events of devices without a node.

use super::*;

/// An event as the kernel or udevd sends it.
fn event(device: &Device, action: &str, seqnum: u64, udev_state: UdevState) -> DeviceEvent {
    let mut device = match udev_state {
        UdevState::Processed => device.clone(),
        _ => before_udev(device.clone()),
    };
    device.udev_state = udev_state;
    device.seqnum = seqnum;
    device.properties.insert("ACTION".to_owned(), action.to_owned());
    match action {
        "add" => DeviceEvent::Added(device),
        _ => DeviceEvent::Changed(device),
    }
}

/// The devices of the adapter A: itself, its interface, the usb-serial port, the tty.
fn adapter() -> Vec<Device> {
    let root = "/1-1.1";
    let all = hub_with_two_adapters().into_iter();
    all.filter(|device| device.syspath.as_str().contains(root))
        .collect()
}

/// The events of plugging it in: all of the kernel, then all of udevd.
fn plugged_in() -> Vec<DeviceEvent> {
    let adapter = adapter();
    let mut events = Vec::new();
    for state in [UdevState::Pending, UdevState::Processed] {
        for (seqnum, device) in (10..).zip(&adapter) {
            events.push(event(device, "add", seqnum, state));
        }
        events.push(event(&adapter[2], "bind", 20, state));
        events.push(event(&adapter[1], "bind", 21, state));
    }
    events
}

const REQUEST: &str = "usb:0403:6001:A";

fn uevents(scenario: &mut Scenario) -> Vec<String> {
    std::mem::take(&mut scenario.container.uevents)
}

/// The events of this adapter in one form.
fn expected(form: &str) -> Vec<String> {
    let events = [
        "add 1-1.1",
        "add 1-1.1:1.0",
        "add ttyUSB0",
        "add ttyUSB0",
        "bind ttyUSB0",
        "bind 1-1.1:1.0",
    ];
    events.map(|event| format!("{form} {event}")).to_vec()
}

#[test]
fn each_event_is_passed_on_once_in_the_form_and_order_of_the_host() {
    let mut scenario = Scenario::new(REQUEST, "");
    for event in plugged_in() {
        scenario.take(event);
    }
    assert_eq!(
        uevents(&mut scenario),
        [expected("kernel"), expected("udev")].concat()
    );
    assert_eq!(scenario.reconcile(), []);
    assert_eq!(uevents(&mut scenario), [""; 0], "nothing has happened");
    let interface = &adapter()[1];
    for (seqnum, action) in (30..).zip(["change", "unbind", "online"]) {
        for state in [UdevState::Pending, UdevState::Processed] {
            scenario.take(event(interface, action, seqnum, state));
        }
        let forms = ["kernel", "udev"].map(|form| format!("{form} {action} 1-1.1:1.0"));
        assert_eq!(uevents(&mut scenario), forms);
    }
}

#[test]
fn events_that_arrive_together_are_all_passed_on_parents_first() {
    let mut scenario = Scenario::new(REQUEST, "");
    for event in plugged_in() {
        scenario.events.extend(Announcement::of_event(&event));
        scenario.inventory.apply(event);
    }
    assert_eq!(scenario.reconcile(), []);
    let uevents = uevents(&mut scenario);
    for form in ["kernel", "udev"] {
        let of_form = uevents.iter().filter(|uevent| uevent.starts_with(form));
        assert_eq!(of_form.cloned().collect::<Vec<_>>(), expected(form));
    }
}

#[test]
fn the_removal_is_announced_once_in_both_forms_children_first() {
    let mut scenario = Scenario::new(REQUEST, "");
    plugged_in().into_iter().for_each(|event| scenario.take(event));
    uevents(&mut scenario);
    let present: Vec<Device> = root_hubs();
    scenario.inventory.replace(present);
    assert_eq!(scenario.reconcile(), []);
    // The `unbind` of udevd comes too late to be received, and that of the kernel in the same
    // batch.
    let nodeless = |name: &str| {
        let events = ["kernel unbind", "kernel remove", "udev unbind", "udev remove"];
        events.map(|event| format!("{event} {name}")).to_vec()
    };
    let node = |name: &str| {
        ["kernel", "udev"]
            .map(|form| format!("{form} remove {name}"))
            .to_vec()
    };
    let expected = [
        node("ttyUSB0"),
        nodeless("ttyUSB0"),
        nodeless("1-1.1:1.0"),
        node("1-1.1"),
    ];
    assert_eq!(uevents(&mut scenario), expected.concat());
    assert_eq!(scenario.reconcile(), []);
    assert_eq!(uevents(&mut scenario), [""; 0]);
    assert!(scenario.is_empty() && scenario.container.announced_devices.is_empty());
}

#[test]
fn devices_below_other_roots_and_of_denied_devices_are_not_announced() {
    let mut scenario = Scenario::new(REQUEST, "");
    scenario.plug(&hub_with_two_adapters());
    let announced = uevents(&mut scenario);
    assert!(
        announced.iter().any(|uevent| uevent.contains("1-1.1:1.0"))
            && !announced
                .iter()
                .any(|uevent| uevent.contains("1-1.2") || uevent.contains("1-1:1.0")),
        "{announced:?}"
    );
    let mut denied = Scenario::new(REQUEST, "");
    denied.admit = |_, _| Decision::Waiting("a lease".into());
    denied.plug(&hub_with_two_adapters());
    assert_eq!(uevents(&mut denied), [""; 0]);
}

#[test]
fn a_device_that_was_there_before_has_one_add_and_no_earlier_event() {
    let mut scenario = Scenario::new("usb:0403:6001:B", "");
    plugged_in().into_iter().for_each(|event| scenario.take(event));
    scenario.plug(&root_hubs());
    assert_eq!(uevents(&mut scenario), [""; 0]);
    let request = REQUEST.parse().unwrap();
    scenario
        .planner
        .add(vec![RequestEntry::new(Origin::Root, request)], Vec::new());
    assert_eq!(scenario.reconcile(), []);
    let of_interface = |uevent: &String| uevent.contains("1-1.1:1.0");
    let announced = uevents(&mut scenario);
    let announced: Vec<&String> = announced.iter().filter(|uevent| of_interface(uevent)).collect();
    assert_eq!(announced, ["kernel add 1-1.1:1.0", "udev add 1-1.1:1.0"]);
}

#[test]
fn an_add_that_is_known_is_not_repeated_unless_a_program_caused_it() {
    let mut scenario = Scenario::new(REQUEST, "");
    scenario.plug(&adapter());
    uevents(&mut scenario);
    let interface = &adapter()[1];
    scenario.take(event(interface, "add", 11, UdevState::Processed));
    assert_eq!(uevents(&mut scenario), [""; 0]);
    let mut triggered = interface.clone();
    triggered.properties.insert("SYNTH_UUID".into(), "0".into());
    scenario.take(event(&triggered, "add", 50, UdevState::Processed));
    assert_eq!(uevents(&mut scenario), ["udev add 1-1.1:1.0"]);
}

#[test]
fn with_ready_udev_both_forms_wait_for_udevd_and_without_udevd_none_waits() {
    let mut waiting = Scenario::new(&format!("{REQUEST};ready=udev"), "");
    let events = plugged_in();
    let (kernel, udev) = events.split_at(events.len() / 2);
    kernel.iter().for_each(|event| waiting.take(event.clone()));
    assert_eq!(uevents(&mut waiting), [""; 0]);
    udev.iter().for_each(|event| waiting.take(event.clone()));
    let of_interface = |scenario: &mut Scenario| -> Vec<String> {
        let all = uevents(scenario).into_iter();
        all.filter(|uevent| uevent.contains("1-1.1:1.0")).collect()
    };
    let all =
        ["kernel add", "udev add", "kernel bind", "udev bind"].map(|event| format!("{event} 1-1.1:1.0"));
    assert_eq!(of_interface(&mut waiting), all);

    let mut without = Scenario::new(REQUEST, "");
    for (seqnum, device) in (10..).zip(&adapter()) {
        without.take(event(device, "add", seqnum, UdevState::NoUdevd));
    }
    without.take(event(&adapter()[1], "bind", 20, UdevState::NoUdevd));
    assert_eq!(of_interface(&mut without), all);
}

#[test]
fn a_device_that_moves_is_the_same_device() {
    let mut scenario = Scenario::new(REQUEST, "");
    let mut adapter = adapter();
    let mut interface = adapter[1].clone();
    interface.syspath = SysPath::new(format!("{}/net/usb0", adapter[1].syspath));
    interface.subsystem = Some("net".into());
    adapter.push(interface.clone());
    scenario.plug(&adapter);
    uevents(&mut scenario);
    let from = interface.syspath.clone();
    interface.syspath = SysPath::new(format!("{}/net/enx0", adapter[1].syspath));
    interface.properties.insert("ACTION".into(), "move".into());
    interface.seqnum = 40;
    scenario
        .container
        .announced_devices
        .follow_move(&from, &interface.syspath);
    scenario.take(DeviceEvent::Moved {
        from,
        device: interface,
    });
    assert_eq!(uevents(&mut scenario), ["udev move enx0"]);
}

#[test]
fn an_unbind_that_was_received_is_not_repeated_and_a_detached_device_stays_bound() {
    let mut scenario = Scenario::new(REQUEST, "");
    plugged_in().into_iter().for_each(|event| scenario.take(event));
    let interface = &adapter()[1];
    scenario.take(event(interface, "unbind", 30, UdevState::Pending));
    scenario.take(event(interface, "unbind", 30, UdevState::Processed));
    uevents(&mut scenario);
    scenario.take(DeviceEvent::Removed {
        syspath: interface.syspath.clone(),
        seqnum: 31,
    });
    let removals = ["kernel", "udev"].map(|form| format!("{form} remove 1-1.1:1.0"));
    assert_eq!(uevents(&mut scenario), removals);
    scenario.planner = Scenario::new("usb:ffff", "").planner;
    assert_eq!(scenario.reconcile(), []);
    let removed = uevents(&mut scenario);
    assert!(
        removed.contains(&"udev remove ttyUSB0".to_owned())
            && !removed.iter().any(|uevent| uevent.contains("unbind")),
        "{removed:?}"
    );
}
