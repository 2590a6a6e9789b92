//! Findings about the user, the kernel, its cgroups, udevd and security modules.

use super::facts::{Facts, Udevd};
use super::finding::Finding;
use super::version::Version;

/// The first kernel with all required features: openat2(2), pidfd_open(2), and BPF_F_REPLACE of
/// bpf(2), which is the latest of them.
const OLDEST_KERNEL: Version = Version(5, 6, 0);

/// The kernel's default limit per user (fs/notify/inotify/inotify_user.c), in force unless systemd
/// or the administrator raises it.
const USUAL_INOTIFY_INSTANCES: u64 = 128;

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(user(facts));
    findings.push(kernel(&facts.kernel));
    findings.push(cgroup(facts));
    findings.extend(bpf(facts));
    findings.push(udevd(facts));
    findings.push(security(facts));
    findings.extend(inotify(facts));
    findings
}

/// The user who runs the check, unless that is root.
pub(super) fn ordinary_user(facts: &Facts) -> Option<u32> {
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
