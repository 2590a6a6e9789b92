use super::listed::has_node_of_its_name;
use super::*;
use proptest::prelude::*;
use std::os::unix::fs::symlink;
use tempfile::TempDir;

const HUB: &str = "pci0000:00/0000:00:14.0/usb1/1-1";

/// A recorded host: a hub, an adapter with a tty behind it, /dev/null.
struct Recorded(TempDir);

impl Recorded {
    fn new() -> Self {
        let tree = Self(TempDir::new().unwrap());
        fs::create_dir_all(tree.path("dev/char")).unwrap();
        fs::create_dir_all(tree.path("dev/block")).unwrap();
        let adapter = format!("{HUB}/1-1.4");
        let interface = format!("{adapter}/1-1.4:1.0");
        tree.device("pci0000:00", b"", None);
        tree.device("pci0000:00/0000:00:14.0", b"DRIVER=xhci_hcd\n", Some("pci"));
        tree.device(
            "pci0000:00/0000:00:14.0/usb1",
            b"DEVTYPE=usb_device\n",
            Some("usb"),
        );
        tree.device(HUB, b"DEVTYPE=usb_device\nDRIVER=usb\n", Some("usb"));
        tree.node(
            HUB,
            "189:1",
            b"MAJOR=189\nMINOR=1\nDEVNAME=bus/usb/001/002\nDEVTYPE=usb_device\nDRIVER=usb\n",
        );
        tree.device(&adapter, b"", Some("usb"));
        tree.node(
            &adapter,
            "189:5",
            b"MAJOR=189\nMINOR=5\nDEVNAME=bus/usb/001/006\nDEVTYPE=usb_device\nDRIVER=usb\n",
        );
        tree.attribute(&adapter, "idVendor", b"0403\n");
        tree.attribute(&adapter, "serial", b"FT\xff01 \n");
        tree.device(
            &interface,
            b"DEVTYPE=usb_interface\nDRIVER=ftdi_sio\n",
            Some("usb"),
        );
        tree.attribute(&interface, "idVendor", b"never read\n");
        tree.device(
            &format!("{interface}/ttyUSB0"),
            b"DRIVER=ftdi_sio\n",
            Some("usb-serial"),
        );
        let tty = format!("{interface}/ttyUSB0/tty/ttyUSB0");
        tree.device(&tty, b"", Some("tty"));
        tree.node(&tty, "188:0", b"MAJOR=188\nMINOR=0\nDEVNAME=ttyUSB0\n");
        tree.device("virtual/net/lo", b"INTERFACE=lo\n", Some("net"));
        tree
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn attribute(&self, place: &str, name: &str, value: &[u8]) {
        fs::write(self.path(&format!("devices/{place}/{name}")), value).unwrap();
    }

    fn device(&self, place: &str, uevent: &[u8], subsystem: Option<&str>) {
        fs::create_dir_all(self.path(&format!("devices/{place}"))).unwrap();
        self.attribute(place, "uevent", uevent);
        if let Some(subsystem) = subsystem {
            let link = self.path(&format!("devices/{place}/subsystem"));
            symlink(format!("../../../bus/{subsystem}"), link).unwrap();
        }
    }

    fn node(&self, place: &str, number: &str, uevent: &[u8]) {
        self.attribute(place, "uevent", uevent);
        symlink(
            format!("../../devices/{place}"),
            self.path(&format!("dev/char/{number}")),
        )
        .unwrap();
    }

    fn sysfs(&self) -> SysFs {
        SysFs::open(self.0.path()).unwrap()
    }
}

fn wanted(pairs: &[(&str, Option<&str>)]) -> Attributes {
    pairs
        .iter()
        .map(|(name, only)| ((*name).to_owned(), only.map(str::to_owned)))
        .collect()
}

fn find<'a>(devices: &'a [Device], name: &str) -> &'a Device {
    devices
        .iter()
        .rev()
        .find(|device| device.syspath.name() == name)
        .unwrap()
}

