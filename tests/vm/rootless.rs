//! Rootless podman: the containers of an ordinary user, whose systemd manager runs the watchers.

use crate::container::Container;
use crate::engine::Runtime::{self, Crun, Runc};
use crate::engine::{idle, podman_image};
use crate::machine::{Machine, machine};
use crate::setup::Setup;
use crate::shell::until;
use crate::story::{BOARD_IS_GONE, LISTED, LISTEN, LISTENING, PRESENT, an_adapter_is_followed};
use crate::usb::{Hub, Plugged, UsbSerial};
use crate::user::{USER, User};

const ANY_ADAPTER: &str = "--annotation io.oci-hotplug.devices=usb:0403:6001";

/// Keeps a session of the user open, as a login does.
const SESSION: &str = "alice-session";

impl<'m> User<'m> {
    /// A user with an image for podman.
    fn with_podman(vm: &'m Machine) -> Self {
        podman_image(vm);
        let user = Self::new(vm);
        user.run("podman import -q /var/lib/box.tar localhost/box");
        user
    }

    fn start(&self, runtime: Runtime, options: &str) -> Container<'m> {
        let name = self.vm.new_name("c");
        let id = self.run(&format!(
            "podman --runtime {} run -d --name {name} --network none {options} localhost/box {}",
            runtime.path(),
            idle(&name)
        ));
        self.container(&name).with_shell(&name).known_as(&id, &name)
    }

    /// A container of the user by its name.
    fn container(&self, name: &str) -> Container<'m> {
        Container::new(
            self.vm,
            self.command(&format!("podman exec -i {name}")),
            self.command(&format!("podman rm -f -t 2 {name}")),
        )
    }
}

