mod groups;
mod places;

use std::collections::BTreeSet;
use std::path::Path;

use super::*;
use crate::kubernetes::config::{Texts, read};
use crate::kubernetes::snapshot::PathKind;
use crate::model::device::inventory::Inventory;
use crate::model::device::recorded::{accelerator, remote_adapter};
use crate::model::device::{DevKind, DevNode, DevNum, Device, SysPath, UdevState};
use crate::model::oci::ProcessUser;
use crate::model::plan::Planner;
use crate::model::remote::reservation::Reservation;
use crate::model::request::class::Classes;

fn snapshot(paths: &[(&str, PathKind)]) -> Snapshot {
    Snapshot {
        paths: paths.iter().map(|(path, found)| (path.into(), *found)).collect(),
        ..Snapshot::default()
    }
}

fn definitions(texts: Texts) -> Vec<Definition> {
    read(&texts, &Classes::none(Path::new("/nowhere")))
        .unwrap()
        .definitions
}

fn smarter(text: &str) -> Vec<Definition> {
    definitions(Texts {
        smarter: Some(("conf.yaml".into(), text.to_owned())),
        ..Texts::default()
    })
}

fn own(text: &str) -> Vec<Definition> {
    definitions(Texts {
        own: Some(("config.yaml".into(), text.to_owned())),
        ..Texts::default()
    })
}

fn shown(resources: &[Resource]) -> Vec<(&str, usize)> {
    resources
        .iter()
        .map(|resource| (resource.name.as_str(), resource.units.len()))
        .collect()
}

fn usb(syspath: &str, product: &str, numa: &str) -> Device {
    let mut device = Device::new(SysPath::new(syspath));
    device.subsystem = Some("usb".into());
    device.devtype = Some("usb_device".into());
    device.udev_state = UdevState::Processed;
    device.attributes = [("idVendor", "0403"), ("idProduct", product), (NUMA_NODE, numa)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
    device.node = Some(DevNode {
        path: format!("/dev/bus/{}", device.syspath.name()).into(),
        num: DevNum {
            kind: DevKind::Char,
            major: 189,
            minor: 1,
        },
    });
    device
}

#[test]
fn smarters_patterns_find_devices_and_directories_anywhere_below_dev() {
    let snapshot = snapshot(&[
        ("/dev/snd", PathKind::Directory),
        ("/dev/snd/timer", PathKind::Device),
        ("/dev/net/tun", PathKind::Device),
        ("/dev/log", PathKind::Other),
    ]);
    let mut names = Names::default();
    let wanted = smarter(
        "- {devicematch: ^snd$, nummaxdevices: 3}\n- {devicematch: tun, nummaxdevices: 1}\n- {devicematch: log, nummaxdevices: 1}",
    );
    let found = resources(&wanted, &snapshot, &mut names);
    assert_eq!(
        shown(&found),
        [("smarter-devices/net_tun", 1), ("smarter-devices/snd", 3)]
    );
}

#[test]
fn a_path_that_two_patterns_match_is_one_resource_of_the_first_pattern() {
    let snapshot = snapshot(&[("/dev/a", PathKind::Device)]);
    let wanted = smarter("- {devicematch: a, nummaxdevices: 2}\n- {devicematch: ^a, nummaxdevices: 5}");
    assert_eq!(
        shown(&resources(&wanted, &snapshot, &mut Names::default())),
        [("smarter-devices/a", 2)]
    );
}

#[test]
fn two_paths_with_the_same_name_remain_two_resources() {
    let snapshot = snapshot(&[("/dev/by/a", PathKind::Device), ("/dev/by_a", PathKind::Device)]);
    let mut names = Names::default();
    let found = resources(
        &smarter("- {devicematch: 'by.a', nummaxdevices: 1}"),
        &snapshot,
        &mut names,
    );
    assert_eq!(found.len(), 2);
    assert_eq!(names.take_notes().len(), 1);
}

#[test]
fn tegras_gpus_are_passed_to_the_nvidia_runtime() {
    let snapshot = Snapshot {
        gpus: [0].into(),
        ..Snapshot::default()
    };
    let found = resources(
        &smarter("- {devicematch: nvidia-gpu, nummaxdevices: 10}"),
        &snapshot,
        &mut Names::default(),
    );
    assert_eq!(shown(&found), [("smarter-devices/nvidia-gpu0", 10)]);
    let unit = found[0].units.values().next().unwrap();
    assert_eq!(unit.offer.env["NVIDIA_VISIBLE_DEVICES"], "0");
}

#[test]
fn a_hostdev_path_is_always_advertised_and_healthy_while_it_exists() {
    let wanted = definitions(Texts {
        devs: Some("/dev/mem:r,/dev/away:rw:2".into()),
        ..Texts::default()
    });
    let found = resources(
        &wanted,
        &snapshot(&[("/dev/mem", PathKind::Device)]),
        &mut Names::default(),
    );
    assert_eq!(
        shown(&found),
        [("hostdev.k8s.io/dev_away", 2), ("hostdev.k8s.io/dev_mem", 1)]
    );
    assert!(found[0].units.values().all(|unit| !unit.healthy));
    assert!(found[1].units["/dev/mem"].healthy);
}

#[test]
fn a_hostdev_path_that_is_not_a_device_gets_one_note() {
    let wanted = definitions(Texts {
        devs: Some("/etc/hostname:r".into()),
        ..Texts::default()
    });
    let mut names = Names::default();
    let snapshot = snapshot(&[("/etc/hostname", PathKind::Other)]);
    for notes in [1, 0] {
        assert!(
            resources(&wanted, &snapshot, &mut names)[0]
                .units
                .values()
                .all(|unit| !unit.healthy)
        );
        let taken_notes = names.take_notes();
        assert_eq!(taken_notes.len(), notes, "{taken_notes:?}");
        assert!(
            taken_notes
                .iter()
                .all(|note| note.contains("/etc/hostname is neither a device nor a directory"))
        );
    }
}

#[test]
fn a_resource_has_at_most_as_many_units_as_kubelet_accepts_in_one_list() {
    let snapshot = snapshot(&[
        ("/dev/a0", PathKind::Device),
        ("/dev/a1", PathKind::Device),
        ("/dev/a2", PathKind::Device),
    ]);
    let wanted = own("devices: [{name: x, groups: [{count: 20000, paths: [{path: '/dev/a*'}]}]}]");
    let mut names = Names::default();
    assert_eq!(
        resources(&wanted, &snapshot, &mut names)[0].units.len(),
        MAX_LISTED
    );
    let taken_notes = names.take_notes();
    assert!(
        taken_notes.len() == 1 && taken_notes[0].contains("devic.es/x has more units"),
        "{taken_notes:?}"
    );
}