#[test]
fn devices_with_nodes_and_all_above_them_are_listed_once_and_parents_first() {
    let devices = Recorded::new().sysfs().devices(&Attributes::new(), &[]).unwrap();
    let names: Vec<_> = devices.iter().map(|device| device.syspath.name()).collect();
    let expected = [
        "pci0000:00",
        "0000:00:14.0",
        "usb1",
        "1-1",
        "1-1.4",
        "1-1.4:1.0",
        "ttyUSB0",
        "ttyUSB0",
    ];
    assert_eq!(
        names, expected,
        "the glue directory tty and the node-less lo do not belong to it"
    );
}

#[test]
fn a_listed_device_has_its_facts() {
    let devices = Recorded::new().sysfs().devices(&Attributes::new(), &[]).unwrap();
    let tty = find(&devices, "ttyUSB0");
    assert_eq!(tty.subsystem.as_deref(), Some("tty"));
    assert_eq!(tty.node.as_ref().unwrap().num.to_string(), "c 188:0");
    assert_eq!(tty.node.as_ref().unwrap().path, PathBuf::from("/dev/ttyUSB0"));
    assert_eq!((tty.seqnum, tty.driver.as_deref()), (0, None));
    let interface = find(&devices, "1-1.4:1.0");
    assert_eq!(interface.driver.as_deref(), Some("ftdi_sio"));
    assert_eq!(interface.devtype.as_deref(), Some("usb_interface"));
    assert_eq!(interface.properties["SUBSYSTEM"], "usb");
    assert_eq!(find(&devices, "pci0000:00").subsystem, None);
}

#[test]
fn a_device_without_a_parent_belongs_to_the_subsystem_that_the_directory_above_it_names() {
    let tree = Recorded::new();
    for place in ["virtual/tty/tty7", "virtual/block/loop0/loop0p1"] {
        tree.device(place, b"", Some("link"));
    }
    let subsystem = |place| tree.sysfs().read(place, &Attributes::new()).unwrap().subsystem;
    assert_eq!(subsystem("virtual/tty/tty7").as_deref(), Some("tty"));
    assert_eq!(subsystem("virtual/block/loop0/loop0p1").as_deref(), Some("link"));
}

#[test]
fn on_this_host_the_directory_above_each_virtual_device_names_its_subsystem() {
    let sysfs = SysFs::open("/sys").unwrap();
    let mut count = 0;
    for subsystem in sysfs.names_at("virtual") {
        for name in sysfs.names_at(&format!("virtual/{subsystem}")) {
            // Other processes may remove devices meanwhile.
            let place = format!("virtual/{subsystem}/{name}");
            let link = sysfs.link_name(&place, "subsystem");
            if sysfs.has_file(&format!("{place}/uevent")) && link.is_ok() {
                assert_eq!(link.as_deref(), Ok(subsystem.as_str()), "{place}");
                count += 1;
            }
        }
    }
    assert!(count > 0);
}

/// Which virtual devices have nodes with their names, against the `uevent` files of this host.
#[test]
fn a_terminal_is_listed_as_its_uevent_file_describes_it() {
    let sysfs = SysFs::open("/sys").unwrap();
    let mut count = 0;
    for listed in sysfs.devices(&Attributes::new(), &[]).unwrap() {
        let place = place_of(&listed.syspath).unwrap();
        let read = sysfs.read(place, &Attributes::new());
        let Some(mut read) = read.filter(|_| has_node_of_its_name(place)) else {
            continue;
        };
        read.properties.remove("DEVMODE");
        assert_eq!(listed, read);
        count += 1;
    }
    assert!(count > 0);
}

