//! The systemd unit of a container's watcher, both as seen from outside (start it) and from inside
//! (notify systemd). Watchers of root have units of the host's systemd; those of a user's rootless
//! containers have units of that user's manager (`systemctl --user`).
//!
//! Does not know what a watcher does. Nothing here waits for systemd.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::rootless::{home, rootless};
use super::spawn::{Child, Streams, spawn_with};
use crate::model::oci::ContainerId;
use crate::model::rootless::Rootless;

/// The unit's name, before and after the container's id.
const UNIT: (&str, &str) = ("oci-hotplug-watcher@", ".service");

/// The maximum length of a unit name (systemd.unit(5): 255 characters).
const UNIT_NAME_MAX: usize = 255;

/// The directories with unit files (systemd.unit(5), "System Unit Search Path").
const UNIT_DIRS: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// The same for the managers of all users (systemd.unit(5), "User Unit Search Path").
const USER_UNIT_DIRS: [&str; 4] = [
    "/etc/systemd/user",
    "/run/systemd/user",
    "/usr/local/lib/systemd/user",
    "/usr/lib/systemd/user",
];

/// The directories with unit files below a user's home directory.
const HOME_UNIT_DIRS: [&str; 2] = [".config/systemd/user", ".local/share/systemd/user"];

/// The socket on which a user's manager serves systemctl, below the user's runtime directory.
const USER_MANAGER_SOCKET: &str = "systemd/private";

/// The paths of systemctl. `PATH` is not searched: its value comes from the process that started
/// this one.
const SYSTEMCTL: [&str; 2] = ["/usr/bin/systemctl", "/bin/systemctl"];

/// The environment variable with the socket for notifications of a unit of type `notify`
/// (sd_notify(3)).
const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

/// The unit for this container's watcher; `None` if its name would be too long.
pub(crate) fn unit_of(id: &ContainerId) -> Option<String> {
    let name = format!("{}{}{}", UNIT.0, escape(id.as_str()), UNIT.1);
    (name.len() <= UNIT_NAME_MAX).then_some(name)
}

/// Escapes a text for use in a unit name (systemd.unit(5), "String Escaping for Inclusion in Unit
/// Names").
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            b'/' => escaped.push('-'),
            b'.' if index == 0 => escaped.push_str("\\x2e"),
            b':' | b'_' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => escaped.push(char::from(byte)),
            _ => escaped.push_str(&format!("\\x{byte:02x}")),
        }
    }
    escaped
}

/// The watcher unit that a process is in, from the text of its `/proc/PID/cgroup`.
pub(crate) fn unit_in(cgroups: &str) -> Option<&str> {
    cgroups
        .lines()
        .flat_map(|line| line.split('/'))
        .rfind(|part| part.starts_with(UNIT.0) && part.ends_with(UNIT.1))
}

/// The service that a process is in, from the text of its `/proc/PID/cgroup`; systemd ends all its
/// processes when the service ends. `None` in a scope, whose processes stay (systemd.scope(5)), and
/// outside of units.
pub(crate) fn service_in(cgroups: &str) -> Option<&str> {
    let path = cgroups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let controllers = fields.next()?;
        fields
            .next()
            .filter(|_| controllers.is_empty() || controllers == "name=systemd")
    })?;
    let is_unit = |part: &&str| part.ends_with(".service") || part.ends_with(".scope");
    path.split('/')
        .rfind(is_unit)
        .filter(|unit| unit.ends_with(".service"))
}

/// A systemd manager: what starts units, and restarts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manager {
    /// The one that runs the host.
    System,
    /// The one of a user, which runs as long as the user has a session or lingers
    /// (user@.service(5)).
    User(Rootless),
}

impl Manager {
    /// The manager for units of this process's user.
    pub fn own() -> Self {
        rootless().map_or(Self::System, Self::User)
    }

    /// Whether the manager runs and has the unit.
    pub fn has_unit(self) -> bool {
        let file = format!("{}{}", UNIT.0, UNIT.1);
        self.is_running() && self.unit_dirs().iter().any(|dir| dir.join(&file).exists())
    }

    /// sd_booted(3); of a user's manager, whether its socket exists.
    pub fn is_running(self) -> bool {
        match self {
            Self::System => Path::new("/run/systemd/system").is_dir(),
            Self::User(user) => user.runtime_dir().join(USER_MANAGER_SOCKET).exists(),
        }
    }

