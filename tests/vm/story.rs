//! What most tests do, whatever the engine.

use crate::container::Container;
use crate::machine::Machine;
use crate::setup::Setup;
use crate::shell::until;
use crate::usb::{Hub, UsbSerial};

/// An adapter that a running container requests is plugged in, used from both ends, and pulled out.
pub fn an_adapter_is_followed(machine: &Machine, container: &Container) {
    let adapter = machine.plug(&UsbSerial {
        serial: "FT001",
        port: "2",
    });
    container.gains("/dev/ttyUSB0");
    container.talks_through(&adapter, "/dev/ttyUSB0");
    adapter.unplug();
    container.loses("/dev/ttyUSB0");
}

/// The same, where the container also makes a node with the adapter's numbers.
pub fn an_adapter_comes_and_goes(machine: &Machine, container: &Container) {
    let adapter = machine.plug(&UsbSerial {
        serial: "FT001",
        port: "2",
    });
    container.gains("/dev/ttyUSB0");
    container.makes_its_own_node("/run/mine", "/dev/ttyUSB0");
    container.talks_through(&adapter, "/dev/ttyUSB0");
    adapter.unplug();
    container.loses("/dev/ttyUSB0");
    container.is_refused("/run/mine");
}

/// The requests of a board in annotations: the hub that it is on, in container-hotplug's grammar,
/// and in ours a link that follows the board.
pub fn lab_by_annotations() -> Setup {
    Setup::default()
        .lab()
        .annotation("org.lowrisc.hotplug.devices", "parent-of:usb:0403:6001:FT001")
        .annotation("org.lowrisc.hotplug.symlinks", "usb:0403:6001:0=/dev/ttyBOARD")
        .annotation("io.oci-hotplug.devices", "usb:0403:6001:FT001;link=/dev/board")
}

/// The same requests as a class of the configuration (install.rs).
pub fn lab_by_class() -> Setup {
    Setup::default()
        .lab()
        .annotation("io.oci-hotplug.devices", "class:lab-board")
}

/// The same requests as the CDI device that `oci-hotplug cdi generate --all` makes of the class.
pub fn lab_by_cdi() -> Setup {
    Setup::default().lab().cdi("oci-hotplug.dev/device=lab-board")
}

/// A container has a hub with one adapter at its start, and gets others later: everything that
/// docs/engines.md promises of any engine, in one run. `container` starts it; `disturb` is what
/// happens to the engine meanwhile, in addition to an update of the container.
pub fn a_lab_is_followed<'a>(
    machine: &'a Machine,
    container: impl FnOnce() -> Container<'a>,
    disturb: impl FnOnce(),
) {
    machine.run("modprobe fuse");
    let hub = machine.plug(&Hub("1"));
    let adapter = |serial, port| machine.plug(&UsbSerial { serial, port });
    let board = adapter("FT001", "1.1");
    machine.wait_until("ls /dev/serial/by-id/*FT001*");

    let container = container();
    // One command with many checks: each command takes time.
    container.run(&format!(
        "set -x; {PRESENT} && {OWN_NODE} && {READ_ONLY_FUSE} > /run/fuse"
    ));
    container.run(&format!("{LISTEN} {}", until(LISTENING)));
    container.run(&format!("set -x; {LISTED}"));
    container.talks_through(&board, "/dev/board");

    let second = adapter("FT002", "1.2");
    container.wait_until(
        ": < /dev/ttyUSB1 && grep 'add /dev/ttyUSB1 0403' /run/pyudev && grep SHORT=FT002 /run/udevadm",
    );
    board.unplug();
    container.wait_until(BOARD_IS_GONE);
    container.run(&format!(
        "set -x; : < /dev/ttyUSB1 && {OWN_NODE_IS_REFUSED} && {READ_ONLY_FUSE} | cmp - /run/fuse"
    ));

    container.keeps("/dev/ttyUSB1", || {
        container.update();
        machine.run("systemctl daemon-reload");
    });
    disturb();
    container.is_reachable();

    // The board's old number belongs to another adapter now, which the container does not have.
    let _stranger = adapter("FT003", "2");
    machine.wait_until("test -e /dev/ttyUSB0");
    let board = adapter("FT001", "1.3");
    container.wait_until(&format!(
        ": < /dev/board && test $(readlink -f /dev/board) = /dev/ttyUSB2 && ! test -e /dev/ttyUSB0 && {OWN_NODE_IS_REFUSED}"
    ));
    container.talks_through(&board, "/dev/board");
    container.talks_through(&second, "/dev/ttyUSB1");
    hub.unplug();
    container.wait_until(
        "test -z \"$(ls -d /dev/board /dev/ttyBOARD /dev/ttyUSB* /dev/serial/by-id/* /run/udev/data/*)\"",
    );
    drop(container);
    nothing_is_left(machine);
}

