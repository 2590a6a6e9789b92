//! An ordinary user of the machine, whose systemd manager runs the watchers.

use crate::machine::Machine;

pub const USER: &str = "alice";

/// A group of the user.
const GROUP: &str = "boards";

/// The adapters belong to the user, as docs/engines.md recommends; one to a group of the user.
const RULES: &str = r#"SUBSYSTEM=="tty", ENV{ID_VENDOR_ID}=="0403", OWNER="alice", MODE="0660"
SUBSYSTEM=="tty", ENV{ID_SERIAL_SHORT}=="FT009", OWNER="root", GROUP="boards", MODE="0660"
"#;

const RULES_FILE: &str = "/etc/udev/rules.d/99-alice.rules";

/// A user of the machine who lingers, so that systemd runs a manager for it.
pub struct User<'m> {
    pub vm: &'m Machine,
    uid: String,
}

impl<'m> User<'m> {
    pub fn new(vm: &'m Machine) -> Self {
        vm.run(&format!(
            "groupadd {GROUP} && useradd --create-home --shell /bin/sh --groups {GROUP} {USER}"
        ));
        // udevd reads a new file at any event and looks up its users then; `--reload` does not read
        // an unchanged file again.
        vm.write(RULES_FILE, RULES);
        vm.run(&format!(
            "loginctl enable-linger {USER} && udevadm control --reload"
        ));
        let uid = vm.run(&format!("id -u {USER}"));
        let user = Self { vm, uid };
        user.has_manager();
        user
    }

    /// Waits until systemd runs a manager for the user.
    pub fn has_manager(&self) {
        let directory = self.runtime_dir();
        self.vm.wait_until(&format!(
            "test -S {directory}/systemd/private && test -S {directory}/bus"
        ));
    }

    pub fn runtime_dir(&self) -> String {
        format!("/run/user/{}", self.uid)
    }

    /// The shell command that runs a program of the user with its arguments.
    pub fn as_user(&self, command: &str) -> String {
        let directory = self.runtime_dir();
        format!(
            "cd /home/{USER} && runuser -u {USER} -- env HOME=/home/{USER} XDG_RUNTIME_DIR={directory} \
             DBUS_SESSION_BUS_ADDRESS=unix:path={directory}/bus {command}"
        )
    }

    /// The same as a unit of the user's manager: podman needs a cgroup that belongs to the user. In
    /// a unit, it would leave conmon in the unit's cgroup, whose processes end with the command.
    pub fn command(&self, command: &str) -> String {
        self.as_user(&format!(
            "systemd-run --user --quiet --pipe --wait --collect -- env --unset=INVOCATION_ID {command}"
        ))
    }

    pub fn run(&self, command: &str) -> String {
        self.vm.run(&self.command(command))
    }

    /// The shell command that prints the process of the user's only watcher in a unit; it fails if
    /// there is none.
    pub fn watcher_in_unit(&self) -> String {
        format!(
            "pid=$(pgrep -u {USER} oci-hotplug-wat) && \
             grep -q user@{}.service/oci.slice/oci-hotplug.slice/ /proc/$pid/cgroup && echo $pid",
            self.uid
        )
    }

    /// Waits until no container of the user has left anything.
    pub fn has_nothing_left(&self) {
        self.vm.wait_until(&format!(
            "test -z \"$(ls {}/oci-hotplug/containers)\" && ! pgrep -u {USER} oci-hotplug-wat",
            self.runtime_dir()
        ));
    }

    /// Waits until the user has no session, manager or process any more.
    pub fn is_gone(&self) {
        let directory = self.runtime_dir();
        self.vm
            .wait_until(&format!("! pgrep -u {USER} && ! test -e {directory}"));
    }

    pub fn remove(self) {
        self.vm.run(&format!(
            "loginctl disable-linger {USER}; loginctl terminate-user {USER}; rm {RULES_FILE} && udevadm control --reload"
        ));
        self.is_gone();
        self.vm
            .run(&format!("userdel --remove {USER} && groupdel {GROUP}"));
    }
}