    fn unit_dirs(self) -> Vec<PathBuf> {
        match self {
            Self::System => UNIT_DIRS.map(PathBuf::from).into(),
            Self::User(user) => user_unit_dirs(&user.runtime_dir(), home(user).as_deref()),
        }
    }

    /// The command that an operator uses with this manager.
    pub fn command(self) -> &'static str {
        match self {
            Self::System => "systemctl",
            Self::User(_) => "systemctl --user",
        }
    }

    /// Starts `systemctl start` for a unit. Does not wait until systemd has started it.
    ///
    /// # Errors
    /// When systemctl is not installed or cannot be started.
    pub fn start(self, unit: &str) -> io::Result<Child> {
        let program = SYSTEMCTL
            .iter()
            .find(|path| Path::new(path).exists())
            .ok_or(io::ErrorKind::NotFound)?;
        let start = ["start", "--no-block", "--quiet", unit].map(OsStr::new);
        match self {
            Self::System => spawn_with(&[], Path::new(program), &start, Streams::default()),
            Self::User(user) => {
                let mut runtime_dir = OsString::from("XDG_RUNTIME_DIR=");
                runtime_dir.push(user.runtime_dir());
                let arguments: Vec<&OsStr> = [OsStr::new("--user")].into_iter().chain(start).collect();
                spawn_with(
                    &[&runtime_dir],
                    Path::new(program),
                    &arguments,
                    Streams::default(),
                )
            }
        }
    }
}

/// The directories in which the manager of a user looks for units. The user's own come first.
fn user_unit_dirs(runtime_dir: &Path, home: Option<&Path>) -> Vec<PathBuf> {
    let in_home = HOME_UNIT_DIRS.iter().filter_map(|dir| Some(home?.join(dir)));
    let of_all = USER_UNIT_DIRS.map(PathBuf::from);
    let mut dirs: Vec<PathBuf> = in_home.collect();
    dirs.push(runtime_dir.join("systemd/user"));
    dirs.extend(of_all);
    dirs
}

/// Whether systemd started this process as a unit of type `notify`.
pub(crate) fn is_systemd_unit() -> bool {
    std::env::var_os(NOTIFY_SOCKET).is_some()
}

/// How often this process must notify systemd that it is alive: half of the unit's `WatchdogSec=`
/// (sd_watchdog_enabled(3)). `None` if the unit has no watchdog, or if the watchdog is for another
/// process.
pub(crate) fn watchdog_interval() -> Option<Duration> {
    let variable = |name| std::env::var(name).ok();
    interval(
        variable("WATCHDOG_USEC")?.as_str(),
        variable("WATCHDOG_PID").as_deref(),
        std::process::id(),
    )
}

fn interval(microseconds: &str, pid: Option<&str>, own: u32) -> Option<Duration> {
    let is_ours = pid.is_none_or(|pid| pid.parse() == Ok(own));
    let limit = Duration::from_micros(microseconds.parse().ok().filter(|limit| *limit > 0)?);
    is_ours.then_some(limit / 2)
}

