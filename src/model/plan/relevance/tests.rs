use proptest::prelude::*;

use super::*;
use crate::model::device::event::DeviceEvent;
use crate::model::device::{DevKind, DevNode, STATIC_NODE, STATIC_NODES, UdevState};
use crate::model::oci::ProcessUser;
use crate::model::request::entry::Origin;
use crate::model::uevent::received::ReceivedUevent;
use crate::model::uevent::{UeventAction, UeventForm, kernel_message, udev_message};

fn planner(requests: &str) -> Planner {
    let requests = crate::model::request::parse_requests(requests).unwrap();
    let entries = requests
        .into_iter()
        .map(|request| RequestEntry::new(Origin::Annotation, request));
    Planner::new(entries.collect(), Vec::new(), ProcessUser::default())
}

fn device(place: &str, subsystem: &str) -> Device {
    let mut device = Device::new(SysPath::new(format!("/sys/devices/{place}")));
    device.subsystem = Some(subsystem.to_owned());
    device.udev_state = UdevState::Processed;
    device
}

fn with_node(mut device: Device, minor: u32) -> Device {
    let kind = match device.subsystem.as_deref() {
        Some("block") => DevKind::Block,
        _ => DevKind::Char,
    };
    device.node = Some(DevNode {
        path: Path::new("/dev").join(device.syspath.name()),
        num: DevNum {
            kind,
            major: 240,
            minor,
        },
    });
    device
}

const USB: &str = "pci0000:00/usb1/1-1";
const TTY: &str = "pci0000:00/usb1/1-1/1-1:1.0/tty/ttyUSB0";

fn usb() -> Device {
    let mut device = with_node(device(USB, "usb"), 1);
    device.devtype = Some("usb_device".into());
    device
}

fn tty() -> Device {
    with_node(device(TTY, "tty"), 2)
}

fn partition() -> Device {
    with_node(device("virtual/block/loop7/loop7p1", "block"), 3)
}

/// Whether an event of a device is relevant in each of the two forms.
fn judged(requests: &str, present: &[Device], action: UeventAction, of: &Device) -> [bool; 2] {
    let inventory = Inventory::new(present.to_vec());
    let mut planner = planner(requests);
    planner.find_roots(&inventory);
    judge(&planner, &inventory, action, of)
}

fn judge(planner: &Planner, inventory: &Inventory, action: UeventAction, of: &Device) -> [bool; 2] {
    let judge = |form, message: Vec<u8>| {
        let message = ReceivedUevent::parse(form, &message).unwrap();
        let facts = UeventFacts::of(form, message).unwrap();
        Relevance::new(planner, inventory, []).concerns(&facts)
    };
    [
        judge(UeventForm::Kernel, kernel_message(action, of, None, Some(7))),
        judge(UeventForm::Udev, udev_message(action, of, None, 7)),
    ]
}

#[test]
fn events_of_devices_that_no_selector_can_match_are_irrelevant() {
    for requests in [
        "usb:0403:6001, port:1-1, pci:0000:02:00.0",
        "devnode:/dev/loop0p1, devnode:/dev/disk/by-id/x",
        "glob:/dev/ttyUSB*, regex:ttyACM[0-9]+",
        "driver:ftdi_sio, subsystem:tty",
        "syspath:/sys/class/tty/ttyUSB0, syspath:/sys/dev/char/188:0",
        "subsystem:tty&!driver:x, parent-of:devnode:/dev/ttyUSB0",
        "node:/dev/x",
    ] {
        for action in [UeventAction::Add, UeventAction::Change, UeventAction::Remove] {
            assert_eq!(
                judged(requests, &[usb(), tty()], action, &partition()),
                [false; 2],
                "{requests}"
            );
        }
    }
}

#[test]
fn what_only_sysfs_or_udevd_knows_makes_every_event_relevant() {
    for requests in ["attr:address=x", "tag:seat"] {
        assert_eq!(
            judged(requests, &[], UeventAction::Add, &partition()),
            [true; 2],
            "{requests}"
        );
    }
    let mut labelled = partition();
    let by_property = |device: &Device| judged("property:ID_X=x", &[], UeventAction::Add, device);
    assert_eq!(by_property(&labelled), [true, false]);
    labelled.properties.insert("ID_X".into(), "x".into());
    assert_eq!(by_property(&labelled), [true, true]);
}

