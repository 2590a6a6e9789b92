//! Findings about the state directory, the configuration, and oci-hotplug's own files.

use super::facts::Facts;
use super::finding::Finding;
use super::system::ordinary_user;
use super::text::{counted, listed};

/// File systems whose content a reboot removes.
const VOLATILE: [&str; 2] = ["tmpfs", "ramfs"];

const MEND_PROGRAMS: &str = "install oci-hotplug again";

/// The check that reports missing programs; the checks of what starts them refer to it.
pub(super) const PROGRAMS: &str = "programs";

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    vec![
        state(facts),
        config(facts),
        programs(facts),
        units(facts),
        cdi(facts),
    ]
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
