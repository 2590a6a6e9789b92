//! Stands for systemd's manager of an ordinary user: a `systemctl` that knows `start`, and starts
//! the program of our unit again until it succeeds. Does not know what the program does.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use super::machine::{Machine, open_to_all};
use super::ordinary_user::OrdinaryUser;

/// What a unit of type `notify` has in its environment (sd_notify(3)). Nothing listens there.
const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET=/run/no-manager";

pub struct UserManager {
    log: PathBuf,
}

impl UserManager {
    /// Starts the manager of a user. It ends with the units that it has started.
    pub fn of(user: &OrdinaryUser<'_>, machine: &Machine) -> Self {
        let unit = user
            .home()
            .join(".config/systemd/user/oci-hotplug-watcher@.service");
        let socket = user.runtime_dir().join("systemd/private");
        for path in [&unit, &socket] {
            fs::create_dir_all(path.parent().expect("it is in a directory"))
                .expect("make a directory of the manager");
            fs::write(path, "").expect("make a file of the manager");
        }
        let log = user.home().join("systemctl.log");
        fs::write(&log, "").expect("make the log of systemctl");
        fs::set_permissions(&log, fs::Permissions::from_mode(0o666)).expect("open the log to the user");
        let script = format!(
            "#!/bin/sh\n\
             printf '%s %s\\n' \"$XDG_RUNTIME_DIR\" \"$*\" >>{log}\n\
             for unit; do :; done\n\
             id=${{unit#oci-hotplug-watcher@}}\n\
             export {NOTIFY_SOCKET}\n\
             until {watcher} --take-over -- \"${{id%.service}}\"; do :; done\n",
            log = log.display(),
            watcher = user.programs().join("oci-hotplug-watcher").display()
        );
        let systemctl = machine.scratch("systemctl");
        fs::write(&systemctl, script).expect("write a systemctl");
        open_to_all(&systemctl);
        fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755)).expect("make it executable");
        mount(
            Some(&systemctl),
            Path::new("/usr/bin/systemctl"),
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
        .expect("mount on /usr/bin/systemctl (install the package systemd)");
        user.end_namespaces();
        Self { log }
    }

    /// `XDG_RUNTIME_DIR` and the arguments of each call of systemctl.
    pub fn calls(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether the manager has started this process as a unit.
    pub fn has_started(&self, pid: i32) -> bool {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment
            .split(|byte| *byte == 0)
            .any(|variable| variable == NOTIFY_SOCKET.as_bytes())
    }
}
