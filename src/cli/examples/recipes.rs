//! Each request of docs/recipes.md gives exactly the nodes of its device, and none of the similar
//! device beside it.

use std::collections::BTreeSet;

use super::{examples, selected};
use crate::model::device::inventory::Inventory;
use crate::model::device::recorded::recipe_host;

/// A request of a section: the nodes that it gives, below /dev, and a node of a similar device,
/// which it must not give.
type Recipe = (&'static str, &'static str, &'static str);

const SECTIONS: &[(&str, &[Recipe])] = &[
    (
        "Copy a recipe",
        &[(
            "usb:10c4:ea60",
            "bus/usb/001/010 bus/usb/001/011 gpiochip1 ttyUSB0 ttyUSB1",
            "ttyUSB3",
        )],
    ),
    (
        "Zigbee stick: Zigbee2MQTT",
        &[(
            "usb:10c4:ea60&attr:product=Sonoff*;only=subsystem:tty;link=/dev/zigbee",
            "ttyUSB0",
            "ttyUSB1",
        )],
    ),
    (
        "Z-Wave stick: Home Assistant",
        &[
            (
                "usb:0658:0200;only=subsystem:tty;link=/dev/zwave",
                "ttyACM0",
                "ttyACM1",
            ),
            ("usb:10c4:8a2a;only=subsystem:tty", "ttyUSB2 ttyUSB4", "ttyUSB3"),
            (
                "usb:10c4:8a2a:00=/dev/zwave,usb:10c4:8a2a:01=/dev/zigbee",
                "ttyUSB2 ttyUSB4",
                "ttyUSB3",
            ),
            (
                "usb:10c4:8a2a&attr:bInterfaceNumber=01;link=/dev/zigbee",
                "ttyUSB4",
                "ttyUSB2",
            ),
        ],
    ),
    (
        "3D printer: Klipper",
        &[(
            "usb:1d50:614e:1A002B000000123456789012;or=usb:1d50:6177:1A002B000000123456789012;only=subsystem:tty;gid=20;link=/dev/mcu",
            "ttyACM1 ttyACM3",
            "ttyACM2",
        )],
    ),
    (
        "Serial adapter without a serial number: OctoPrint",
        &[(
            "port:1-7;only=subsystem:tty;link=/dev/printer",
            "ttyUSB3",
            "ttyUSB5",
        )],
    ),
    (
        "ESP32 board",
        &[(
            "usb:303a;link=/dev/board",
            "bus/usb/001/019 bus/usb/001/020 ttyACM4 ttyACM5",
            "ttyACM6",
        )],
    ),
    (
        "Arduino and Pico boards",
        &[
            (
                "usb:2341:8036;or=usb:2341:0036;only=subsystem:tty;link=/dev/arduino",
                "ttyACM6 ttyACM7",
                "ttyACM8",
            ),
            (
                "usb:2e8a:0005;or=usb:2e8a:000a;or=usb:2e8a:0003",
                "bus/usb/001/024 bus/usb/001/025 sdb sdb1 ttyACM9",
                "ttyACM10",
            ),
        ],
    ),
    (
        "Debug probe: J-Link",
        &[
            (
                "usb:1366:0105:000123456789;link=/dev/console0",
                "bus/usb/001/027 ttyACM11",
                "ttyACM12",
            ),
            (
                "usb:1366:0105:000123456789;only=subsystem:usb;link=/dev/probe",
                "bus/usb/001/027",
                "bus/usb/001/028",
            ),
        ],
    ),
    (
        "Debug probe: CMSIS-DAP (DAPLink)",
        &[
            (
                "usb:0d28:0204;only=subsystem:usb;only=subsystem:hidraw;only=subsystem:tty",
                "bus/usb/001/029 hidraw0 ttyACM13",
                "sdc",
            ),
            ("usb:0d28:0204:01=/dev/console0", "ttyACM13", "hidraw0"),
        ],
    ),
    (
        "USB camera and Coral TPU: Frigate",
        &[
            (
                "usb:046d:082d;only=property:ID_V4L_CAPABILITIES=*:capture:*;link=/dev/camera",
                "video0",
                "video2",
            ),
            (
                "usb:1a6e:089a;or=usb:18d1:9302",
                "bus/usb/001/032 bus/usb/001/033",
                "bus/usb/001/034",
            ),
        ],
    ),
    (
        "USB disk",
        &[(
            "usb:0781:5581:4C530000000000000001;only=property:DEVTYPE=partition;access=r;path=/dev/stick;required",
            "sdd1",
            "sde1",
        )],
    ),
    (
        "YubiKey",
        &[
            ("usb:1050;only=property:ID_FIDO_TOKEN=1", "hidraw2", "hidraw3"),
            (
                "usb:1050",
                "bus/usb/001/037 hidraw1 hidraw2 input/event6",
                "hidraw3",
            ),
            (
                "usb:1050;only=subsystem:usb",
                "bus/usb/001/037",
                "bus/usb/001/038",
            ),
        ],
    ),
    (
        "Sound card and MIDI",
        &[
            (
                "usb:0d8c:0014;only=subsystem:sound;path=/dev/snd/",
                "snd/controlC2 snd/pcmC2D0c snd/pcmC2D0p",
                "snd/controlC1",
            ),
            (
                "usb:0944:0117;only=subsystem:sound",
                "snd/controlC3 snd/midiC3D0",
                "snd/controlC2",
            ),
        ],
    ),
    (
        "TV tuner (DVB): Tvheadend",
        &[(
            "usb:2040:8265;only=subsystem:dvb;path=/dev/dvb/adapter0/",
            "dvb/adapter1/demux0 dvb/adapter1/dvr0 dvb/adapter1/frontend0 dvb/adapter1/net0 \
             dvb/adapter2/demux0 dvb/adapter2/dvr0 dvb/adapter2/frontend0 dvb/adapter2/net0",
            "dvb/adapter0/frontend0",
        )],
    ),
    (
        "A lab hub with many boards",
        &[
            (
                "port:1-12",
                "bus/usb/001/041 bus/usb/001/042 bus/usb/001/043 ttyACM14 ttyACM15 ttyUSB6",
                "ttyACM0",
            ),
            (
                "parent-of:usb:2b3e:c310",
                "bus/usb/001/041 bus/usb/001/042 bus/usb/001/043 ttyACM14 ttyACM15 ttyUSB6",
                "ttyACM0",
            ),
            (
                "usb:2b3e:c310:1=/dev/ttyBOARD0,usb:2b3e:c310:3=/dev/ttyBOARD1",
                "ttyACM14 ttyACM15",
                "ttyUSB6",
            ),
        ],
    ),
];

#[test]
fn each_recipe_gives_its_device_and_not_the_similar_one_beside_it() {
    let inventory = Inventory::new(recipe_host());
    let all: BTreeSet<String> = inventory
        .iter()
        .filter_map(|device| Some(device.node.as_ref()?.path.display().to_string()))
        .collect();
    let mut faults = Vec::new();
    for (title, recipes) in SECTIONS {
        for (request, nodes, similar) in *recipes {
            let found = selected(request, &inventory).unwrap_or_else(|error| vec![error]);
            let expected: Vec<String> = nodes.split(' ').map(|node| format!("/dev/{node}")).collect();
            if found != expected {
                faults.push(format!("{title}: {request} gives {}", found.join(" ")));
            }
            let similar = format!("/dev/{similar}");
            if !all.contains(&similar) || found.contains(&similar) {
                faults.push(format!("{title}: {similar} is not a node of another device"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_request_of_the_recipes_is_evaluated() {
    let page = include_str!("../../../docs/recipes.md");
    let shown: Vec<(&str, BTreeSet<String>)> = page
        .split("\n## ")
        .map(|section| {
            let title = section.lines().next().unwrap_or_default();
            let mut shown = examples(section);
            // The page shows how the class is defined.
            shown.retain(|example| !example.starts_with("class:"));
            (title.trim_start_matches("# "), shown)
        })
        .collect();
    let evaluated: Vec<(&str, BTreeSet<String>)> = SECTIONS
        .iter()
        .map(|(title, recipes)| (*title, recipes.iter().map(|recipe| recipe.0.to_owned()).collect()))
        .collect();
    assert_eq!(shown, evaluated);
}
