//! Rootless podman with the real systemd manager of a user: a watcher that is killed is restarted.

use crate::container::Container;
use crate::engine::podman_image;
use crate::machine::{Machine, machine};
use crate::usb::UsbSerial;

const USER: &str = "alice";

/// The adapter's node belongs to the user, as docs/engines.md recommends.
const RULE: &str = r#"SUBSYSTEM=="tty", ENV{ID_VENDOR_ID}=="0403", OWNER="alice", MODE="0660""#;

/// A user of the machine who lingers, so that systemd runs a manager for it.
struct User<'m> {
    vm: &'m Machine,
    uid: String,
}

impl<'m> User<'m> {
    fn new(vm: &'m Machine) -> Self {
        podman_image(vm);
        vm.run(&format!(
            "useradd --create-home --shell /bin/sh {USER} && loginctl enable-linger {USER} && \
             mkdir -p /run/udev/rules.d && echo '{RULE}' >/run/udev/rules.d/99-{USER}.rules && \
             udevadm control --reload"
        ));
        let uid = vm.run(&format!("id -u {USER}"));
        vm.wait_until(&format!("test -S /run/user/{uid}/systemd/private"));
        let user = Self { vm, uid };
        user.run("podman import -q /var/lib/box.tar localhost/box");
        user
    }

    /// The shell command that runs `command` as the user, outside of a login session.
    fn command(&self, command: &str) -> String {
        let runtime_dir = format!("/run/user/{}", self.uid);
        format!(
            "cd /home/{USER} && runuser -u {USER} -- env HOME=/home/{USER} XDG_RUNTIME_DIR={runtime_dir} \
             DBUS_SESSION_BUS_ADDRESS=unix:path={runtime_dir}/bus {command}"
        )
    }

    fn run(&self, command: &str) -> String {
        self.vm.run(&self.command(command))
    }

    fn start(&self, options: &str) -> Container<'m> {
        let name = self.vm.new_name("c");
        // This shell is not in a cgroup of the user's manager, which podman's default needs.
        let podman = "podman --cgroup-manager cgroupfs";
        self.run(&format!(
            "{podman} run -d --name {name} --network none {options} localhost/box sleep inf"
        ));
        Container::new(
            self.vm,
            self.command(&format!("podman exec -i {name}")),
            self.command(&format!("{podman} rm -f -t 2 {name}")),
        )
    }

    /// The shell command that prints the process of the user's only watcher in a unit; it fails if
    /// there is none.
    fn watcher_in_unit(&self) -> String {
        format!(
            "pid=$(pgrep -u {USER} oci-hotplug-wat) && \
             grep -q user@{}.service/oci-hotplug.slice/ /proc/$pid/cgroup && echo $pid",
            self.uid
        )
    }

    fn remove(self) {
        self.vm.run(&format!(
            "loginctl disable-linger {USER} && loginctl terminate-user {USER}; rm /run/udev/rules.d/99-{USER}.rules && \
             udevadm control --reload"
        ));
        self.vm.wait_until(&format!("! pgrep -u {USER}"));
        self.vm.run(&format!("userdel --remove {USER}"));
    }
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn the_manager_of_a_user_restarts_the_watcher_of_a_rootless_container() {
    let vm = machine();
    let user = User::new(&vm);
    let container = user.start("--annotation io.oci-hotplug.devices=usb:0403:6001");
    vm.wait_until(&user.watcher_in_unit());
    let adapter = || {
        vm.plug(&UsbSerial {
            serial: "FT001",
            port: "2",
        })
    };
    let plugged = adapter();
    container.gains("/dev/ttyUSB0");
    container.talks_through(&plugged, "/dev/ttyUSB0");
    let killed = vm.run(&user.watcher_in_unit());
    vm.run(&format!("kill -9 {killed}"));
    plugged.unplug();
    vm.wait_until(&format!("test $({}) -ne {killed}", user.watcher_in_unit()));
    container.loses("/dev/ttyUSB0");
    let plugged = adapter();
    container.gains("/dev/ttyUSB0");
    container.talks_through(&plugged, "/dev/ttyUSB0");
    plugged.unplug();
    container.loses("/dev/ttyUSB0");
    drop(container);
    vm.wait_until(&format!(
        "test -z \"$(ls /run/user/{}/oci-hotplug/containers)\" && ! pgrep -u {USER} oci-hotplug-wat",
        user.uid
    ));
    user.remove();
}
