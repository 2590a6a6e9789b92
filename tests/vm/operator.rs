//! What `oci-hotplug` shows of real USB devices, and of containers by the names that engines gave
//! them.

use crate::engine::Runtime::Crun;
use crate::engine::{docker, podman};
use crate::machine::machine;
use crate::usb::{Hub, UsbSerial};

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn tree_and_list_show_the_holders_of_devices_by_the_names_of_their_engines() {
    let vm = machine();
    let _hub = vm.plug(&Hub("1"));
    let _board = vm.plug(&UsbSerial {
        serial: "FT001",
        port: "1.2",
    });
    let _probe = vm.plug(&UsbSerial {
        serial: "FT002",
        port: "1.3",
    });
    let robot = podman(
        &vm,
        Crun,
        "--annotation 'io.oci-hotplug.devices=usb:0403:6001:FT001;link=/dev/board'",
    );
    let lab = docker(
        &vm,
        "--device oci-hotplug.dev/device=annotated --annotation io.oci-hotplug.devices=usb:0403:6001:FT002",
    );
    robot.gains("/dev/ttyUSB0");
    lab.gains("/dev/ttyUSB1");
    let list = vm.run("oci-hotplug list");
    let tree = vm.run("oci-hotplug tree");
    println!("{list}\n{tree}");
    // The link leads to the tty, and the raw node without a link does not count as a problem.
    robot.run("test /dev/board -ef /dev/ttyUSB0");
    assert!(!list.contains("problems"), "{list}");
    for (engine, node, serial) in [
        ("podman", "/dev/ttyUSB0", "FT001"),
        ("docker", "/dev/ttyUSB1", "FT002"),
    ] {
        // `list` shows the names of nodes, `tree` shows their paths.
        let name = node.trim_start_matches("/dev/");
        let row = list.lines().find(|line| line.contains(name));
        let words: Vec<&str> = row
            .unwrap_or_else(|| panic!("{list}"))
            .split_whitespace()
            .collect();
        assert_eq!(words[2], engine, "{list}");
        let name = vm.run(&format!("{engine} inspect --format '{{{{.Name}}}}' {}", words[0]));
        assert_eq!(words[1], name.trim().trim_start_matches('/'), "{list}");
        let at = tree
            .lines()
            .position(|line| line.contains(node))
            .unwrap_or_else(|| panic!("{tree}"));
        let lines: Vec<&str> = tree.lines().collect();
        assert!(lines[at].ends_with(words[1]), "{tree}");
        assert!(lines[at - 1].contains(&format!("0403:6001 {serial}")), "{tree}");
    }
}
