//! Which node `path=`, `link=` and symlink rules name: the same after a hot plug and a cold start,
//! in whatever order the nodes are added.

use super::*;
use crate::model::device::recorded;
use crate::model::device::recorded::Probe;

/// A USB device 1-1 with the ids 1209:0001.
fn device(nodes: &[Probe]) -> Vec<Device> {
    recorded::usb_device_with(nodes)
}

/// Interface, subsystem, sysfs path below the interface, node, DEVTYPE. Interface 255 is the device
/// itself.
type Nodes = &'static [Probe];

const ST_LINK: Nodes = &[
    (
        1,
        "block",
        "host7/target7:0:0/7:0:0:0/block/sdb",
        "/dev/sdb",
        "disk",
    ),
    (
        1,
        "block",
        "host7/target7:0:0/7:0:0:0/block/sdb/sdb1",
        "/dev/sdb1",
        "partition",
    ),
    (
        1,
        "scsi_generic",
        "host7/target7:0:0/7:0:0:0/scsi_generic/sg1",
        "/dev/sg1",
        "",
    ),
    (2, "tty", "tty/ttyACM0", "/dev/ttyACM0", ""),
];

const PAD: Nodes = &[
    (0, "sound", "sound/card1/pcmC1D0p", "/dev/snd/pcmC1D0p", ""),
    (
        3,
        "hidraw",
        "0003:054C:0CE6.0007/hidraw/hidraw5",
        "/dev/hidraw5",
        "",
    ),
    (
        3,
        "input",
        "0003:054C:0CE6.0007/input/input43/js0",
        "/dev/input/js0",
        "",
    ),
    (
        3,
        "input",
        "0003:054C:0CE6.0007/input/input43/event9",
        "/dev/input/event9",
        "",
    ),
    (
        3,
        "input",
        "0003:054C:0CE6.0007/input/input44/event10",
        "/dev/input/event10",
        "",
    ),
    (
        3,
        "input",
        "0003:054C:0CE6.0007/input/input45/mouse0",
        "/dev/input/mouse0",
        "",
    ),
];

const TUNER: Nodes = &[
    (255, "dvb", "dvb/dvb0.demux0", "/dev/dvb/adapter0/demux0", ""),
    (
        255,
        "dvb",
        "dvb/dvb0.frontend0",
        "/dev/dvb/adapter0/frontend0",
        "",
    ),
    (255, "i2c-dev", "i2c-8/i2c-dev/i2c-8", "/dev/i2c-8", ""),
    (0, "video4linux", "video4linux/swradio0", "/dev/swradio0", ""),
    (255, "lirc", "rc/rc0/lirc0", "/dev/lirc0", ""),
    (255, "input", "rc/rc0/input9/event8", "/dev/input/event8", ""),
];

const MODEM: Nodes = &[
    (0, "tty", "ttyUSB10/tty/ttyUSB10", "/dev/ttyUSB10", ""),
    (1, "tty", "ttyUSB2/tty/ttyUSB2", "/dev/ttyUSB2", ""),
    (2, "tty", "ttyUSB3/tty/ttyUSB3", "/dev/ttyUSB3", ""),
    (4, "usbmisc", "usbmisc/cdc-wdm0", "/dev/cdc-wdm0", ""),
];

const CAMERA: Nodes = &[
    (0, "video4linux", "video4linux/video9", "/dev/video9", ""),
    (0, "video4linux", "video4linux/video10", "/dev/video10", ""),
    (255, "media", "media1", "/dev/media1", ""),
    (0, "input", "input/input13/event7", "/dev/input/event7", ""),
    (2, "sound", "sound/card2/controlC2", "/dev/snd/controlC2", ""),
];

