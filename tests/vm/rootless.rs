//! Rootless podman: the containers of an ordinary user, whose systemd manager runs the watchers.

use crate::container::{Container, IDLE};
use crate::engine::Runtime::{self, Crun, Runc};
use crate::engine::podman_image;
use crate::machine::{Machine, machine};
use crate::usb::{Plugged, UsbSerial};

const USER: &str = "alice";

/// A group of the user.
const GROUP: &str = "boards";

/// The adapters belong to the user, as docs/engines.md recommends; one to a group of the user.
const RULES: &str = r#"SUBSYSTEM=="tty", ENV{ID_VENDOR_ID}=="0403", OWNER="alice", MODE="0660"
SUBSYSTEM=="tty", ENV{ID_SERIAL_SHORT}=="FT009", OWNER="root", GROUP="boards", MODE="0660"
"#;

const RULES_FILE: &str = "/etc/udev/rules.d/99-alice.rules";

const ANY_ADAPTER: &str = "--annotation io.oci-hotplug.devices=usb:0403:6001";

/// A user of the machine who lingers, so that systemd runs a manager for it.
struct User<'m> {
    vm: &'m Machine,
    uid: String,
}

impl<'m> User<'m> {
    fn new(vm: &'m Machine) -> Self {
        podman_image(vm);
        vm.write(RULES_FILE, RULES);
        vm.run(&format!(
            "groupadd {GROUP} && useradd --create-home --shell /bin/sh --groups {GROUP} {USER} && \
             loginctl enable-linger {USER} && udevadm control --reload"
        ));
        let uid = vm.run(&format!("id -u {USER}"));
        let user = Self { vm, uid };
        user.has_manager();
        user.run("podman import -q /var/lib/box.tar localhost/box");
        user
    }

    /// Waits until systemd runs a manager for the user.
    fn has_manager(&self) {
        let directory = self.runtime_dir();
        self.vm.wait_until(&format!(
            "test -S {directory}/systemd/private && test -S {directory}/bus"
        ));
    }

    fn runtime_dir(&self) -> String {
        format!("/run/user/{}", self.uid)
    }

    /// The shell command that runs a program of the user with its arguments.
    fn as_user(&self, command: &str) -> String {
        let directory = self.runtime_dir();
        format!(
            "cd /home/{USER} && runuser -u {USER} -- env HOME=/home/{USER} XDG_RUNTIME_DIR={directory} \
             DBUS_SESSION_BUS_ADDRESS=unix:path={directory}/bus {command}"
        )
    }

    /// The same as a unit of the user's manager: podman needs a cgroup that belongs to the user. In
    /// a unit, it would leave conmon in the unit's cgroup, whose processes end with the command.
    fn command(&self, command: &str) -> String {
        self.as_user(&format!(
            "systemd-run --user --quiet --pipe --wait --collect -- env --unset=INVOCATION_ID {command}"
        ))
    }

    fn run(&self, command: &str) -> String {
        self.vm.run(&self.command(command))
    }

    fn start(&self, runtime: Runtime, options: &str) -> Container<'m> {
        let name = self.vm.new_name("c");
        let id = self.run(&format!(
            "podman --runtime {} run -d --name {name} --network none {options} localhost/box {IDLE}",
            runtime.path()
        ));
        self.container(&name).known_as(&id, &name)
    }

    /// A container of the user by its name.
    fn container(&self, name: &str) -> Container<'m> {
        Container::new(
            self.vm,
            self.command(&format!("podman exec -i {name}")),
            self.command(&format!("podman rm -f -t 2 {name}")),
        )
    }

    /// The shell command that prints the process of the user's only watcher in a unit; it fails if
    /// there is none.
    fn watcher_in_unit(&self) -> String {
        format!(
            "pid=$(pgrep -u {USER} oci-hotplug-wat) && \
             grep -q user@{}.service/oci.slice/oci-hotplug.slice/ /proc/$pid/cgroup && echo $pid",
            self.uid
        )
    }

    /// Waits until no container of the user has left anything.
    fn has_nothing_left(&self) {
        self.vm.wait_until(&format!(
            "test -z \"$(ls {}/oci-hotplug/containers)\" && ! pgrep -u {USER} oci-hotplug-wat",
            self.runtime_dir()
        ));
    }

    /// Waits until the user has no session, manager or process any more.
    fn is_gone(&self) {
        let directory = self.runtime_dir();
        self.vm
            .wait_until(&format!("! pgrep -u {USER} && ! test -e {directory}"));
    }

    fn remove(self) {
        self.vm.run(&format!(
            "loginctl disable-linger {USER}; loginctl terminate-user {USER}; rm {RULES_FILE} && udevadm control --reload"
        ));
        self.is_gone();
        self.vm
            .run(&format!("userdel --remove {USER} && groupdel {GROUP}"));
    }
}

fn adapter<'m>(vm: &'m Machine, serial: &'static str, port: &'static str) -> Plugged<'m> {
    vm.plug(&UsbSerial { serial, port })
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn the_manager_of_a_user_restarts_the_watcher_of_a_rootless_container() {
    let vm = machine();
    let user = User::new(&vm);
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
    let plugged = adapter(&vm, "FT001", "2");
    container.gains("/dev/ttyUSB0");
    container.talks_through(&plugged, "/dev/ttyUSB0");
    plugged.unplug();
    container.loses("/dev/ttyUSB0");
    drop(container);
    user.has_nothing_left();
    user.remove();
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn rootless_cdi_devices_pods_and_kept_groups_have_their_adapters() {
    let vm = machine();
    let user = User::new(&vm);
    // Root has generated the CDI device, with the hooks' own arguments.
    let container = user.start(Runc, "--device oci-hotplug.dev/device=serial");
    let plugged = adapter(&vm, "FT001", "2");
    container.gains("/dev/ttyUSB0");
    container.talks_through(&plugged, "/dev/ttyUSB0");
    plugged.unplug();
    container.loses("/dev/ttyUSB0");
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
