mod properties;

use super::*;
use crate::model::device::recorded::{self, Probe, usb_device_with};
use crate::model::oci::ProcessUser;
use crate::model::plan::{NotAttached, Planner, Reason, Step, plan_without_restrictions};
use crate::model::request::entry::{Origin, RequestEntry};

const DIRECTORY: &str = "/dev/own/";

/// A container with one request, whose steps are carried out.
struct Container {
    planner: Planner,
    attachments: Attachments,
    not_attached: Vec<NotAttached>,
}

impl Container {
    fn new(request: &str) -> Self {
        let entry = RequestEntry::new(Origin::Root, request.parse().unwrap());
        Self {
            planner: Planner::new(vec![entry], Vec::new(), ProcessUser::default()),
            attachments: Attachments::default(),
            not_attached: Vec::new(),
        }
    }

    /// The paths inside with the host's paths, after these devices are all that the host has.
    fn with(&mut self, devices: &[Device]) -> Vec<(String, String)> {
        let inventory = Inventory::new(devices.to_vec());
        self.planner.find_roots(&inventory);
        let plan = plan_without_restrictions(&self.planner, &inventory, &self.attachments);
        for step in plan.steps {
            match step {
                Step::AddNode { path, attachment } => self.attachments.insert(path, *attachment),
                Step::RemoveNode { path } => {
                    self.attachments.remove(&path);
                }
                _ => {}
            }
        }
        self.not_attached = plan.not_attached;
        let text = |path: &Path| path.display().to_string();
        let attached = self.attachments.iter();
        attached
            .map(|(path, attachment)| (text(path), text(&attachment.device.node.as_ref().unwrap().path)))
            .collect()
    }

    /// The same in a watcher that has only the notes of the one before it.
    fn restarted(&self, request: &str) -> Self {
        let notes = serde_json::to_string(&self.attachments).unwrap();
        Self {
            attachments: serde_json::from_str(&notes).unwrap(),
            ..Self::new(request)
        }
    }
}

/// The names in the directory, with the host's paths of their nodes.
fn names(options: &str, devices: &[Device]) -> Vec<(String, String)> {
    let inside = Container::new(&format!("usb:1209:0001;path={DIRECTORY}{options}")).with(devices);
    let names = inside.into_iter();
    names
        .filter_map(|(path, host)| Some((path.strip_prefix(DIRECTORY)?.to_owned(), host)))
        .collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    let pairs = expected.iter();
    pairs
        .map(|(name, host)| ((*name).to_owned(), (*host).to_owned()))
        .collect()
}

const TUNER: [Probe; 4] = [
    (255, "dvb", "dvb/dvb1.demux0", "/dev/dvb/adapter1/demux0", ""),
    (255, "dvb", "dvb/dvb1.dvr0", "/dev/dvb/adapter1/dvr0", ""),
    (
        255,
        "dvb",
        "dvb/dvb1.frontend0",
        "/dev/dvb/adapter1/frontend0",
        "",
    ),
    (255, "dvb", "dvb/dvb1.net0", "/dev/dvb/adapter1/net0", ""),
];

/// Case README 7.
#[test]
fn all_nodes_of_a_tuner_are_in_the_directory() {
    let mut container = Container::new("usb:1209:0001;path=/dev/dvb/adapter0/");
    let inside = container.with(&usb_device_with(&TUNER));
    let expected = [
        ("/dev/bus/usb/001/009", "/dev/bus/usb/001/009"),
        ("/dev/dvb/adapter0/demux0", "/dev/dvb/adapter1/demux0"),
        ("/dev/dvb/adapter0/dvr0", "/dev/dvb/adapter1/dvr0"),
        ("/dev/dvb/adapter0/frontend0", "/dev/dvb/adapter1/frontend0"),
        ("/dev/dvb/adapter0/net0", "/dev/dvb/adapter1/net0"),
    ];
    assert_eq!(inside, pairs(&expected), "the raw node stays where libusb looks");
}

