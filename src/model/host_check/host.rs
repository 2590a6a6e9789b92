//! Findings about the host itself and about what is installed.

use std::path::Path;

use super::facts::{Facts, Udevd};
use super::finding::Finding;
use super::version::Version;

/// The first kernel with all required features: openat2(2), pidfd_open(2), and BPF_F_REPLACE of
/// bpf(2), which is the latest of them.
const OLDEST_KERNEL: Version = Version(5, 6, 0);

/// The kernel's default limit per user (fs/notify/inotify/inotify_user.c), in force unless systemd
/// or the administrator raises it.
const USUAL_INOTIFY_INSTANCES: u64 = 128;

/// File systems whose content a reboot removes.
const VOLATILE: [&str; 2] = ["tmpfs", "ramfs"];

const MEND_PROGRAMS: &str = "install oci-hotplug again";

/// The check that reports missing programs; the checks of what starts them refer to it.
pub(super) const PROGRAMS: &str = "programs";

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(user(facts));
    findings.push(kernel(&facts.kernel));
    findings.push(cgroup(facts));
    findings.extend(bpf(facts));
    findings.push(udevd(facts));
    findings.push(security(facts));
    findings.extend(inotify(facts));
    findings.push(state(facts));
    findings.push(config(facts));
    findings.push(programs(facts));
    findings.push(units(facts));
    findings.push(cdi(facts));
    findings.extend(containers(facts));
    findings
}

/// The user who runs the check, unless that is root.
fn ordinary_user(facts: &Facts) -> Option<u32> {
    facts.live.as_ref().map(|live| live.uid).filter(|uid| *uid != 0)
}

fn user(facts: &Facts) -> Option<Finding> {
    facts.live.as_ref()?;
    Some(match ordinary_user(facts) {
        None => Finding::ok("user", "root"),
        Some(uid) => Finding::ok(
            "user",
            format!("user {uid}: this is about the user's own rootless containers; root checks the others"),
        ),
    })
}

fn kernel(release: &str) -> Finding {
    match Version::find(release) {
        Some(version) if version >= OLDEST_KERNEL => Finding::ok("kernel", format!("Linux {release}")),
        Some(_) => Finding::fail(
            "kernel",
            format!("Linux {release}"),
            "update it to Linux 5.6 or newer",
        ),
        None => Finding::warn(
            "kernel",
            "its version is unknown",
            "mount /proc; Linux 5.6 or newer is required",
        ),
    }
}

fn cgroup(facts: &Facts) -> Finding {
    const UNIFY: &str =
        "mount cgroup2 at /sys/fs/cgroup, with systemd by booting with systemd.unified_cgroup_hierarchy=1";
    let cgroups = &facts.cgroups;
    match (&cgroups.v1_devices, &cgroups.v2) {
        (Some(v1), None) => Finding::ok(
            "cgroup",
            format!("v1, the devices controller is at {}", v1.display()),
        ),
        (Some(v1), Some(v2)) => Finding::ok(
            "cgroup",
            format!(
                "hybrid: v1's devices controller at {} decides, v2 is at {}",
                v1.display(),
                v2.display()
            ),
        ),
        (None, Some(v2)) if cgroups.other_v1 => Finding::warn(
            "cgroup",
            format!(
                "hybrid without a devices controller, v2 is at {}: runtimes may set no device filter at all",
                v2.display()
            ),
            UNIFY,
        ),
        (None, Some(v2)) => Finding::ok("cgroup", format!("v2 at {}", v2.display())),
        (None, None) => Finding::fail("cgroup", "no hierarchy that controls devices is mounted", UNIFY),
    }
}

/// Only root may load programs; for other users, the check `user` has already warned.
fn bpf(facts: &Facts) -> Option<Finding> {
    let live = facts.live.as_ref().filter(|live| live.uid == 0)?;
    let is_needed = facts.cgroups.v1_devices.is_none();
    Some(match &live.bpf_error {
        None if is_needed => Finding::ok("bpf", "device programs can be loaded"),
        None => Finding::ok("bpf", "device programs can be loaded, and cgroup v1 needs none"),
        Some(error) if is_needed => Finding::fail(
            "bpf",
            format!("no device program can be loaded: {error}"),
            "give this system CAP_BPF and CAP_SYS_ADMIN, and its kernel CONFIG_CGROUP_BPF",
        ),
        Some(error) => Finding::ok(
            "bpf",
            format!("no device program can be loaded ({error}), and cgroup v1 needs none"),
        ),
    })
}