const HEADSET: Nodes = &[
    (0, "sound", "sound/card1/pcmC1D0c", "/dev/snd/pcmC1D0c", ""),
    (0, "sound", "sound/card1/controlC1", "/dev/snd/controlC1", ""),
    (
        3,
        "input",
        "0003:0D8C:0014.0001/input/input7/event7",
        "/dev/input/event7",
        "",
    ),
    (
        3,
        "hidraw",
        "0003:0D8C:0014.0001/hidraw/hidraw1",
        "/dev/hidraw1",
        "",
    ),
];

const UPS: Nodes = &[
    (
        0,
        "hidraw",
        "0003:051D:0002.0001/hidraw/hidraw0",
        "/dev/hidraw0",
        "",
    ),
    (0, "usbmisc", "usbmisc/hiddev0", "/dev/usb/hiddev0", ""),
];

const KEY: Nodes = &[(
    0,
    "hidraw",
    "0003:1050:0120.0001/hidraw/hidraw0",
    "/dev/hidraw0",
    "",
)];

const PRINTER: Nodes = &[(1, "usbmisc", "usbmisc/lp0", "/dev/usb/lp0", "")];

const TABLET: Nodes = &[
    (
        0,
        "hidraw",
        "0003:0627:0001.0001/hidraw/hidraw0",
        "/dev/hidraw0",
        "",
    ),
    (
        0,
        "input",
        "0003:0627:0001.0001/input/input3/mouse1",
        "/dev/input/mouse1",
        "",
    ),
    (
        0,
        "input",
        "0003:0627:0001.0001/input/input3/event3",
        "/dev/input/event3",
        "",
    ),
];

/// The nodes of a device, and which of them `link=` names.
const DEVICES: [(Nodes, &str); 10] = [
    (ST_LINK, "/dev/ttyACM0"),
    (PAD, "/dev/input/event9"),
    (TUNER, "/dev/dvb/adapter0/frontend0"),
    (MODEM, "/dev/ttyUSB10"),
    (CAMERA, "/dev/video9"),
    (HEADSET, "/dev/snd/controlC1"),
    (UPS, "/dev/usb/hiddev0"),
    (KEY, "/dev/hidraw0"),
    (PRINTER, "/dev/usb/lp0"),
    (TABLET, "/dev/input/event3"),
];

fn link_of(scenario: &Scenario, link: &str) -> Option<String> {
    let target = scenario.container.links.get(Path::new(link))?;
    Some(target.display().to_string())
}

/// A container that starts with the device present.
fn cold_start(requests: &str, rules: &str, tree: &[Device]) -> Scenario {
    let mut scenario = Scenario::new(requests, rules);
    scenario.inventory.replace(tree.to_vec());
    assert_eq!(scenario.reconcile(), []);
    scenario
}

/// Case README 24.
#[test]
fn a_link_names_the_first_class_that_a_device_has() {
    for (nodes, expected) in DEVICES {
        let scenario = cold_start("usb:1209:0001;link=/dev/board", "", &device(nodes));
        assert_eq!(link_of(&scenario, "/dev/board").as_deref(), Some(expected));
    }
    for (only, nodes, expected) in [
        ("only=subsystem:input", PAD, "/dev/input/event9"),
        ("only=subsystem:block", ST_LINK, "/dev/sdb"),
        ("only=property:DEVTYPE=partition", ST_LINK, "/dev/sdb1"),
        ("only=subsystem:hidraw", TABLET, "/dev/hidraw0"),
        ("only=subsystem:i2c-dev", TUNER, "/dev/i2c-8"),
        ("only=subsystem:usb;only=subsystem:i2c-dev", TUNER, "/dev/i2c-8"),
    ] {
        let request = format!("usb:1209:0001;{only};link=/dev/board");
        let scenario = cold_start(&request, "", &device(nodes));
        assert_eq!(
            link_of(&scenario, "/dev/board").as_deref(),
            Some(expected),
            "{only}"
        );
    }
}

