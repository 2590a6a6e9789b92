use super::*;
use crate::model::remote::address::UsbIds;

fn record() -> Record {
    let [requested, remote] = ["lab/0403:6001", "lab/busid:1-1"].map(|text| text.parse().unwrap());
    let mut record = Record::new(0, requested, remote, 0x10002, 2);
    record.local = Some(Local::new(&device(), Some("FT001".into())));
    record
}

fn device() -> LocalDevice {
    LocalDevice {
        dir: "/sys/devices/platform/vhci_hcd.0/usb3/3-1".into(),
        name: "3-1".into(),
        devnum: 7,
        ids: UsbIds {
            vendor: 0x0403,
            product: 0x6001,
        },
    }
}

fn slot() -> Slot {
    Slot {
        port: 0,
        is_super: false,
        state: State::Used,
        speed: 2,
        devid: 0x10002,
    }
}

#[test]
fn a_record_matches_its_device_and_no_device_that_took_its_port() {
    let record = record();
    assert!(record.is_of(&slot(), Some(&device())));
    assert!(record.is_of(&slot(), None), "it is disappearing");
    let others = [
        Slot {
            state: State::Free,
            ..slot()
        },
        Slot {
            devid: 0x10003,
            ..slot()
        },
        Slot { speed: 3, ..slot() },
        Slot { port: 1, ..slot() },
    ];
    for other in others {
        assert!(!record.is_of(&other, Some(&device())), "{other:?}");
    }
    let starting = Slot {
        state: State::Starting,
        speed: 0,
        devid: 0,
        ..slot()
    };
    assert!(
        !record.is_of(&starting, None),
        "another device: this one had been up"
    );
    let unfinished = Record {
        local: None,
        ..record.clone()
    };
    assert!(unfinished.is_of(&starting, None), "it has no address yet");
    let attached_again = LocalDevice {
        devnum: 8,
        ..device()
    };
    assert!(!record.is_of(&slot(), Some(&attached_again)));
}

#[test]
fn a_device_is_up_if_its_port_is_used_or_it_was_authorized_and_still_exists() {
    let unfinished = Record {
        local: None,
        ..record()
    };
    for (state, record, device, is_up) in [
        (State::Used, None, Some(device()), true),
        (State::Starting, Some(record()), Some(device()), true),
        (State::Starting, Some(record()), None, false),
        (State::Starting, Some(unfinished), Some(device()), false),
        (State::Starting, None, Some(device()), false),
        (State::Broken, Some(record()), Some(device()), false),
    ] {
        let slot = Slot { state, ..slot() };
        let attached = crate::usbip::Attached { slot, device, record };
        assert_eq!(attached.is_up(), is_up, "{attached:?}");
    }
}

#[test]
fn a_device_is_named_by_its_requested_address_and_by_its_ids() {
    for (text, is_named) in [
        ("lab/0403:6001", true),
        ("lab/0403:6001:FT001", true),
        ("lab/busid:1-1", true),
        ("lab/0403:6001:FT002", false),
        ("lab/busid:1-2", false),
        ("other/0403:6001", false),
    ] {
        assert_eq!(record().is_named(&text.parse().unwrap()), is_named, "{text}");
    }
}

#[test]
fn a_reservation_is_in_force_before_the_kernel_creates_the_device() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("3-1");
    fs::create_dir(&place).unwrap();
    let records = Records::new(dir.path().join(DIRECTORY));
    records.make().unwrap();
    let mut record = record();
    (record.container, record.place) = (Some("c1".into()), Some(place.clone()));
    let up = record.local.take();
    let told = |record: &Record| {
        records.write(record).unwrap();
        let [reservation] = <[Reservation; 1]>::try_from(reservations(dir.path())).unwrap();
        assert_eq!(reservation.syspath.as_path(), place);
        assert_eq!(reservation.container.as_deref(), Some("c1"));
        (reservation.is_verified, reservation.num.map(|num| num.minor))
    };
    assert_eq!(told(&record), (false, None), "the kernel has not created it yet");
    fs::write(place.join("authorized"), "0\n").unwrap();
    assert_eq!(told(&record), (false, None), "it is being verified");
    fs::write(place.join("authorized"), "1\n").unwrap();
    assert_eq!(told(&record), (true, None), "drivers may have it");
    record.local = up;
    assert_eq!(told(&record), (true, Some(2 * 128 + 6)));
}

#[test]
fn records_are_kept_by_port_and_foreign_files_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let records = Records::new(dir.path().join("usbip"));
    assert_eq!(records.all(), []);
    records.make().unwrap();
    records.write(&record()).unwrap();
    fs::write(dir.path().join("usbip/port-9.json"), r#"{"version":2,"port":9}"#).unwrap();
    assert_eq!(records.all(), [record()]);
    assert_eq!((records.at(0), records.at(9)), (Some(record()), None));
    records.remove(0);
    assert_eq!(records.all(), []);
}