#[test]
fn a_selector_is_compared_with_what_the_message_shows() {
    let mut interface = device("pci0000:00/usb1/1-1/1-1:1.0", "usb");
    interface.devtype = Some("usb_interface".into());
    let card = device("pci0000:00/0000:02:00.0", "pci");
    let mut namesake = card.clone();
    namesake.subsystem = Some("x".into());
    let mut linked = tty();
    linked.links.insert("/dev/by-id/x".into());
    for (request, of, expected) in [
        ("usb:0403:6001", &usb(), [true; 2]),
        ("usb:0403:6001", &interface, [false; 2]),
        ("port:1-1", &usb(), [true; 2]),
        ("port:1-2", &usb(), [false; 2]),
        ("pci:0000:02:00.0", &card, [true; 2]),
        ("pci:0000:02:00.1", &card, [false; 2]),
        ("pci:0000:02:00.0", &namesake, [false; 2]),
        ("devnode:/dev/ttyUSB0", &linked, [true; 2]),
        // Only udevd's message has links.
        ("devnode:/dev/by-id/x", &linked, [false, true]),
        ("devnode:/dev/by-id/y", &linked, [false; 2]),
    ] {
        assert_eq!(judged(request, &[], UeventAction::Add, of), expected, "{request}");
    }
}

#[test]
fn a_path_of_sysfs_is_compared_by_name_or_number_and_otherwise_may_lead_anywhere() {
    let is_relevant = |path: &str| judged(&format!("syspath:{path}"), &[], UeventAction::Add, &tty())[0];
    for path in [
        "/sys/class/tty/ttyUSB0",
        "/sys/dev/char/240:2",
        "/sys/devices/pci0000:00/usb1/1-1/1-1:1.0/tty/ttyUSB0",
        "/sys/class/tty/x/..",
    ] {
        assert!(is_relevant(path), "{path}");
    }
    for path in ["/sys/class/tty/ttyUSB1", "/sys/dev/char/240:3"] {
        assert!(!is_relevant(path), "{path}");
    }
}

#[test]
fn what_is_above_or_below_a_root_or_an_awaited_device_is_relevant() {
    let requests = "devnode:/dev/ttyUSB0";
    assert_eq!(judged(requests, &[], UeventAction::Change, &usb()), [false; 2]);
    assert_eq!(
        judged(requests, &[tty()], UeventAction::Change, &usb()),
        [true; 2]
    );
    assert_eq!(
        judged("port:1-1", &[usb()], UeventAction::Remove, &tty()),
        [true; 2]
    );
    let (planner, inventory) = (planner(requests), Inventory::default());
    let awaited = partition().syspath;
    let message = kernel_message(UeventAction::Change, &partition(), None, Some(7));
    let message = ReceivedUevent::parse(UeventForm::Kernel, &message).unwrap();
    let facts = UeventFacts::of(UeventForm::Kernel, message).unwrap();
    assert!(Relevance::new(&planner, &inventory, [&awaited]).concerns(&facts));
}

#[test]
fn devices_that_a_selector_only_could_match_later_make_nothing_near_them_relevant() {
    let mut unprocessed = tty();
    unprocessed.udev_state = UdevState::Pending;
    let by_link = "devnode:/dev/by-id/x";
    assert_eq!(
        judged(by_link, &[unprocessed], UeventAction::Change, &usb()),
        [false; 2]
    );
    let negated = "subsystem:tty&!driver:x";
    let disk = device("virtual/block/loop7", "block");
    assert_eq!(
        judged(negated, &[disk, tty()], UeventAction::Change, &partition()),
        [false; 2]
    );
}

#[test]
fn an_event_of_the_number_of_a_static_node_is_relevant() {
    let mut node = with_node(device("x", "x"), 9);
    node.syspath = SysPath::new(format!("{STATIC_NODES}/dev/x"));
    node.subsystem = Some(STATIC_NODE.into());
    let with_number = |major: u32, minor: u32| {
        let mut device = with_node(device("virtual/misc/y", "misc"), minor);
        device.node.as_mut().unwrap().num.major = major;
        judged(
            "node:/dev/x",
            std::slice::from_ref(&node),
            UeventAction::Add,
            &device,
        )
    };
    assert_eq!(with_number(240, 9), [true; 2]);
    assert_eq!(with_number(240, 8), [false; 2]);
    assert_eq!(with_number(241, 9), [false; 2]);
}

#[test]
fn usb_devices_are_relevant_beside_a_usb_root_as_each_may_be_the_other_half_of_its_hub() {
    let mut other_half = device("pci0000:00/usb2/2-1", "usb");
    other_half.devtype = Some("usb_device".into());
    assert_eq!(
        judged("port:1-1", &[], UeventAction::Add, &other_half),
        [false; 2]
    );
    assert_eq!(
        judged("port:1-1", &[usb()], UeventAction::Add, &other_half),
        [true; 2]
    );
}

#[test]
fn what_is_below_a_device_of_the_same_batch_is_relevant() {
    let (planner, inventory) = (planner("usb:0403:6001"), Inventory::default());
    let mut relevance = Relevance::new(&planner, &inventory, []);
    let mut concerns = |device: &Device| {
        let message = kernel_message(UeventAction::Add, device, None, Some(7));
        let message = ReceivedUevent::parse(UeventForm::Kernel, &message).unwrap();
        relevance.concerns(&UeventFacts::of(UeventForm::Kernel, message).unwrap())
    };
    assert!(!concerns(&tty()));
    assert!(concerns(&usb()));
    assert!(concerns(&tty()));
    assert!(!concerns(&partition()));
}