fn udevd(facts: &Facts) -> Finding {
    const WITHOUT: &str = "requests by tag:, property: and udev's links (/dev/serial/by-id) select nothing";
    let denials = match &facts.configuration {
        Ok(configuration) if !configuration.deny_by_udev.is_empty() => format!(
            ", and these rules, which depend on what udevd knows, refuse every device that they could match: {}",
            configuration.deny_by_udev.join(", ")
        ),
        _ => String::new(),
    };
    match facts.udevd {
        Udevd::Running => Finding::ok("udevd", "runs"),
        Udevd::Silent => Finding::warn(
            "udevd",
            format!("does not run, but its socket exists: {WITHOUT}{denials}"),
            "start it: systemctl restart systemd-udevd",
        ),
        Udevd::Absent => Finding::warn(
            "udevd",
            format!("does not run, so devices are only known from the kernel: {WITHOUT}{denials}"),
            "start systemd-udevd, unless no request needs it",
        ),
    }
}

fn security(facts: &Facts) -> Finding {
    match (facts.selinux, facts.apparmor) {
        (Some(true), _) => Finding::warn(
            "security",
            "SELinux enforces: containers may not open devices that their label does not allow",
            "setsebool -P container_use_devices 1, or run them with --security-opt label=disable",
        ),
        (Some(false), _) => Finding::ok("security", "SELinux is permissive"),
        (None, true) => Finding::ok(
            "security",
            "AppArmor is on; the engines' own profiles leave /dev alone",
        ),
        (None, false) => Finding::ok("security", "neither SELinux nor AppArmor"),
    }
}

fn inotify(facts: &Facts) -> Option<Finding> {
    let limit = facts.inotify_instances?;
    let watchers = facts.containers.watched as u64;
    let found = format!("{limit} instances for root; each watcher needs one");
    Some(
        if limit < USUAL_INOTIFY_INSTANCES || watchers.saturating_mul(4) >= limit.saturating_mul(3) {
            Finding::warn(
                "inotify",
                format!("{found} ({watchers} now)"),
                "sysctl fs.inotify.max_user_instances=1024, and in /etc/sysctl.d",
            )
        } else {
            Finding::ok("inotify", found)
        },
    )
}

fn state(facts: &Facts) -> Finding {
    let state = &facts.state;
    let path = state.path.display();
    let filesystem = state.filesystem.as_deref();
    let user = ordinary_user(facts);
    if !state.writable {
        let hint = match user {
            None => "make its file system writable, or name another state-dir in config.toml".to_owned(),
            Some(uid) => format!("log in as the user, or let root run `loginctl enable-linger {uid}`"),
        };
        return Finding::fail("state", format!("{path} is not writable"), hint);
    }
    let owner = user.map_or_else(|| "root".to_owned(), |uid| format!("user {uid}"));
    if let Some(access) = state
        .access
        .filter(|access| !access.is_own || access.mode & 0o077 != 0)
    {
        let found = if access.is_own { &*owner } else { "another user" };
        let chown = user.map_or_else(|| "root".to_owned(), |uid| uid.to_string());
        return Finding::fail(
            "state",
            format!(
                "{path} belongs to {found} and has mode {:04o}: only {owner} may read it",
                access.mode
            ),
            format!("chown {chown} {path} && chmod 0700 {path}"),
        );
    }
    match filesystem {
        Some(kind) if !VOLATILE.contains(&kind) => Finding::warn(
            "state",
            format!("{path} is on {kind}: records may outlive a reboot"),
            "name a state-dir on a tmpfs, below /run, in config.toml",
        ),
        _ if state.access.is_none() => {
            Finding::ok("state", format!("{path}, created with the first container"))
        }
        _ => Finding::ok("state", format!("{path}, for {owner} only")),
    }
}

fn config(facts: &Facts) -> Finding {
    let config = match &facts.configuration {
        Ok(config) => config,
        Err(error) => {
            let line = error.lines().map(str::trim).filter(|line| !line.is_empty());
            let line = line.collect::<Vec<_>>().join(" ");
            return Finding::fail(
                "config",
                line,
                "fix it: containers that it may affect do not start; see oci-hotplug.toml(5)",
            );
        }
    };
    let path = config.path.display();
    if let Some(open) = config.open_files.first() {
        return Finding::fail(
            "config",
            format!("users other than root can write {}", open.display()),
            format!("chown root:root {0} && chmod 0644 {0}", open.display()),
        );
    }
    if config.allows_anything {
        return Finding::warn(
            "config",
            format!(
                "{path}: policy.default = \"anything\": every container gets any device that it requests and that is not protected"
            ),
            "set it to \"removable\", and add policy.allow rules",
        );
    }
    if config.files == 0 && config.user_file.is_none() {
        return Finding::ok("config", format!("the defaults, because there is no {path}"));
    }
    Finding::ok(
        "config",
        format!(
            "{path}{}: {}, {}",
            config
                .user_file
                .as_ref()
                .map_or_else(String::new, |file| format!(" and {}", file.display())),
            counted(config.classes, "class", "classes"),
            counted(config.allow + config.deny, "rule", "rules")
        ),
    )
}