#[test]
fn a_second_adapter_of_a_tuner_continues_the_numbers() {
    let mut nodes = TUNER.to_vec();
    nodes.extend([
        (255, "dvb", "dvb/dvb2.demux0", "/dev/dvb/adapter2/demux0", ""),
        (
            255,
            "dvb",
            "dvb/dvb2.frontend0",
            "/dev/dvb/adapter2/frontend0",
            "",
        ),
        (255, "i2c-dev", "i2c-7/i2c-dev/i2c-7", "/dev/i2c-7", ""),
        (255, "rc", "rc/rc3/lirc3", "/dev/lirc3", ""),
    ]);
    let expected = [
        ("demux0", "/dev/dvb/adapter1/demux0"),
        ("demux1", "/dev/dvb/adapter2/demux0"),
        ("dvr0", "/dev/dvb/adapter1/dvr0"),
        ("frontend0", "/dev/dvb/adapter1/frontend0"),
        ("frontend1", "/dev/dvb/adapter2/frontend0"),
        ("i2c-0", "/dev/i2c-7"),
        ("lirc0", "/dev/lirc3"),
        ("net0", "/dev/dvb/adapter1/net0"),
    ];
    assert_eq!(names("", &usb_device_with(&nodes)), pairs(&expected));
}

/// The nodes of a USB sound card, and of its keys, when it is this card of the host.
fn sound_card(card: u32) -> Vec<Device> {
    let nodes: &[Probe] = match card {
        1 => &[
            (0, "sound", "sound/card1/controlC1", "/dev/snd/controlC1", ""),
            (0, "sound", "sound/card1/pcmC1D0c", "/dev/snd/pcmC1D0c", ""),
            (0, "sound", "sound/card1/pcmC1D0p", "/dev/snd/pcmC1D0p", ""),
            (0, "sound", "sound/card1/pcmC1D1p", "/dev/snd/pcmC1D1p", ""),
            (0, "sound", "sound/card1/midiC1D0", "/dev/snd/midiC1D0", ""),
            (3, "input", "0003:1/input/input7/event5", "/dev/input/event5", ""),
        ],
        _ => &[
            (0, "sound", "sound/card2/controlC2", "/dev/snd/controlC2", ""),
            (0, "sound", "sound/card2/pcmC2D0c", "/dev/snd/pcmC2D0c", ""),
            (0, "sound", "sound/card2/pcmC2D0p", "/dev/snd/pcmC2D0p", ""),
            (0, "sound", "sound/card2/pcmC2D1p", "/dev/snd/pcmC2D1p", ""),
            (0, "sound", "sound/card2/midiC2D0", "/dev/snd/midiC2D0", ""),
            (3, "input", "0003:2/input/input9/event8", "/dev/input/event8", ""),
        ],
    };
    usb_device_with(nodes)
}

#[test]
fn a_sound_card_that_returns_with_another_number_is_still_card_0() {
    let mut container = Container::new("usb:1209:0001;only=subsystem:sound;path=/dev/snd/");
    for (card, name) in [(1, "C1"), (2, "C2"), (1, "C1")] {
        let at = |inside: &str, host: &str| (format!("/dev/snd/{inside}"), format!("/dev/snd/{host}"));
        let expected = ["controlC0", "midiC0D0", "pcmC0D0c", "pcmC0D0p", "pcmC0D1p"]
            .map(|inside| at(inside, &inside.replace("C0", name)));
        // From one card to the other without a plan in between.
        assert_eq!(container.with(&sound_card(card)), expected);
    }
    assert_eq!(container.with(&[]), []);
    let keys = names(";only=subsystem:input", &sound_card(2));
    assert_eq!(keys, pairs(&[("event0", "/dev/input/event8")]));
}

#[test]
fn two_sound_cards_of_one_device_have_one_number_each() {
    let nodes = [
        (0, "sound", "sound/card4/controlC4", "/dev/snd/controlC4", ""),
        (2, "sound", "sound/card2/controlC2", "/dev/snd/controlC2", ""),
        // Only the second card has it, and it has the number of that card.
        (2, "sound", "sound/card2/midiC2D0", "/dev/snd/midiC2D0", ""),
    ];
    let expected = [
        ("controlC0", "/dev/snd/controlC4"),
        ("controlC1", "/dev/snd/controlC2"),
        ("midiC1D0", "/dev/snd/midiC2D0"),
    ];
    assert_eq!(names("", &usb_device_with(&nodes)), pairs(&expected));
}