#[test]
fn a_link_may_have_moved_if_it_is_named_or_missed() {
    let link = Path::new("/dev/disk/by-label/x").to_owned();
    let mut ours = partition();
    ours.links.insert(link.clone());
    let mut planner = planner("devnode:/dev/loop7p1");
    let mut may_move = |known: &Device, links: &[&Path]| {
        let inventory = Inventory::new([known.clone()]);
        planner.find_roots(&inventory);
        let mut other = with_node(device("virtual/block/loop8", "block"), 9);
        other.links.extend(links.iter().map(|link| link.to_path_buf()));
        let message = udev_message(UeventAction::Change, &other, None, 7);
        let message = ReceivedUevent::parse(UeventForm::Udev, &message).unwrap();
        let facts = UeventFacts::of(UeventForm::Udev, message).unwrap();
        Relevance::new(&planner, &inventory, []).may_move_links(&facts)
    };
    assert!(!may_move(&ours, &[]));
    assert!(!may_move(&ours, &[Path::new("/dev/disk/by-label/y")]));
    assert!(may_move(&ours, &[&link]));
    ours.lost_links = std::mem::take(&mut ours.links);
    assert!(may_move(&ours, &[]), "its owner may have given it up");
}

fn any_device() -> impl Strategy<Value = Device> {
    let place = prop::sample::select(vec![
        (USB, "usb"),
        ("pci0000:00/usb1/1-1/1-1:1.0", "usb"),
        (TTY, "tty"),
        ("virtual/block/loop7", "block"),
        ("virtual/block/loop7/loop7p1", "block"),
        ("virtual/mem/null", "mem"),
        ("pci0000:00", "pci"),
    ]);
    let flags = prop::array::uniform5(any::<bool>());
    (place, flags, 0..3_u32).prop_map(
        |((place, subsystem), [driver, tag, link, property, attribute], minor)| {
            let mut device = device(place, subsystem);
            if place == USB {
                device.devtype = Some("usb_device".into());
                device
                    .attributes
                    .insert("idVendor".into(), if attribute { "0403" } else { "046d" }.into());
                device.attributes.insert("idProduct".into(), "6001".into());
            }
            device.driver = driver.then(|| "x".to_owned());
            if driver {
                device.properties.insert("DRIVER".into(), "x".into());
            }
            device.tags.extend(tag.then(|| "seat".to_owned()));
            if property {
                device.properties.insert("ID_X".into(), "x".into());
            }
            if !place.ends_with("1-1:1.0") && subsystem != "pci" {
                device = with_node(device, minor);
                device.links.extend(link.then(|| "/dev/by-id/x".into()));
            }
            device
        },
    )
}

fn any_request() -> impl Strategy<Value = String> {
    let term = prop::sample::select(vec![
        "usb:0403:6001",
        "port:1-1",
        "driver:x",
        "subsystem:tty",
        "subsystem:block",
        "subsystem:usb",
        "devnode:/dev/ttyUSB0",
        "devnode:/dev/by-id/x",
        "glob:/dev/loop*",
        "regex:by-id/x",
        "syspath:/sys/devices/virtual/block/loop7",
        "tag:seat",
        "property:ID_X=x",
    ]);
    let terms = (term.clone(), prop::collection::vec((any::<bool>(), term), 0..3));
    (0..2_usize, terms).prop_map(|(parents, (first, others))| {
        let others = others
            .into_iter()
            .map(|(negated, term)| format!("&{}{term}", if negated { "!" } else { "" }));
        "parent-of:".repeat(parents) + first + &others.collect::<String>()
    })
}

/// What the requests select, with the facts of it.
fn selected(planner: &mut Planner, inventory: &Inventory) -> Vec<String> {
    planner.find_roots(inventory);
    let candidates = planner.candidates(inventory);
    let describe = |root: &SysPath, device: &Device| format!("{root} {device:?}");
    candidates
        .iter()
        .map(|candidate| describe(candidate.root, candidate.device))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// The one property that makes skipping safe.
    #[test]
    fn an_event_that_changes_what_is_selected_is_relevant(
        present in prop::collection::vec(any_device(), 0..8),
        changed in any_device(),
        request in any_request(),
        is_removed in any::<bool>(),
    ) {
        let mut inventory = Inventory::new(present);
        let mut planner = planner(&request);
        let before = selected(&mut planner, &inventory);
        let action = if is_removed { UeventAction::Remove } else { UeventAction::Add };
        let judged = judge(&planner, &inventory, action, &changed);
        if is_removed {
            inventory.apply(DeviceEvent::Removed { syspath: changed.syspath.clone(), seqnum: 0 });
        } else {
            inventory.apply(DeviceEvent::Added(changed.clone()));
        }
        let after = selected(&mut planner, &inventory);
        prop_assert!(before == after || judged.contains(&true), "{before:#?} {after:#?}");
    }
}
