use super::*;
use crate::model::device::recorded::{companion_hub, hub_with_two_adapters, loop_over};
use crate::model::oci::ProcessUser;
use crate::model::request::entry::Origin;

fn planner(request: &str) -> Planner {
    let entry = RequestEntry::new(Origin::Annotation, request.parse().unwrap());
    Planner::new(vec![entry], Vec::new(), ProcessUser::default())
}

/// The world of a container with this request on a host with these devices.
fn world(request: &str, devices: Vec<Device>) -> (World, Planner) {
    let mut planner = planner(request);
    let mut world = World::open(&planner, &Policy::default()).unwrap();
    world.inventory = Inventory::new(devices);
    planner.find_roots(&world.inventory);
    (world, planner)
}

/// Whether virtual block devices are read for this request, and whether their events are left
/// out before and after it.
fn read(request: &str, devices: Vec<Device>, attached: &[SysPath]) -> (bool, [bool; 2]) {
    let (mut world, planner) = world(request, devices);
    let before = world.monitor.leaves_out_virtual_blocks();
    let is_read = world.lacks_virtual_blocks(&planner.candidates(&world.inventory), attached.iter());
    if is_read {
        world.read_virtual_blocks(&planner);
    }
    let after = world.monitor.leaves_out_virtual_blocks();
    assert!(!world.has_skipped());
    assert!(!after || !is_read);
    (is_read, [before, after])
}

#[test]
fn virtual_block_devices_are_read_when_a_selected_device_depends_on_them() {
    let adapters = hub_with_two_adapters;
    assert_eq!(read("usb:0403", adapters(), &[]), (false, [true, true]));
    assert_eq!(read("usb:0781", adapters(), &[]), (false, [true, true]));
    assert_eq!(read("usb:0781", companion_hub(), &[]), (true, [true, false]));
    let attached = [loop_over(0, "/srv/image").syspath];
    assert_eq!(read("usb:0403", adapters(), &attached), (true, [true, false]));
}

#[test]
fn virtual_block_devices_are_never_left_out_where_a_request_can_select_one() {
    for request in ["subsystem:block", "devnode:/dev/ttyUSB0", "glob:/dev/dm-*"] {
        assert_eq!(
            read(request, companion_hub(), &[]),
            (false, [false, false]),
            "{request}"
        );
    }
}

#[test]
fn once_they_are_read_the_events_of_virtual_block_devices_stay_needed() {
    let (mut world, planner) = world("usb:0781", companion_hub());
    world.read_virtual_blocks(&planner);
    world.set_facts_needed(&planner, &Policy::default());
    assert!(!world.monitor.leaves_out_virtual_blocks());
    let (mut world, planner) = self::world("usb:0403", hub_with_two_adapters());
    world.set_facts_needed(&self::planner("devnode:/dev/x"), &Policy::default());
    assert!(!world.monitor.leaves_out_virtual_blocks());
    let candidates = planner.candidates(&world.inventory);
    assert!(!world.lacks_virtual_blocks(&candidates, [].iter()));
}