/// Case README 4.
#[test]
fn a_symlink_rule_names_hidraw_only_and_printer_devices_and_prefers_the_drivers_node() {
    for (nodes, interface, expected) in [
        (KEY, "00", Some("/dev/hidraw0")),
        (PRINTER, "01", Some("/dev/usb/lp0")),
        (TABLET, "00", Some("/dev/input/event3")),
        (PAD, "03", Some("/dev/input/event9")),
        (MODEM, "02", Some("/dev/ttyUSB3")),
        (MODEM, "04", Some("/dev/cdc-wdm0")),
        (CAMERA, "00", Some("/dev/video9")),
        (MODEM, "03", None),
    ] {
        let rule = format!("usb:1209:0001:{interface}=/dev/mine");
        let mut scenario = cold_start("usb:1209:0001", &rule, &device(nodes));
        assert_eq!(link_of(&scenario, "/dev/mine").as_deref(), expected, "{rule}");
        assert_eq!(conflicts(&scenario.plan()), 0);
    }
}

/// A device on a hub, beside the one that has the link.
#[test]
fn a_link_stays_with_its_device_until_a_device_of_a_better_class_comes() {
    let mut scenario = Scenario::new("usb:2109:2813;link=/dev/board", "");
    let tree = hub_with_two_adapters();
    let (second, rest): (Vec<Device>, Vec<Device>) = tree
        .iter()
        .cloned()
        .partition(|device| device.syspath.as_str().contains("/1-1.2"));
    scenario.plug(&root_hubs());
    let (first, hub): (Vec<Device>, Vec<Device>) = rest
        .into_iter()
        .partition(|device| device.syspath.as_str().contains("/1-1.1"));
    scenario.plug(&hub);
    scenario.plug(&second);
    assert_eq!(link_of(&scenario, "/dev/board").as_deref(), Some("/dev/ttyUSB1"));
    scenario.plug(&first);
    assert_eq!(link_of(&scenario, "/dev/board").as_deref(), Some("/dev/ttyUSB1"));
    scenario.unplug(&second);
    assert_eq!(link_of(&scenario, "/dev/board").as_deref(), Some("/dev/ttyUSB0"));
}

/// Leaves ttys undecided, as while udevd has not processed them.
fn await_ttys(_: &RequestEntry, device: &Device) -> Decision {
    if device.subsystem.as_deref() == Some("tty") {
        Decision::Pending(device.syspath.clone())
    } else {
        Decision::Admitted
    }
}

#[test]
fn a_name_stays_free_for_a_better_pending_node_unless_a_worse_one_has_it_already() {
    let tree = device(ST_LINK);
    let request = "usb:1209:0001;link=/dev/board";
    let mut scenario = Scenario::new(request, "");
    scenario.admit = await_ttys;
    scenario.inventory.replace(tree.clone());
    assert_eq!(scenario.reconcile(), []);
    assert_eq!(link_of(&scenario, "/dev/board"), None);

    let (ttys, rest): (Vec<Device>, Vec<Device>) = tree
        .into_iter()
        .partition(|device| device.subsystem.as_deref() == Some("tty"));
    let mut scenario = Scenario::new(request, "");
    scenario.admit = await_ttys;
    scenario.plug(&rest);
    scenario.plug(&ttys);
    assert_eq!(link_of(&scenario, "/dev/board").as_deref(), Some("/dev/sdb"));
    scenario.admit = admit_all;
    assert_eq!(scenario.reconcile(), []);
    assert_eq!(link_of(&scenario, "/dev/board").as_deref(), Some("/dev/ttyACM0"));
}

fn any_arrival() -> impl Strategy<Value = (usize, Vec<usize>, Vec<bool>)> {
    let orders = Just((0..16).collect::<Vec<usize>>()).prop_shuffle();
    (0..DEVICES.len(), orders, prop::collection::vec(any::<bool>(), 16))
}

