//! Several devices for one path, and nodes of the engine.

use super::*;

#[test]
fn a_node_of_the_engine_is_adopted_and_not_removed() {
    let tree = hub_with_two_adapters();
    let tty = tree
        .iter()
        .find(|device| device.subsystem.as_deref() == Some("tty") && device.node.is_some())
        .unwrap();
    let node = tty.node.clone().unwrap();
    let mut scenario = Scenario::new("subsystem:tty", "");
    scenario.container.theirs.insert(node.path.clone(), node.num);
    scenario.plug(std::slice::from_ref(tty));
    assert!(scenario.container.nodes.is_empty());
    assert_eq!(scenario.container.may(node.num), Access::ALL);
    scenario.unplug(std::slice::from_ref(tty));
    assert!(scenario.container.theirs.contains_key(&node.path));
    assert!(scenario.is_empty());
}

#[test]
fn the_first_device_keeps_a_path_and_the_second_gets_it_afterwards() {
    let tree = hub_with_two_adapters();
    let ttys: Vec<Device> = tree
        .iter()
        .filter(|device| device.subsystem.as_deref() == Some("tty") && device.node.is_some())
        .cloned()
        .collect();
    let mut scenario = Scenario::new("subsystem:tty;path=/dev/board", "");
    // The device whose path is later in order is plugged in first.
    scenario.plug(&ttys[1..]);
    scenario.plug(&ttys[..1]);
    let held = |scenario: &Scenario| {
        scenario
            .attachments
            .get(Path::new("/dev/board"))
            .unwrap()
            .device
            .syspath
            .clone()
    };
    assert_eq!(held(&scenario), ttys[1].syspath);
    assert_eq!(conflicts(&scenario.plan()), 1);
    scenario.unplug(&ttys[1..]);
    assert_eq!(held(&scenario), ttys[0].syspath);
}

#[test]
fn link_and_path_name_the_adapters_tty_and_the_usb_node_has_its_usual_path() {
    for (option, board) in [("link", None), ("path", Some("/dev/board"))] {
        let mut scenario = Scenario::new(&format!("usb:0403:6001:A;{option}=/dev/board"), "");
        let (raw, rest): (Vec<Device>, Vec<Device>) = hub_with_two_adapters()
            .into_iter()
            .partition(|device| device.devtype.as_deref() == Some("usb_device"));
        scenario.plug(&raw);
        // A process that waits for /dev/board must not get the wrong device.
        assert_eq!(scenario.nodes(), ["/dev/bus/usb/001/003"]);
        assert!(scenario.container.links.is_empty());
        scenario.plug(&rest);
        let tty = board.unwrap_or("/dev/ttyUSB0");
        let mut nodes = scenario.nodes();
        nodes.sort();
        let mut wanted = ["/dev/bus/usb/001/003", tty];
        wanted.sort_unstable();
        assert_eq!(nodes, wanted);
        if board.is_none() {
            assert_eq!(
                scenario.container.links[Path::new("/dev/board")],
                Path::new("/dev/ttyUSB0")
            );
        }
        assert_eq!(scenario.plan().not_attached, []);
        scenario.unplug(&hub_with_two_adapters());
        assert!(scenario.is_empty());
    }
}