fn adapter<'m>(vm: &'m Machine, serial: &'static str, port: &'static str) -> Plugged<'m> {
    vm.plug(&UsbSerial { serial, port })
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn the_manager_of_a_user_restarts_the_watcher_of_a_rootless_container() {
    let vm = machine();
    let user = User::with_podman(&vm);
    let container = user.start(Crun, ANY_ADAPTER);
    vm.wait_until(&user.watcher_in_unit());
    let plugged = adapter(&vm, "FT001", "2");
    container.gains("/dev/ttyUSB0");
    container.talks_through(&plugged, "/dev/ttyUSB0");
    let killed = vm.run(&user.watcher_in_unit());
    vm.run(&format!("kill -9 {killed}"));
    vm.wait_until(&format!("test $({}) -ne {killed}", user.watcher_in_unit()));
    plugged.unplug();
    container.loses("/dev/ttyUSB0");
    an_adapter_is_followed(&vm, &container);
    drop(container);
    user.has_nothing_left();
    user.remove();
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn rootless_podman_attaches_devices_with_crun_and_runc() {
    let vm = machine();
    vm.run("modprobe fuse");
    let user = User::with_podman(&vm);
    for runtime in [Crun, Runc] {
        a_lab_of_the_user_is_followed(&user, || user.start(runtime, &lab().options()));
    }
    user.remove();
}

/// The hub of a board, and links that follow the board.
pub fn lab() -> Setup {
    Setup::default()
        .lab()
        .annotation(
            "io.oci-hotplug.devices",
            "parent-of:usb:0403:6001:FT001,usb:0403:6001:FT001;link=/dev/board",
        )
        .annotation("io.oci-hotplug.symlinks", "usb:0403:6001:0=/dev/ttyBOARD")
}

/// What story.rs tests with containers of root, as far as a rootless container can have it: it
/// makes no nodes and has no device cgroup.
pub fn a_lab_of_the_user_is_followed<'m>(user: &User<'m>, start: impl FnOnce() -> Container<'m>) {
    let vm = user.vm;
    let hub = vm.plug(&Hub("1"));
    let board = adapter(vm, "FT001", "1.1");
    vm.wait_until("ls /dev/serial/by-id/*FT001*");

    let container = start();
    container.run(&format!("set -x; {PRESENT}"));
    container.run(&format!("{LISTEN} {}", until(LISTENING)));
    container.run(&format!("set -x; {LISTED}"));
    container.talks_through(&board, "/dev/board");

    let second = adapter(vm, "FT002", "1.2");
    container.wait_until(
        ": < /dev/ttyUSB1 && grep 'add /dev/ttyUSB1 0403' /run/pyudev && grep SHORT=FT002 /run/udevadm",
    );
    board.unplug();
    container.wait_until(BOARD_IS_GONE);
    container.run(": < /dev/ttyUSB1");

    // The board's old number belongs to another adapter now, which the container does not have.
    let _stranger = adapter(vm, "FT003", "2");
    vm.wait_until("test -e /dev/ttyUSB0");
    let board = adapter(vm, "FT001", "1.3");
    container.wait_until(
        ": < /dev/board && test $(readlink -f /dev/board) = /dev/ttyUSB2 && ! test -e /dev/ttyUSB0",
    );
    container.talks_through(&board, "/dev/board");
    container.talks_through(&second, "/dev/ttyUSB1");
    let tool = |words: &str| user.run(&format!("oci-hotplug {words}"));
    let name = &container.name;
    assert!(tool("list").contains(&format!(" {name} ")), "{}", tool("list"));
    assert!(tool(&format!("explain {name} /dev/ttyUSB2")).contains("/dev/board"));
    hub.unplug();
    container.wait_until(
        "test -z \"$(ls -d /dev/board /dev/ttyBOARD /dev/ttyUSB* /dev/serial/by-id/* /run/udev/data/*)\"",
    );
    drop(container);
    user.has_nothing_left();
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn rootless_cdi_devices_pods_and_kept_groups_have_their_adapters() {
    let vm = machine();
    let user = User::with_podman(&vm);
    // Root has generated the CDI device, with the hooks' own arguments.
    let container = user.start(Runc, "--device oci-hotplug.dev/device=serial");
    an_adapter_is_followed(&vm, &container);
    drop(container);
    user.has_nothing_left();

    user.run("podman pod create --infra=false --name lab");
    let container = user.start(Crun, &format!("--pod lab --group-add keep-groups {ANY_ADAPTER}"));
    let without = user.start(Crun, ANY_ADAPTER);
    let plugged = adapter(&vm, "FT009", "2");
    container.gains("/dev/ttyUSB0");
    container.talks_through(&plugged, "/dev/ttyUSB0");
    without.wait_until("test -c /dev/ttyUSB0");
    assert!(without.fails(": < /dev/ttyUSB0").contains("Permission denied"));
    let shown = user.run(&format!("oci-hotplug inspect {}", without.name));
    assert!(shown.contains("keep-groups"), "{shown}");
    user.run("podman pod restart lab");
    container.is_reachable();
    container.gains("/dev/ttyUSB0");
    user.run("podman pod stop -t 2 lab");
    vm.wait_until(&format!("test $(pgrep -c -u {USER} oci-hotplug-wat) = 1"));
    drop((container, without));
    user.run("podman pod rm lab");
    user.has_nothing_left();
    user.remove();
}

/// The user's quadlet unit, which systemd starts with the user's manager. With default dependencies
/// it would wait 90 s for network-online.target, which nothing reaches in this machine.
const QUADLET: &str = "[Quadlet]\nDefaultDependencies=false\n[Container]\nImage=localhost/box\nContainerName=board\nNetwork=none\nPull=never\n\
    Exec=sh -c 'trap exit TERM; while :; do sleep 3600 & wait; done'\n\
    Annotation=io.oci-hotplug.devices=usb:0403:6001\n\
    [Service]\nRestart=always\nRestartSec=0\n[Install]\nWantedBy=default.target\n";

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn the_quadlet_of_a_user_has_its_device_after_restarts_reboots_and_logins() {
    let vm = machine();
    let user = User::with_podman(&vm);
    let plugged = adapter(&vm, "FT001", "2");
    vm.wait_until("test -e /dev/serial/by-id");
    let directory = format!("/home/{USER}/.config/containers/systemd");
    vm.run(&user.as_user(&format!("mkdir -p {directory}")));
    vm.write(&format!("{directory}/board.container"), QUADLET);
    let systemctl = |words: &str| vm.run(&user.as_user(&format!("systemctl --user {words}")));
    systemctl("daemon-reload");
    systemctl("start board");
    let container = user.container("board");
    let has_device = || {
        container.is_reachable();
        container.gains("/dev/ttyUSB0");
        vm.wait_until(&user.watcher_in_unit());
    };
    has_device();
    let old = vm.run(&user.watcher_in_unit());
    user.run("podman kill board");
    vm.wait_until(&format!("test $({}) -ne {old}", user.watcher_in_unit()));
    has_device();

    vm.reboot();
    user.has_manager();
    has_device();
    container.talks_through(&plugged, "/dev/ttyUSB0");

    // Without lingering, all ends with the last session.
    vm.run(&format!("loginctl disable-linger {USER}"));
    user.is_gone();
    vm.run(&format!(
        "systemd-run --quiet --collect --unit {SESSION} --uid {USER} --property PAMName=login sleep inf"
    ));
    user.has_manager();
    has_device();
    vm.run(&format!("systemctl stop {SESSION}"));
    user.is_gone();

    // Removes the container.
    vm.run(&format!(
        "rm {directory}/board.container && loginctl enable-linger {USER}"
    ));
    user.has_manager();
    drop(container);
    user.remove();
}