#[test]
fn the_nodes_of_a_tape_drive_have_one_number() {
    let nodes: [Probe; 4] = [
        (
            0,
            "scsi_tape",
            "host7/target7:0:0/7:0:0:0/scsi_tape/nst1",
            "/dev/nst1",
            "",
        ),
        (
            0,
            "scsi_tape",
            "host7/target7:0:0/7:0:0:0/scsi_tape/nst1a",
            "/dev/nst1a",
            "",
        ),
        (
            0,
            "scsi_tape",
            "host7/target7:0:0/7:0:0:0/scsi_tape/st1",
            "/dev/st1",
            "",
        ),
        (
            0,
            "scsi_generic",
            "host7/target7:0:0/7:0:0:0/scsi_generic/sg3",
            "/dev/sg3",
            "",
        ),
    ];
    let expected = [
        ("nst0", "/dev/nst1"),
        ("nst0a", "/dev/nst1a"),
        ("sg0", "/dev/sg3"),
        ("st0", "/dev/st1"),
    ];
    assert_eq!(names("", &usb_device_with(&nodes)), pairs(&expected));
}

#[test]
fn serial_ports_are_in_the_order_of_their_interfaces() {
    let nodes = [
        (10, "tty", "ttyUSB3/tty/ttyUSB3", "/dev/ttyUSB3", ""),
        (2, "tty", "ttyUSB7/tty/ttyUSB7", "/dev/ttyUSB7", ""),
        (4, "usbmisc", "usbmisc/cdc-wdm2", "/dev/cdc-wdm2", ""),
    ];
    let expected = [
        ("cdc-wdm0", "/dev/cdc-wdm2"),
        ("ttyUSB0", "/dev/ttyUSB7"),
        ("ttyUSB1", "/dev/ttyUSB3"),
    ];
    let devices = usb_device_with(&nodes);
    assert_eq!(names("", &devices), pairs(&expected));
    // What a request selects changes no name.
    let second = names(";only=devnode:/dev/ttyUSB3", &devices);
    assert_eq!(second, pairs(&expected[2..]));
}

#[test]
fn the_nodes_of_cameras_disks_and_controllers_have_numbers_from_0() {
    let camera = [
        (0, "video4linux", "video4linux/video2", "/dev/video2", ""),
        (0, "video4linux", "video4linux/video3", "/dev/video3", ""),
        (255, "media", "media1", "/dev/media1", ""),
    ];
    let expected = [
        ("media0", "/dev/media1"),
        ("video0", "/dev/video2"),
        ("video1", "/dev/video3"),
    ];
    assert_eq!(names("", &usb_device_with(&camera)), pairs(&expected));
    let reader = [
        (
            0,
            "block",
            "host4/target4:0:0/4:0:0:1/block/sdb",
            "/dev/sdb",
            "disk",
        ),
        (
            0,
            "block",
            "host4/target4:0:0/4:0:0:1/block/sdb/sdb2",
            "/dev/sdb2",
            "partition",
        ),
        (
            0,
            "block",
            "host4/target4:0:0/4:0:0:0/block/sdaa",
            "/dev/sdaa",
            "disk",
        ),
    ];
    let expected = [("sda", "/dev/sdaa"), ("sdb", "/dev/sdb"), ("sdb2", "/dev/sdb2")];
    assert_eq!(names("", &usb_device_with(&reader)), pairs(&expected));
    let pad = [
        (3, "hidraw", "0003:3/hidraw/hidraw5", "/dev/hidraw5", ""),
        (3, "input", "0003:3/input/input10/event4", "/dev/input/event4", ""),
        (3, "input", "0003:3/input/input9/event7", "/dev/input/event7", ""),
        (3, "input", "0003:3/input/input9/js1", "/dev/input/js1", ""),
    ];
    let expected = [
        ("event0", "/dev/input/event7"),
        ("event1", "/dev/input/event4"),
        ("hidraw0", "/dev/hidraw5"),
        ("js0", "/dev/input/js1"),
    ];
    assert_eq!(names("", &usb_device_with(&pad)), pairs(&expected));
}

#[test]
fn the_raw_node_is_in_the_directory_if_the_request_means_it() {
    let devices = usb_device_with(&TUNER);
    let raw = names(";only=subsystem:usb", &devices);
    assert_eq!(raw, pairs(&[("usb0", "/dev/bus/usb/001/009")]));
}

