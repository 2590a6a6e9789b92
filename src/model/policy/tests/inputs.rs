//! Keyboards, mice and touchpads, and devices that only resemble one.

use super::*;

/// Case README 3. Case README 22.
#[test]
fn a_device_with_keys_that_is_neither_keyboard_nor_pointer_is_not_protected() {
    for node in [
        // DualShock 3: a joystick with ID_INPUT_KEY.
        "/dev/input/event9",
        "/dev/input/js1",
        "/dev/input/event10",
        "/dev/hidraw3",
        "/dev/bus/usb/001/007",
        // DualSense: only the nodes of its touchpad are protected.
        "/dev/input/event11",
        "/dev/input/js2",
        "/dev/input/event12",
        "/dev/hidraw4",
        "/dev/snd/controlC1",
        "/dev/bus/usb/001/008",
        // Xbox Series, and the pad of an Elite.
        "/dev/input/event14",
        "/dev/input/js3",
        "/dev/bus/usb/001/009",
        "/dev/input/event15",
        "/dev/input/js4",
        // A camera's button, a headset's volume keys.
        "/dev/input/event17",
        "/dev/video0",
        "/dev/bus/usb/001/011",
        "/dev/input/event18",
        "/dev/hidraw6",
        "/dev/bus/usb/001/012",
        // The FIDO interface of a security key.
        "/dev/hidraw8",
    ] {
        assert_eq!(told(&Policy::default(), node), "allowed", "{node}");
    }
}

/// Case README 22.
#[test]
fn a_touchpad_is_allowed_only_beside_a_joystick() {
    let mut devices = dualsense();
    for device in &mut devices {
        if device.attribute("capabilities") == Some("joystick") {
            device.attributes.insert("capabilities".into(), "other".into());
        }
    }
    let entry = untrusted("usb:054c");
    let of = ContainerTraits::default();
    let told = |node: &str| told_among(&Policy::default(), &entry, node, &of, devices.clone());
    assert_eq!(told("/dev/hidraw4"), "protected: seat-input");
    assert_eq!(told("/dev/bus/usb/001/008"), "protected: seat-input");
}

/// Case README 22.
#[test]
fn the_kernel_recognizes_a_keyboard_before_udevd_and_without_it() {
    let of = ContainerTraits::default();
    let entry = untrusted("subsystem:input");
    let told = |node: &str, udev_state, change: &dyn Fn(&mut Device)| {
        let mut devices: Vec<Device> = host().into_iter().map(before_udev).collect();
        for device in &mut devices {
            device.udev_state = udev_state;
            change(device);
        }
        told_among(&Policy::default(), &entry, node, &of, devices)
    };
    let as_it_is = |_: &mut Device| {};
    for udev_state in [UdevState::Pending, UdevState::Overdue, UdevState::NoUdevd] {
        for node in [
            "/dev/input/event7",
            "/dev/hidraw0",
            "/dev/bus/usb/001/005",
            "/dev/input/event13",
        ] {
            assert_eq!(
                told(node, udev_state, &as_it_is),
                "protected: seat-input",
                "{node} {udev_state:?}"
            );
        }
    }
    // udevd may still classify as a keyboard what the kernel classifies as a joystick. Where no
    // udevd runs, that cannot happen.
    for node in [
        "/dev/input/event8",
        "/dev/hidraw1",
        "/dev/input/event17",
        "/dev/input/event9",
    ] {
        assert!(
            told(node, UdevState::Pending, &as_it_is).starts_with("waits for event"),
            "{node}"
        );
        assert_eq!(
            told(node, UdevState::Overdue, &as_it_is),
            "protected: seat-input",
            "{node}"
        );
        assert_eq!(told(node, UdevState::NoUdevd, &as_it_is), "allowed", "{node}");
        let unreadable = |device: &mut Device| device.attributes.clear();
        assert_eq!(
            told(node, UdevState::NoUdevd, &unreadable),
            "protected: seat-input",
            "{node}"
        );
    }
    // A udev rule may classify as a keyboard what the kernel does not.
    let told_by_udev = |device: &mut Device| {
        device.properties.insert("ID_INPUT_KEYBOARD".into(), "1".into());
    };
    assert_eq!(
        told("/dev/input/event8", UdevState::Processed, &told_by_udev),
        "protected: seat-input"
    );
}