#[test]
fn the_uevent_file_of_a_terminal_is_not_read_and_that_of_another_device_is() {
    let tree = Recorded::new();
    for (place, number) in [("virtual/tty/tty7", "4:7"), ("virtual/misc/fuse", "10:229")] {
        tree.device(place, b"", None);
        let uevent = "MAJOR=9\nMINOR=9\nDEVNAME=in-the-file\n";
        tree.node(place, number, uevent.as_bytes());
    }
    let devices = tree.sysfs().devices(&Attributes::new(), &[]).unwrap();
    let node = |name| find(&devices, name).node.clone().unwrap();
    let terminal = node("tty7");
    assert_eq!(terminal.path, PathBuf::from("/dev/tty7"));
    assert_eq!(terminal.num.to_string(), "c 4:7");
    assert_eq!(node("fuse").path, PathBuf::from("/dev/in-the-file"));
    for (place, is_named) in [
        ("virtual/tty/tty7", true),
        ("virtual/mem/null", true),
        ("virtual/vc/vcsa1", true),
        ("virtual/tty/a!b", false),
        ("virtual/misc/tun", false),
        ("virtual/cpuid/cpu0", false),
        ("pnp0/00:00/00:00:0/00:00:0.0/tty/ttyS0", false),
        ("virtual/tty/tty7/below", false),
    ] {
        assert_eq!(has_node_of_its_name(place), is_named, "{place}");
    }
}

#[test]
fn a_device_is_the_same_only_at_its_place_and_under_its_number() {
    let tree = Recorded::new();
    let sysfs = tree.sysfs();
    let adapter = sysfs.read(&format!("{HUB}/1-1.4"), &Attributes::new()).unwrap();
    assert!(sysfs.is_same(&adapter));
    let at = |place: &str, minor| {
        let mut device = adapter.clone();
        device.syspath = SysPath::new(format!("/sys/devices/{place}"));
        device.node.as_mut().unwrap().num.minor = minor;
        device
    };
    // The number of the hub, and a number that no device has.
    assert!(!sysfs.is_same(&at(&format!("{HUB}/1-1.4"), 1)));
    assert!(!sysfs.is_same(&at(&format!("{HUB}/1-1.4"), 6)));
    assert!(!sysfs.is_same(&at(&format!("{HUB}/1-1.5"), 5)));
    let mut block = adapter.clone();
    block.node.as_mut().unwrap().num.kind = DevKind::Block;
    assert!(!sysfs.is_same(&block));
    let interface = sysfs.read(&format!("{HUB}/1-1.4/1-1.4:1.0"), &Attributes::new());
    assert!(sysfs.is_same(&interface.unwrap()), "a device without a node");
}

#[test]
fn a_driver_is_looked_up_for_devices_of_a_bus_and_not_for_those_of_a_class() {
    let tree = Recorded::new();
    let sysfs = tree.sysfs();
    let completed = |place: &str, subsystem: &str| {
        let link = tree.path(&format!("devices/{place}/driver"));
        let _ = symlink("../../bus/usb/drivers/bound", link);
        let mut device = Device::new(SysPath::new(format!("/sys/devices/{place}")));
        device.subsystem = Some(subsystem.to_owned());
        sysfs.complete(&mut device, &Attributes::new());
        device.driver
    };
    assert_eq!(completed(HUB, "usb").as_deref(), Some("bound"));
    assert_eq!(completed(&format!("{HUB}/1-1.4"), "tty"), None);
}

#[test]
fn no_device_of_a_class_on_this_host_has_a_driver() {
    let mut count = 0;
    for class in CLASSES {
        assert!(!Path::new("/sys/bus").join(class).exists(), "{class}");
        for device in fs::read_dir(Path::new("/sys/class").join(class))
            .into_iter()
            .flatten()
        {
            let driver = device.unwrap().path().join("driver");
            assert!(!driver.exists(), "{}", driver.display());
            count += 1;
        }
    }
    assert!(count > 0);
}

