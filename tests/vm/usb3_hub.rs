//! A USB 3 hub, whose two halves a program in the machine emulates: QEMU has none.

use crate::background::Background;
use crate::engine::Runtime::Crun;
use crate::engine::podman;
use crate::machine::machine;

const PROGRAM: &str = include_str!("usb3_hub.py");

/// The paths in sysfs of the hubs, the USB 2 half first, once each has its children's port.
const HALVES: &str = "for hub in $(grep -l '^TYPE=9/0/1' /sys/bus/usb/devices/*-*/uevent) \
     $(grep -l '^TYPE=9/0/3' /sys/bus/usb/devices/*-*/uevent); do \
     if test -e $(dirname $hub)/port/peer/device/port; then basename $(dirname $hub); fi; done";

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_request_for_one_half_of_a_usb3_hub_attaches_the_devices_of_both() {
    let vm = machine();
    vm.run("modprobe vhci-hcd");
    vm.run(&format!("cat > /run/test/hub.py << 'END'\n{PROGRAM}END"));
    let emulation = Background::start(&vm, "python3 /run/test/hub.py");
    vm.wait_until(&format!("grep attached {}", emulation.output));
    vm.wait_until(&format!("test $({HALVES} | wc -l) = 2"));
    let halves = vm.run(HALVES);
    let [usb2, usb3] = halves.split_whitespace().collect::<Vec<_>>()[..] else {
        panic!("two halves: {halves}");
    };
    let node = |half: &str| {
        let number = vm.run(&format!(
            "printf '/dev/bus/usb/%03d/%03d' $(cat /sys/bus/usb/devices/{half}/busnum /sys/bus/usb/devices/{half}/devnum)"
        ));
        number.trim().to_owned()
    };
    let (usb2_node, usb3_node) = (node(usb2), node(usb3));

    let tree = vm.run("oci-hotplug tree");
    assert!(tree.contains(&format!("{usb3} USB 3 half of {usb2} ")), "{tree}");
    let container = podman(&vm, Crun, "--annotation io.oci-hotplug.devices=usb:0403:6001");
    let name = &container.name;
    // Hubs' own nodes are for trusted requests alone, such as those of the operator.
    for request in ["usb:2109:2813", &format!("port:{usb3}")] {
        vm.run(&format!("oci-hotplug attach {name} {request}"));
        container.gains(&usb2_node);
        container.gains(&usb3_node);
        let explained = vm.run(&format!(
            "for node in {usb2_node} {usb3_node}; do oci-hotplug explain {name} $node; done | tr -s ' \\n' ' '"
        ));
        let half = match request {
            "usb:2109:2813" => format!("USB 3 half of {usb2}"),
            _ => format!("USB 2 half of {usb3}"),
        };
        assert!(explained.contains(&half), "{explained}");
        vm.run(&format!("oci-hotplug detach {name} {request}"));
        container.loses(&usb2_node);
        container.loses(&usb3_node);
    }

    vm.run(&format!("oci-hotplug attach {name} port:{usb2}"));
    container.gains(&usb3_node);
    drop(emulation);
    container.loses(&usb2_node);
    container.loses(&usb3_node);
    vm.run("rmmod vhci-hcd");
}