#[test]
fn an_attached_node_keeps_its_name_while_others_go_and_come_and_after_a_restart() {
    let request = "usb:1209:0001;only=subsystem:tty;path=/dev/own/";
    let first = (0, "tty", "ttyUSB1/tty/ttyUSB1", "/dev/ttyUSB1", "");
    let second = (1, "tty", "ttyUSB2/tty/ttyUSB2", "/dev/ttyUSB2", "");
    let (own0, own1) = (
        ("/dev/own/ttyUSB0", "/dev/ttyUSB1"),
        ("/dev/own/ttyUSB1", "/dev/ttyUSB2"),
    );
    let (both, alone) = (usb_device_with(&[first, second]), usb_device_with(&[second]));
    let mut container = Container::new(request);
    assert_eq!(container.with(&both), pairs(&[own0, own1]));
    // A program detaches the first port from its driver, and the watcher is restarted.
    assert_eq!(container.with(&alone), pairs(&[own1]));
    let mut container = container.restarted(request);
    assert_eq!(container.with(&alone), pairs(&[own1]));
    assert_eq!(container.with(&both), pairs(&[own0, own1]));
    // A port that appears before another one keeps the name that it got.
    let mut container = Container::new(request);
    let early = ("/dev/own/ttyUSB0", "/dev/ttyUSB2");
    assert_eq!(container.with(&alone), pairs(&[early]));
    let late = ("/dev/own/ttyUSB1", "/dev/ttyUSB1");
    assert_eq!(container.with(&both), pairs(&[early, late]));
}

#[test]
fn of_two_devices_with_one_name_the_second_has_a_conflict_until_the_first_goes() {
    let mut container = Container::new("usb:0403:6001;only=subsystem:tty;path=/dev/board/");
    let both = recorded::hub_with_two_adapters();
    let name = "/dev/board/ttyUSB0";
    assert_eq!(container.with(&both), pairs(&[(name, "/dev/ttyUSB0")]));
    let [conflict] = container.not_attached.as_slice() else {
        panic!("{:?}", container.not_attached)
    };
    let first = &recorded::with_node(&both, "/dev/ttyUSB0").syspath;
    assert_eq!(conflict.path, Path::new(name));
    assert_eq!(conflict.reason, Reason::Conflict(first.clone()));
    let second: Vec<Device> = both
        .iter()
        .filter(|device| !device.syspath.as_str().contains("1-1.1"))
        .cloned()
        .collect();
    assert_eq!(container.with(&second), pairs(&[(name, "/dev/ttyUSB1")]));
    // The one that returns does not displace it.
    assert_eq!(container.with(&both), pairs(&[(name, "/dev/ttyUSB1")]));
}

#[test]
fn drivers_whose_names_end_alike_have_numbers_of_their_own() {
    let devices = usb_device_with(&[
        (0, "tty", "ttySC3/tty/ttySC3", "/dev/ttySC3", ""),
        (1, "tty", "ttyAC7/tty/ttyAC7", "/dev/ttyAC7", ""),
    ]);
    assert_eq!(
        names("", &devices),
        pairs(&[("ttyAC0", "/dev/ttyAC7"), ("ttySC0", "/dev/ttySC3")])
    );
}

#[test]
fn the_nodes_of_devices_behind_a_hub_take_no_number_of_its_own_nodes() {
    let mut devices = recorded::hub_with_two_adapters();
    let mut own = recorded::with_node(&devices, "/dev/ttyUSB0").clone();
    let hub = &recorded::named(&devices, "1-1").syspath;
    own.syspath = SysPath::new(format!("{hub}/1-1:1.1/ttyUSB5/tty/ttyUSB5"));
    own.node.as_mut().unwrap().path = "/dev/ttyUSB5".into();
    own.node.as_mut().unwrap().num.minor = 5;
    devices.push(own);
    let inside = Container::new(&format!(
        "usb:2109:2813;path={DIRECTORY};only=devnode:/dev/ttyUSB5"
    ))
    .with(&devices);
    let own = (format!("{DIRECTORY}ttyUSB0"), "/dev/ttyUSB5".to_owned());
    assert_eq!(inside, [own]);
}