#[test]
fn attributes_are_read_where_the_devtype_fits_and_cleaned() {
    let attributes = wanted(&[
        ("idVendor", Some("usb_device")),
        ("serial", None),
        ("absent", None),
    ]);
    let devices = Recorded::new().sysfs().devices(&attributes, &[]).unwrap();
    let adapter = find(&devices, "1-1.4");
    assert_eq!(adapter.attribute("idVendor"), Some("0403"));
    assert_eq!(adapter.attribute("serial"), Some("FT\u{fffd}01"));
    assert_eq!(adapter.attribute("absent"), None);
    assert_eq!(find(&devices, "1-1.4:1.0").attribute("idVendor"), None);
}

#[test]
fn attributes_that_a_hanging_usbip_server_blocks_are_not_read() {
    for (place, attribute, blocks) in [
        ("platform/vhci_hcd.0/usb3", "serial", true),
        ("platform/vhci_hcd.0/usb3", "idVendor", false),
        ("platform/vhci_hcd.0/usb3/3-1", "serial", false),
        ("pci0000:00/0000:00:14.0/usb1", "serial", false),
    ] {
        assert_eq!(may_block(place, attribute), blocks, "{place}/{attribute}");
    }
}

#[test]
fn an_attribute_name_cannot_leave_the_device() {
    let tree = Recorded::new();
    fs::write(tree.path("secret"), "x").unwrap();
    let absolute = tree.path("secret");
    let names = [
        ("../../../../../secret", None),
        ("../1-1/uevent", None),
        (absolute.to_str().unwrap(), None),
    ];
    let devices = tree.sysfs().devices(&wanted(&names), &[]).unwrap();
    assert!(devices.iter().all(|device| device.attributes.is_empty()));
}

#[test]
fn an_attribute_is_cut_at_the_limit() {
    let tree = Recorded::new();
    tree.attribute(HUB, "long", &[b'x'; 3 * ATTRIBUTE_LIMIT]);
    let devices = tree.sysfs().devices(&wanted(&[("long", None)]), &[]).unwrap();
    assert_eq!(
        find(&devices, "1-1").attribute("long").unwrap().len(),
        ATTRIBUTE_LIMIT
    );
}

#[test]
fn a_keyboard_behind_a_page_of_other_descriptors_is_found() {
    let tree = Recorded::new();
    let mut descriptors = vec![0; 18];
    // What a camera says of its pictures.
    while descriptors.len() <= ATTRIBUTE_LIMIT {
        descriptors.extend([16, 0x24]);
        descriptors.extend([0; 14]);
    }
    descriptors.extend([9, 4, 3, 0, 1, 3, 1, 1, 0]);
    tree.attribute(HUB, DESCRIPTORS, &descriptors);
    let attributes = wanted(&[(DESCRIPTORS, Some("usb_device"))]);
    let device = tree.sysfs().read(HUB, &attributes).unwrap();
    assert_eq!(device.attribute(DESCRIPTORS), Some("00:0301"));
}

#[test]
fn capabilities_are_read_of_hid_and_input_devices_and_of_no_others() {
    let tree = Recorded::new();
    let hid = format!("{HUB}/1-1.4/1-1.4:1.0/0003:046D:C215.0002");
    let input = format!("{hid}/input/input8");
    for place in [&hid, &input] {
        tree.device(place, b"", None);
        fs::write(
            tree.path(&format!("devices/{place}/report_descriptor")),
            b"\x05\x01\x09\x06\xa1\x01",
        )
        .unwrap();
        fs::create_dir(tree.path(&format!("devices/{place}/capabilities"))).unwrap();
        fs::write(
            tree.path(&format!("devices/{place}/capabilities/key")),
            "fffffffe\n",
        )
        .unwrap();
        fs::write(tree.path(&format!("devices/{place}/properties")), "0\n").unwrap();
    }
    let sysfs = tree.sysfs();
    let attributes = wanted(&[(REPORT_DESCRIPTOR, None), (CAPABILITIES, None)]);
    let read = |place: &str| sysfs.read(place, &attributes).unwrap().attributes;
    assert_eq!(
        read(&hid),
        [(REPORT_DESCRIPTOR.to_owned(), "0001:0006".to_owned())].into()
    );
    assert_eq!(
        read(&input),
        [(CAPABILITIES.to_owned(), "keyboard".to_owned())].into()
    );
    assert_eq!(read(HUB), BTreeMap::new());
}

