//! `oci-hotplug check`

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::json;

use super::enrolled::Enrolled;
use super::not_enrolled::{self, NotEnrolled};
use super::render::color::{BAD, CAUTION, GOOD};
use super::render::json::write_json;
use super::render::table::screen_width;
use super::render::wrap::wrapped;
use crate::cdi::directories::{DEFAULT_DIRECTORIES, Definition, Specs};
use crate::cdi::generate::{ANNOTATED, DEFAULT_KIND, is_our_device};
use crate::exit;
use crate::host::config::{Config, ConfigError, DEFAULT_CONFIG};
use crate::host::host_check::{self, Tree};
use crate::host::rootless::rootless;
use crate::host::state::registry::{DEFAULT_STATE_DIR, Registry};
use crate::host::systemd::Manager;
use crate::host::users::Users;
use crate::model::host_check::facts::{Cdi, ClosedNode, Configuration, Containers, Facts, Systemd};
use crate::model::host_check::{Finding, Verdict, judge};
use crate::model::policy::Fallback;
use crate::model::quoting::visible;

/// The options.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Check the files below this directory instead of the running host.
    #[arg(long, value_name = "DIR", hide = true)]
    root: Option<PathBuf>,
}

/// Prints a line for each check; the exit code says whether one failed.
pub(super) fn run(options: &Options, config: Result<Config, ConfigError>, as_json: bool) -> Result<u8> {
    let (tree, config) = match &options.root {
        None => (Tree::new("/"), config),
        Some(root) => {
            let tree = Tree::new(std::path::absolute(root)?);
            let config = config_of(&tree);
            (tree, config)
        }
    };
    let findings = judge(&facts(&tree, config));
    let failed = count(&findings, Verdict::Fail);
    let mut out = anstream::stdout().lock();
    if as_json {
        let all = json!({ "ready": failed == 0, "findings": findings });
        write_json(&mut out, &all)?;
    } else {
        write(&mut out, &findings, screen_width())?;
    }
    Ok(if failed == 0 { exit::DONE } else { exit::FAILED })
}

fn count(findings: &[Finding], verdict: Verdict) -> usize {
    findings
        .iter()
        .filter(|finding| finding.verdict == verdict)
        .count()
}

fn write(out: &mut impl Write, findings: &[Finding], screen: Option<usize>) -> std::io::Result<()> {
    let width = findings
        .iter()
        .map(|finding| finding.check.len())
        .max()
        .unwrap_or(0);
    for Finding {
        check,
        verdict,
        found,
        hint,
        caused_by,
    } in findings
    {
        let (word, style) = match verdict {
            Verdict::Ok => ("ok  ", GOOD),
            Verdict::Warn => ("warn", CAUTION),
            Verdict::Fail => ("fail", BAD),
        };
        let hint = match (hint, caused_by) {
            (Some(hint), _) => format!(" ({hint})"),
            (None, Some(cause)) => format!(" (see {cause})"),
            (None, None) => String::new(),
        };
        let begin = "warn".len() + 2 + width + 2;
        let found = wrapped(&visible(&format!("{found}{hint}")), begin, begin, screen);
        writeln!(out, "{style}{word}{style:#}  {check:width$}  {found}")?;
    }
    let warnings = match count(findings, Verdict::Warn) {
        0 => String::new(),
        1 => ", with 1 warning".into(),
        more => format!(", with {more} warnings"),
    };
    let failed = count(findings, Verdict::Fail);
    let consequences = findings.iter().filter(|finding| finding.caused_by.is_some());
    match (failed, consequences.count()) {
        (0, _) => writeln!(out, "\nThis host is ready{warnings}."),
        (failed, 0) => writeln!(out, "\nThis host is not ready: {failed} failed{warnings}."),
        (failed, others) => {
            let causes = failed - others;
            writeln!(
                out,
                "\nThis host is not ready: {causes} failed, and {others} because of that{warnings}."
            )
        }
    }
}

fn facts(tree: &Tree, config: Result<Config, ConfigError>) -> Facts {
    let system = host_check::system(tree);
    let state_dir = config.as_ref().map_or_else(
        |_| PathBuf::from(DEFAULT_STATE_DIR),
        |config| config.state_dir.clone(),
    );
    Facts {
        live: tree.is_host().then(host_check::live),
        kernel: system.kernel,
        cgroups: system.cgroups,
        udevd: system.udevd,
        selinux: system.selinux,
        apparmor: system.apparmor,
        inotify_instances: system.inotify_instances,
        state: host_check::state_dir(tree, &state_dir),
        configuration: configuration(tree, config),
        programs: host_check::hook_programs(tree),
        systemd: systemd(tree, system.has_systemd),
        cdi: cdi(tree),
        engines: host_check::engines(tree),
        runtimes: host_check::runtimes(tree),
        containers: containers(tree, &state_dir),
    }
}

/// The systemd manager of the user who runs the check; that of the host for root and for another
/// tree.
fn systemd(tree: &Tree, runs: bool) -> Systemd {
    match Manager::own() {
        manager @ Manager::User(_) if tree.is_host() => Systemd {
            runs: manager.is_running(),
            has_units: manager.has_unit(),
        },
        _ => Systemd {
            runs,
            has_units: host_check::has_units(tree),
        },
    }
}