fn programs(facts: &Facts) -> Finding {
    let programs = &facts.programs;
    let dir = programs.dir.display();
    if !programs.missing.is_empty() {
        return Finding::fail(
            PROGRAMS,
            format!("{} missing in {dir}", programs.missing.join(", ")),
            MEND_PROGRAMS,
        );
    }
    if !programs.open.is_empty() {
        return Finding::fail(
            PROGRAMS,
            format!(
                "users other than root can write {} in {dir}, which root runs",
                programs.open.join(", ")
            ),
            MEND_PROGRAMS,
        );
    }
    if !programs.other_versions.is_empty() {
        return Finding::warn(
            PROGRAMS,
            format!(
                "version differs from this program's: {}",
                programs.other_versions.join(", ")
            ),
            MEND_PROGRAMS,
        );
    }
    Finding::ok(PROGRAMS, format!("hooks and watcher in {dir}"))
}

fn units(facts: &Facts) -> Finding {
    match (facts.systemd.runs, facts.systemd.has_units) {
        (true, true) => Finding::ok("units", "systemd restarts watchers"),
        (true, false) => Finding::warn(
            "units",
            "systemd has no unit oci-hotplug-watcher@.service: a watcher that crashes is not restarted",
            "install oci-hotplug again, or run \"oci-hotplug recover\" regularly",
        ),
        (false, _) => Finding::ok(
            "units",
            "no systemd: run \"oci-hotplug recover\" regularly, for example from cron, to restart crashed watchers",
        ),
    }
}

fn cdi(facts: &Facts) -> Finding {
    const GENERATE: &str = "oci-hotplug cdi generate annotated";
    let cdi = &facts.cdi;
    if let (Some(file), Some(hook)) = (&cdi.annotated, &cdi.missing_hook) {
        let found = format!(
            "{} starts {}, which does not exist",
            file.display(),
            hook.display()
        );
        return match facts.programs.lacks(hook) {
            true => Finding::caused_by("cdi", found, PROGRAMS),
            false => Finding::fail("cdi", found, MEND_PROGRAMS),
        };
    }
    match (&cdi.annotated, &cdi.fault) {
        (None, _) => Finding::warn(
            "cdi",
            "no device oci-hotplug.dev/device=annotated: Docker, Compose and the CRI need it",
            GENERATE,
        ),
        (Some(file), Some((fault, hint))) => {
            Finding::fail("cdi", format!("{}: {fault}", file.display()), *hint)
        }
        (Some(_), None) if !cdi.broken.is_empty() => Finding::warn(
            "cdi",
            format!(
                "engines cannot use {}",
                listed(
                    &cdi.broken
                        .iter()
                        .map(|file| file.display().to_string())
                        .collect::<Vec<_>>()
                )
            ),
            "see oci-hotplug cdi validate",
        ),
        (Some(file), None) => Finding::ok(
            "cdi",
            format!("oci-hotplug.dev/device=annotated in {}", file.display()),
        ),
    }
}

fn containers(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "containers";
    let containers = &facts.containers;
    let mut findings = Vec::new();
    if !containers.unwatched.is_empty() {
        findings.push(Finding::fail(
            CHECK,
            format!("running without a watcher: {}", listed(&containers.unwatched)),
            "oci-hotplug recover",
        ));
    }
    for (name, how) in &containers.unhooked {
        findings.push(Finding::warn(
            CHECK,
            format!("container {name} has an annotation of oci-hotplug but no watcher: its engine did not run the hooks"),
            format!("{how}, or attach devices to the running container with `oci-hotplug attach`"),
        ));
    }
    findings.extend(
        containers
            .refused
            .iter()
            .map(|refused| Finding::warn(CHECK, refused.as_str(), "`oci-hotplug events` shows all of them")),
    );
    findings.extend(containers.closed.iter().map(|closed| {
        let (container, path) = (&closed.container, closed.path.display());
        Finding::warn(
            CHECK,
            format!("container {container}, {path}: {}", closed.fault),
            format!("`oci-hotplug explain {container} {path}` shows it for one device"),
        )
    }));
    if !containers.unreadable.is_empty() {
        findings.push(Finding::warn(
            CHECK,
            listed(&containers.unreadable),
            "run oci-hotplug recover for the reasons",
        ));
    }
    if !containers.gone.is_empty() {
        findings.push(Finding::warn(
            CHECK,
            format!(
                "records of containers that are gone: {}",
                listed(&containers.gone)
            ),
            "run oci-hotplug recover; the next start of a container removes them, too",
        ));
    }
    if containers.outdated > 0 {
        findings.push(Finding::warn(
            CHECK,
            format!(
                "{} running from a replaced executable",
                counted(containers.outdated, "watcher runs", "watchers run")
            ),
            "oci-hotplug recover --restart-watchers",
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(
            CHECK,
            format!("{} a watcher", counted(containers.watched, "has", "have")),
        ));
    }
    findings
}

fn counted(count: usize, one: &str, more: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { more })
}

/// A few names, and the number of the remaining ones.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 3;
    let shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Whether a file is in one of these directories.
pub(super) fn is_in(file: &Path, dirs: &[std::path::PathBuf]) -> bool {
    file.parent()
        .is_some_and(|dir| dirs.iter().any(|known| known == dir))
}