/// Sends a state such as `READY=1` or `STATUS=...` to systemd (sd_notify(3)). Does nothing outside
/// of a unit.
pub(crate) fn notify(text: &str) {
    let send = |name: &OsStr| -> io::Result<usize> {
        let address = match name.as_bytes() {
            [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
            _ => SocketAddr::from_pathname(name)?,
        };
        UnixDatagram::unbound()?.send_to_addr(text.as_bytes(), &address)
    };
    // Failure needs no handling: systemd itself reports a unit that never becomes ready.
    let _ = std::env::var_os(NOTIFY_SOCKET).map(|name| send(&name));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The inverse of systemd.unit(5)'s escaping.
    fn unescape(text: &str) -> String {
        let mut bytes = text.bytes();
        let mut plain = Vec::new();
        while let Some(byte) = bytes.next() {
            match byte {
                b'-' => plain.push(b'/'),
                b'\\' => {
                    assert_eq!(bytes.next(), Some(b'x'));
                    let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                    plain.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
                }
                other => plain.push(other),
            }
        }
        String::from_utf8(plain).unwrap()
    }

    #[test]
    fn unit_names_are_escaped_like_systemd_escape_does() {
        // Each pair is from systemd-escape(1) of systemd 252 and 257.
        for (plain, escaped) in [
            ("web-1", "web\\x2d1"),
            ("a.b_c+d", "a.b_c\\x2bd"),
            (".hidden", "\\x2ehidden"),
            ("ä:b c", "\\xc3\\xa4:b\\x20c"),
            ("a/b", "a-b"),
        ] {
            assert_eq!(escape(plain), escaped);
        }
        assert_eq!(
            unit_of(&"web-1".parse().unwrap()).unwrap(),
            "oci-hotplug-watcher@web\\x2d1.service"
        );
    }

    #[test]
    fn a_process_ends_with_the_innermost_unit_if_that_is_a_service() {
        for (cgroups, service) in [
            ("0::/system.slice/job.service\n", Some("job.service")),
            ("0::/system.slice/job.service/payload\n", Some("job.service")),
            (
                "0::/user.slice/user-1000.slice/user@1000.service/app.slice/run-1.service\n",
                Some("run-1.service"),
            ),
            (
                "0::/user.slice/user-1000.slice/user@1000.service/app.slice/terminal.scope\n",
                None,
            ),
            ("0::/user.slice/user-0.slice/session-1.scope\n", None),
            (
                "4:cpu,cpuacct:/elsewhere\n1:name=systemd:/system.slice/job.service\n0::/\n",
                Some("job.service"),
            ),
            ("0::/\n", None),
            ("", None),
            ("a:b", None),
        ] {
            assert_eq!(service_in(cgroups), service, "{cgroups:?}");
        }
    }

    #[test]
    fn a_user_s_manager_also_has_the_units_of_the_user() {
        let runtime_dir = Path::new("/run/user/1000");
        let dirs = user_unit_dirs(runtime_dir, Some(Path::new("/home/alice")));
        let own = [
            "/home/alice/.config/systemd/user",
            "/home/alice/.local/share/systemd/user",
        ];
        assert_eq!(dirs[..2], own.map(PathBuf::from));
        for dir in [
            "/run/user/1000/systemd/user",
            "/etc/systemd/user",
            "/usr/lib/systemd/user",
        ] {
            assert!(dirs.contains(&dir.into()), "{dir}");
        }
        // A user without an entry in the user database has those of the host.
        assert_eq!(user_unit_dirs(runtime_dir, None), dirs[2..]);
    }

    #[test]
    fn a_user_without_a_runtime_directory_has_no_manager() {
        let nobody = Manager::User(Rootless {
            uid: u32::MAX - 1,
            is_namespace_root: true,
        });
        assert!(!nobody.is_running() && !nobody.has_unit());
        assert_eq!(nobody.command(), "systemctl --user");
    }

    #[test]
    fn the_watchdog_interval_is_half_of_the_limit() {
        assert_eq!(interval("60000000", None, 7), Some(Duration::from_secs(30)));
        assert_eq!(interval("1", Some("7"), 7), Some(Duration::from_nanos(500)));
        assert_eq!(interval("60000000", Some("8"), 7), None);
        for text in ["", "0", "-1", "soon", "99999999999999999999"] {
            assert_eq!(interval(text, None, 7), None, "{text}");
        }
    }

    #[test]
    fn an_id_that_is_too_long_for_a_unit_name_has_no_unit() {
        assert_eq!(unit_of(&"a".repeat(227).parse().unwrap()).unwrap().len(), 255);
        assert_eq!(unit_of(&"a".repeat(228).parse().unwrap()), None);
        assert_eq!(unit_of(&"-".repeat(100).parse().unwrap()), None);
    }

    #[test]
    fn the_unit_of_a_process_is_read_from_its_cgroup() {
        let unit = "oci-hotplug-watcher@web\\x2d1.service";
        let unified = format!("0::/oci.slice/oci-hotplug.slice/{unit}\n");
        let hybrid = format!("5:devices:/x\n1:name=systemd:/oci-hotplug.slice/{unit}\n0::/\n");
        assert_eq!([unit_in(&unified), unit_in(&hybrid)], [Some(unit), Some(unit)]);
        assert_eq!(unit_in("0::/machine.slice/libpod-conmon-1.scope\n"), None);
    }

    proptest! {
        #[test]
        fn an_escaped_text_has_only_allowed_characters_and_can_be_unescaped(text in "[!-~äß]{1,60}") {
            prop_assume!(!text.contains('\\'));
            let escaped = escape(&text);
            prop_assert!(escaped.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":-_.\\".contains(&byte)));
            prop_assert!(!escaped.starts_with('.'));
            prop_assert_eq!(unescape(&escaped), text);
        }
    }
}