#[test]
fn the_devices_that_one_is_made_of_are_listed_by_name() {
    let tree = Recorded::new();
    let attributes = wanted(&[(SLAVES, Some("disk"))]);
    for (name, slaves) in [
        ("dm-0", Some("sda2 sdb1")),
        ("loopback", Some("sda2 sdb1")),
        ("loop12", None),
    ] {
        let place = format!("virtual/block/{name}");
        tree.device(&place, b"DEVTYPE=disk\n", Some("block"));
        for slave in ["sdb1", "sda2"] {
            fs::create_dir_all(tree.path(&format!("devices/{place}/slaves/{slave}"))).unwrap();
        }
        let device = tree.sysfs().read(&place, &attributes).unwrap();
        assert_eq!(device.attribute(SLAVES), slaves, "{name}");
    }
}

#[test]
fn a_device_without_node_is_listed_when_it_is_asked_for() {
    let lo = SysPath::new("/sys/devices/virtual/net/lo");
    let devices = Recorded::new()
        .sysfs()
        .devices(&Attributes::new(), &[lo])
        .unwrap();
    assert_eq!(find(&devices, "lo").subsystem.as_deref(), Some("net"));
}

#[test]
fn a_device_that_vanishes_while_listing_is_left_out() {
    let tree = Recorded::new();
    symlink("../../devices/virtual/misc/gone", tree.path("dev/char/10:99")).unwrap();
    fs::write(tree.path("dev/char/README"), "no link").unwrap();
    let devices = tree.sysfs().devices(&Attributes::new(), &[]).unwrap();
    assert!(devices.iter().all(|device| device.syspath.name() != "gone"));
    assert_eq!(devices.len(), 8);
}

#[test]
fn an_event_s_device_gets_driver_and_attributes_of_now() {
    let tree = Recorded::new();
    let sysfs = tree.sysfs();
    let mut device = Device::new(SysPath::new(format!("/sys/devices/{HUB}/1-1.4")));
    device.devtype = Some("usb_device".into());
    device.driver = Some("old".into());
    let attributes = wanted(&[("idVendor", Some("usb_device"))]);
    sysfs.complete(&mut device, &attributes);
    assert_eq!(
        (device.driver.as_deref(), device.attribute("idVendor")),
        (None, Some("0403"))
    );
    assert_eq!(device.subsystem.as_deref(), Some("usb"));
    symlink(
        "../../../bus/usb/drivers/usb",
        tree.path(&format!("devices/{HUB}/1-1.4/driver")),
    )
    .unwrap();
    sysfs.complete(&mut device, &attributes);
    assert_eq!(device.driver.as_deref(), Some("usb"));
}

#[test]
fn facts_of_an_event_about_a_removed_device_stay() {
    let sysfs = Recorded::new().sysfs();
    let mut device = Device::new(SysPath::new("/sys/devices/gone"));
    device.driver = Some("usb".into());
    sysfs.complete(&mut device, &Attributes::new());
    assert_eq!(device.driver.as_deref(), Some("usb"));
    assert!(!sysfs.has(&device.syspath));
}

#[test]
fn a_host_without_sysfs_is_an_error_that_names_the_path() {
    let empty = TempDir::new().unwrap();
    let error = SysFs::open(empty.path()).err().unwrap().to_string();
    assert!(error.contains(empty.path().to_str().unwrap()), "{error}");
}

proptest! {
    #[test]
    fn a_place_never_leaves_sys_devices(target in "(\\.\\./){0,3}(devices/)?[a-z./:]{0,20}") {
        if let Some(place) = place_of_link(Path::new(&target)) {
            prop_assert!(!place.starts_with('/') && !place.split('/').any(|name| name == ".."));
        }
    }
}