proptest! {
    /// Case README 24. Case README 4.
    #[test]
    fn links_do_not_depend_on_the_order_in_which_nodes_are_added(
        (which, order, udevd_is_prompt) in any_arrival(),
        option in prop::sample::select(&["link", "path"][..]),
    ) {
        let tree = device(DEVICES[which].0);
        let (nodes, rest): (Vec<Device>, Vec<Device>) =
            tree.iter().cloned().partition(|device| device.node.is_some());
        let request = format!("usb:1209:0001;{option}=/dev/board");
        let rules: Vec<String> = (0..5).map(|number| format!("usb:1209:0001:{number:02x}=/dev/if{number}")).collect();
        let rules = rules.join(",");
        let mut scenario = Scenario::new(&request, &rules);
        scenario.plug(&rest.iter().cloned().map(before_udev).collect::<Vec<_>>());
        let order: Vec<usize> = order.into_iter().filter(|index| *index < nodes.len()).collect();
        for index in &order {
            scenario.plug(&[before_udev(nodes[*index].clone())]);
            if udevd_is_prompt[*index] {
                scenario.plug(&[nodes[*index].clone()]);
            }
        }
        for index in order.iter().rev() {
            scenario.plug(&[nodes[*index].clone()]);
        }
        let cold = cold_start(&request, &rules, &tree);
        prop_assert_eq!(&scenario.container.links, &cold.container.links);
        prop_assert_eq!(&scenario.container.nodes, &cold.container.nodes);
        prop_assert_eq!(conflicts(&scenario.plan()), 0);
        if option == "link" {
            let named = link_of(&scenario, "/dev/board");
            prop_assert_eq!(named.as_deref(), Some(DEVICES[which].1));
        }
    }
}

#[test]
fn a_node_keeps_its_name_while_a_better_one_waits_for_another_container() {
    let devices = device(&[
        (
            0,
            "hidraw",
            "0003:1209:0001.0001/hidraw/hidraw0",
            "/dev/hidraw0",
            "",
        ),
        (0, "tty", "tty/ttyACM0", "/dev/ttyACM0", ""),
    ]);
    let (tty, others): (Vec<Device>, Vec<Device>) = devices
        .into_iter()
        .partition(|device| device.subsystem.as_deref() == Some("tty"));
    let number =
        |devices: &[Device], path: &str| recorded::with_node(devices, path).node.as_ref().unwrap().num;
    let (of_keys, of_tty) = (number(&others, "/dev/hidraw0"), number(&tty, "/dev/ttyACM0"));
    let board = Path::new("/dev/board");
    for (request, symlinks) in [
        ("usb:1209:0001;path=/dev/board", ""),
        ("usb:1209:0001;link=/dev/board", ""),
        ("usb:1209:0001", "usb:1209:0001:0=/dev/board"),
    ] {
        let mut scenario = Scenario::new(request, symlinks);
        // The node at the path, or the one that the link points to.
        let named = |scenario: &Scenario| {
            let container = &scenario.container;
            let path = container
                .links
                .get(board)
                .map_or(board, |target| target.as_path());
            container.nodes.get(path).map(|node| node.num)
        };
        scenario.plug(&others);
        assert_eq!(named(&scenario), Some(of_keys), "{request} {symlinks}");
        let tty_waits = |_: &RequestEntry, device: &Device| match device.subsystem.as_deref() {
            Some("tty") => Decision::Waiting("another has it".into()),
            _ => Decision::Admitted,
        };
        scenario.admit = tty_waits;
        scenario.plug(&tty);
        assert_eq!(named(&scenario), Some(of_keys), "{request} {symlinks}");
        scenario.admit = admit_all;
        assert_eq!(scenario.reconcile(), []);
        assert_eq!(named(&scenario), Some(of_tty), "{request} {symlinks}");
        // The better node is removed for a time: a process that waits for the name must not get the
        // worse one in the meantime.
        scenario.admit = tty_waits;
        assert_eq!(scenario.reconcile(), []);
        assert_eq!(named(&scenario), None, "{request} {symlinks}");
    }
}