/// The most containers of each kind that are listed.
const MAX_LISTED: usize = 5;

fn containers(tree: &Tree, state_dir: &Path) -> Containers {
    let mut containers = host_check::containers(tree, state_dir);
    let registry = Registry::new(tree.at(state_dir));
    let refused = not_enrolled::refused(&registry);
    containers.refused = refused
        .iter()
        .map(not_enrolled::sentence)
        .take(MAX_LISTED)
        .collect();
    // Another tree has no running containers.
    if tree.is_host() {
        let all = not_enrolled::all(&registry);
        let listed =
            |container: &NotEnrolled| (container.display_name().to_owned(), container.how_to_start());
        containers.unhooked = all.iter().map(listed).take(MAX_LISTED).collect();
        if rootless().is_some() {
            containers.closed = closed_nodes(&registry);
        }
    }
    containers
}

/// The nodes of the user's containers that someone inside cannot open.
fn closed_nodes(registry: &Registry) -> Vec<ClosedNode> {
    let mut closed = Vec::new();
    for container in Enrolled::all(registry).unwrap_or_default() {
        let Some(status) = &container.status else { continue };
        let users = Users::of(status.container.pid);
        for (path, attachment) in status.attached.iter() {
            closed.extend(users.fault(attachment).map(|fault| ClosedNode {
                container: container.display_name(),
                path: path.clone(),
                fault,
            }));
        }
    }
    closed.truncate(MAX_LISTED);
    closed
}

/// The configuration of another tree: its own file, or the defaults.
fn config_of(tree: &Tree) -> Result<Config, ConfigError> {
    let path = tree.at(DEFAULT_CONFIG);
    if path.exists() {
        Config::load(Some(&path), None)
    } else {
        Config::parse(&path, "")
    }
}

fn configuration(tree: &Tree, config: Result<Config, ConfigError>) -> Result<Configuration, String> {
    let message = |error: ConfigError| error.to_string();
    let config = config.map_err(message)?;
    let policy = config.policy().map_err(message)?;
    let classes = config.classes().map_err(message)?;
    let exists = |path: &Path| path.exists();
    Ok(Configuration {
        path: tree.name(config.path()),
        files: config.files().filter(|path| exists(path)).count(),
        user_file: config.user_file().map(Path::to_owned),
        open_files: config
            .files()
            .filter(|path| exists(path) && host_check::may_be_written_by_others(tree, path))
            .map(|path| tree.name(path))
            .collect(),
        classes: classes.iter().count(),
        allow: policy.allow.len(),
        deny: policy.deny.len(),
        deny_by_udev: policy
            .denials_that_need_udevd()
            .map(ToString::to_string)
            .collect(),
        allows_anything: policy.fallback == Fallback::Anything,
    })
}

/// The CDI specs in the directories that engines read by default.
fn cdi(tree: &Tree) -> Cdi {
    let specs = Specs::scan(&DEFAULT_DIRECTORIES.map(|dir| tree.at(dir)));
    let broken = specs.files.iter().filter(|file| file.spec.is_err());
    let mut cdi = Cdi {
        broken: broken.map(|file| tree.name(&file.path)).collect(),
        ..Cdi::default()
    };
    match specs.devices().remove(&format!("{DEFAULT_KIND}={ANNOTATED}")) {
        None => {}
        Some(Definition::Conflict(paths)) => {
            cdi.annotated = paths.first().map(|path| tree.name(path));
            cdi.fault = Some((
                "another file defines the same device, and engines ignore both".into(),
                "remove the other file; `oci-hotplug cdi list` shows both",
            ));
        }
        Some(Definition::By { file, device, .. }) => {
            cdi.annotated = Some(tree.name(&file.path));
            let mut hooks = device
                .container_edits
                .hooks
                .iter()
                .map(|hook| Path::new(&hook.path));
            if is_our_device(device) {
                let missing = hooks.find(|hook| !tree.has_executable(hook));
                cdi.missing_hook = missing.map(Path::to_owned);
            } else {
                cdi.fault = Some((
                    "it contains more than the two hooks".into(),
                    "oci-hotplug cdi generate annotated --force",
                ));
            }
        }
    }
    cdi
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::cli::pictures;

    /// The host that tests/check.rs uses as well, without the programs.
    #[test]
    fn the_check_of_a_host_without_the_programs_is_pictured() {
        let host = tempfile::tempdir().unwrap();
        let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
        let copied = std::process::Command::new("cp")
            .args(["--archive", "--no-target-directory"])
            .args([&repository.join("tests/fixtures/host"), host.path()])
            .status();
        assert!(copied.unwrap().success());
        let hooks = host.path().join("usr/share/containers/oci/hooks.d");
        std::fs::create_dir_all(&hooks).unwrap();
        for hook in ["oci-hotplug-prestart.json", "oci-hotplug-poststop.json"] {
            symlink(repository.join("hooks.d").join(hook), hooks.join(hook)).unwrap();
        }
        let tree = Tree::new(host.path());
        let findings = judge(&facts(&tree, config_of(&tree)));
        let mut drawn = Vec::new();
        write(&mut drawn, &findings, Some(pictures::COLUMNS)).unwrap();
        pictures::check("check", "oci-hotplug check", &String::from_utf8(drawn).unwrap());
    }
}