/// The board's node and all links to it.
pub const PRESENT: &str = ": < /dev/ttyUSB0 && for link in /dev/board /dev/ttyBOARD /dev/serial/by-id/*FT001*; do \
    test $(readlink -f $link) = /dev/ttyUSB0 || exit 1; done";

/// Programs find udev's properties of the board, and by property the board alone; they cannot
/// change the database.
pub const LISTED: &str = "udevadm info -q property -n /dev/ttyUSB0 | grep ID_SERIAL_SHORT=FT001 && \
    python3 -c 'import pyudev; print([d.device_node for d in pyudev.Context().list_devices(subsystem=\"tty\") \
    if d.is_initialized and \"/dev/board\" in d.device_links])' | grep -F \"['/dev/ttyUSB0']\" && \
    ! rm /run/udev/control";

/// Creates a node in the container with the board's numbers. In a user namespace the kernel does
/// not allow this.
const OWN_NODE: &str = "set -- $(stat -c '%t %T' /dev/ttyUSB0) && rm -f /run/mine && \
    if mknod /run/mine c $((0x$1)) $((0x$2)); then : < /run/mine; else ! grep ' 0  *0 ' /proc/self/uid_map; fi";

/// The node gives no access while the board is absent.
const OWN_NODE_IS_REFUSED: &str = "if test -e /run/mine; then \
    ! (: < /run/mine) 2> /run/words && grep -q 'not permitted' /run/words; fi";

/// Checks that the engine's own device is read-only, as the engine's option says. Prints type and
/// numbers of its node.
const READ_ONLY_FUSE: &str = ": < /dev/fuse && ! (: > /dev/fuse) 2> /run/words && grep -q 'not permitted' /run/words && \
    stat -c '%a %u %g %t %T %i' /dev/fuse";

/// Two programs that use libudev.
pub const LISTEN: &str = "setsid udevadm monitor --udev --property > /run/udevadm 2>&1 < /dev/null & \
    setsid python3 -u -c 'import pyudev; m = pyudev.Monitor.from_netlink(pyudev.Context()); m.filter_by(\"tty\"); \
    m.start(); print(\"listening\"); \
    [print(d.action, d.device_node, d.get(\"ID_VENDOR_ID\")) for d in iter(m.poll, None)]' > /run/pyudev 2>&1 < /dev/null &";

pub const LISTENING: &str =
    "cat /run/pyudev /run/udevadm; grep listening /run/pyudev && grep UDEV /run/udevadm";

/// Waits until node and links are there and both programs have received the event.
pub const BOARD_IS_GONE: &str = "test -z \"$(ls -d /dev/board /dev/ttyUSB0 /dev/serial/by-id/*FT001*)\" && \
    grep 'remove /dev/ttyUSB0' /run/pyudev && grep ACTION=remove /run/udevadm";

/// Checks that no container has left a watcher, record or lock.
pub fn nothing_is_left(machine: &Machine) {
    machine.wait_until("! pgrep -f '[o]ci-hotplug-watcher' && test -z \"$(ls /run/oci-hotplug/containers)\"");
}