#[test]
fn an_input_waits_for_udevd_and_is_denied_where_it_is_not_classified() {
    let mut devices: Vec<Device> = host();
    let entry = untrusted("subsystem:input");
    let of = ContainerTraits::default();
    for device in &mut devices {
        if device.subsystem.as_deref() == Some("input") {
            *device = before_udev(device.clone());
        }
    }
    let told =
        |node: &str, devices: &[Device]| told_among(&Policy::default(), &entry, node, &of, devices.to_vec());
    assert_eq!(told("/dev/input/event8", &devices), "waits for event8");
    // The hidraw node is classified as soon as the event nodes of its device are.
    assert_eq!(told("/dev/hidraw1", &devices), "waits for event8");
    // The USB node is classified at once, by the descriptors.
    assert_eq!(told("/dev/bus/usb/001/005", &devices), "protected: seat-input");
    // Other HID devices are classified by their inputs only.
    assert_eq!(told("/dev/bus/usb/001/006", &devices), "waits for event8");
    for device in &mut devices {
        device.udev_state = UdevState::Processed;
        device.attributes.remove("capabilities");
    }
    assert_eq!(
        told("/dev/input/event8", &devices),
        "protected: seat-input",
        "neither the kernel nor udevd has said what it is"
    );
}

/// Case README 22.
#[test]
fn a_touchpad_according_to_udev_is_one_unless_the_kernel_knows_that_it_is_a_gamepads() {
    let told = |tree: Vec<Device>, name: &str, node: &str| {
        let mut devices = tree;
        for device in &mut devices {
            if device.syspath.name() == name {
                device.properties.insert("ID_INPUT_TOUCHPAD".into(), "1".into());
            }
        }
        let entry = untrusted("subsystem:input");
        told_among(
            &Policy::default(),
            &entry,
            node,
            &ContainerTraits::default(),
            devices,
        )
    };
    // The pad's own touchpad, and a second one that only udev classifies as one: the motion
    // sensors.
    assert_eq!(told(dualsense(), "event13", "/dev/hidraw4"), "allowed");
    assert_eq!(
        told(dualsense(), "event12", "/dev/hidraw4"),
        "protected: seat-input"
    );
    assert_eq!(
        told(joystick(), "event8", "/dev/input/event8"),
        "protected: seat-input"
    );
}

#[test]
fn an_input_is_classified_by_whichever_of_kernel_and_udev_knows_it() {
    let told = |is_known_to_kernel: bool, is_known_to_udev: bool| {
        let mut devices = joystick();
        for device in &mut devices {
            if !is_known_to_kernel {
                device.attributes.remove("capabilities");
            }
            device.properties.retain(|key, _| !key.starts_with("ID_INPUT"));
            if is_known_to_udev {
                device.properties.insert("ID_INPUT".into(), "1".into());
                device.properties.insert("ID_INPUT_JOYSTICK".into(), "1".into());
            }
        }
        let entry = untrusted("subsystem:input");
        let of = ContainerTraits::default();
        told_among(&Policy::default(), &entry, "/dev/input/event8", &of, devices)
    };
    assert_eq!(told(true, true), "allowed");
    assert_eq!(told(true, false), "allowed");
    assert_eq!(told(false, true), "allowed");
    assert_eq!(told(false, false), "protected: seat-input");
}

#[test]
fn a_usb_device_without_a_keyboard_or_mouse_does_not_wait_for_udevd() {
    let devices: Vec<Device> = host().into_iter().map(before_udev).collect();
    let entry = untrusted("usb:0403");
    let of = ContainerTraits::default();
    let told = |node: &str, devices| told_among(&Policy::default(), &entry, node, &of, devices);
    assert_eq!(told("/dev/bus/usb/001/003", devices.clone()), "allowed");
    // A hub with a HID interface is a hub, whatever the interface reports.
    let mut with_hid_hub = devices;
    for device in &mut with_hid_hub {
        if device.syspath.name() == "1-1" {
            device
                .attributes
                .insert("descriptors".into(), "09:0300:0900".into());
        }
    }
    assert_eq!(told("/dev/bus/usb/001/002", with_hid_hub), "protected: usb-hub");
}

#[test]
fn an_input_that_is_overdue_at_udevd_counts_as_a_keyboard_and_the_denial_says_so() {
    let devices: Vec<Device> = host()
        .into_iter()
        .map(|device| Device {
            udev_state: UdevState::Overdue,
            ..before_udev(device)
        })
        .collect();
    let host = Host::new(devices);
    let (policy, entry) = (Policy::default(), untrusted("subsystem:input"));
    let denial = host.setup().denial(&policy, &entry, "/dev/input/event8");
    let ends = format!(
        "(udevd has not processed {}, which counts as protected until then)",
        with_node(&host.devices, "/dev/input/event8").syspath
    );
    assert!(denial.reason.ends_with(&ends), "{}", denial.reason);
    // The kernel classifies this one as a keyboard.
    let denial = host.setup().denial(&policy, &entry, "/dev/input/event7");
    assert!(!denial.reason.contains("udevd"), "{}", denial.reason);
}
