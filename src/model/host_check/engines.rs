//! Findings about the installed engines and runtimes.

use std::path::Path;

use super::engine_config::DEFAULT_HOOK_DIR;
use super::facts::{Containerd, CriO, Docker, Facts, HookFile, Hooks, Podman, Programs};
use super::finding::{Finding, Verdict};
use super::installed::PROGRAMS;
use super::version::Version;

/// The hooks of oci-hotplug, each with the stages at which it must run.
const HOOKS: [(&str, &[&str]); 2] = [
    ("oci-hotplug-prestart", &["createRuntime", "prestart"]),
    ("oci-hotplug-poststop", &["poststop"]),
];

/// Docker supports CDI from the first version on, and enables it by default from the second on.
const DOCKER_CDI: Version = Version(25, 0, 0);
const DOCKER_CDI_UNASKED: Version = Version(28, 2, 0);

/// The same for containerd's CRI plugin.
const CONTAINERD_CDI: Version = Version(1, 7, 0);
const CONTAINERD_CDI_UNASKED: Version = Version(2, 0, 0);

/// The first runc version with createRuntime hooks; its release candidates have them, too.
const RUNC_HOOKS: Version = Version(1, 0, 0);

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let engines = &facts.engines;
    let annotated = facts.cdi.annotated.as_deref();
    let mut findings = Vec::new();
    let programs = &facts.programs;
    findings.extend(engines.podman.as_ref().map(|engine| podman(engine, programs)));
    findings.extend(engines.docker.as_ref().map(|engine| docker(engine, annotated)));
    findings.extend(
        engines
            .containerd
            .as_ref()
            .map(|engine| containerd(engine, annotated)),
    );
    findings.extend(
        engines
            .cri_o
            .as_ref()
            .map(|engine| cri_o(engine, annotated, programs)),
    );
    if findings.is_empty() {
        findings.push(Finding::ok(
            "engines",
            "none of podman, Docker, containerd and CRI-O is installed",
        ));
    }
    findings.extend(
        facts
            .runtimes
            .iter()
            .map(|(name, version)| runtime(name, *version)),
    );
    if facts.runtimes.is_empty() {
        findings.push(Finding::warn(
            "runtimes",
            "none of runc, crun and youki is installed",
            "install one, preferably with an engine: apt-get install podman",
        ));
    }
    findings
}

/// The version of a program, for the beginning of a finding.
fn told(version: Option<Version>) -> String {
    version.map_or_else(|| "unknown version".into(), |version| version.to_string())
}

fn podman(podman: &Podman, programs: &Programs) -> Finding {
    let version = told(podman.version);
    match &podman.hooks {
        Err(error) => Finding::fail("podman", format!("{version}: {error}"), "correct that file"),
        Ok(hooks) => hooks_finding(
            "podman",
            &version,
            hooks,
            programs,
            "hooks_dir under [engine] of /etc/containers/containers.conf",
        ),
    }
}

fn hooks_finding(
    engine: &'static str,
    version: &str,
    hooks: &Hooks,
    programs: &Programs,
    key: &str,
) -> Finding {
    let dirs: Vec<String> = hooks.dirs.iter().map(|dir| dir.display().to_string()).collect();
    for (name, stages) in HOOKS {
        let found = hooks.files.iter().find(|file| {
            file.definition
                .program
                .file_name()
                .is_some_and(|program| program == name)
        });
        let Some(found) = found else {
            let found = format!("{version}: no file starts {name}, in {}", dirs.join(" nor in "));
            let hint = if hooks.dirs.iter().any(|dir| dir == Path::new(DEFAULT_HOOK_DIR)) {
                "install oci-hotplug again".to_owned()
            } else {
                format!("add \"{DEFAULT_HOOK_DIR}\" to {key}")
            };
            return Finding::fail(engine, found, hint);
        };
        let program = &found.definition.program;
        if !found.is_executable && programs.lacks(program) {
            let found = format!("{version}: starts {}, which does not exist", program.display());
            return Finding::caused_by(engine, found, PROGRAMS);
        }
        if let Some((fault, hint)) = fault(found, stages) {
            return Finding::fail(
                engine,
                format!("{version}: {} {fault}", found.path.display()),
                hint,
            );
        }
    }
    Finding::ok(
        engine,
        format!("{version}, starts the hooks of {}", dirs.join(" and ")),
    )
}

fn fault(file: &HookFile, stages: &[&str]) -> Option<(String, String)> {
    let definition = &file.definition;
    if !file.is_executable {
        return Some((
            format!("starts {}, which does not exist", definition.program.display()),
            "install oci-hotplug again, or remove that file".into(),
        ));
    }
    if !definition
        .stages
        .iter()
        .any(|stage| stages.contains(&stage.as_str()))
    {
        return Some((
            format!("starts its hook at stage {}", definition.stages.join(", ")),
            format!("\"stages\": [{:?}]", stages[0]),
        ));
    }
    (!definition.asked_by_annotation).then(|| {
        (
            "is not for containers with the annotation io.oci-hotplug.devices".into(),
            "install oci-hotplug again, or correct \"when\" in it".into(),
        )
    })
}

/// Whether an engine with these spec directories finds the device.
fn finds(spec_dirs: Option<&Vec<std::path::PathBuf>>, annotated: Option<&Path>) -> bool {
    match (spec_dirs, annotated) {
        (Some(dirs), Some(file)) => dirs.iter().any(|dir| file.parent() == Some(dir.as_path())),
        // The engine's default directories were searched for the device; a missing device is
        // reported elsewhere.
        _ => true,
    }
}

fn docker(docker: &Docker, annotated: Option<&Path>) -> Finding {
    let version = told(docker.version);
    let config = match &docker.config {
        Ok(config) => config,
        Err(error) => return Finding::fail("docker", format!("{version}: {error}"), "correct that file"),
    };
    if docker.version.is_some_and(|version| version < DOCKER_CDI) {
        return Finding::warn(
            "docker",
            format!("{version}, without CDI support"),
            "update it to 25 or newer; 28.2 or newer needs no setting",
        );
    }
    let unasked = docker
        .version
        .is_some_and(|version| version >= DOCKER_CDI_UNASKED);
    let (file, restart) = match docker.is_rootless {
        true => ("~/.config/docker/daemon.json", "systemctl --user restart docker"),
        false => ("/etc/docker/daemon.json", "systemctl restart docker"),
    };
    if !config.cdi.unwrap_or(unasked) {
        return Finding::warn(
            "docker",
            format!("{version}, CDI is off"),
            format!("{{\"features\": {{\"cdi\": true}}}} in {file}, then {restart}"),
        );
    }
    // A user may have copies of the specs elsewhere.
    if !docker.is_rootless && !finds(config.spec_dirs.as_ref(), annotated) {
        return Finding::warn(
            "docker",
            format!("{version}, does not look for CDI specs in /etc/cdi"),
            format!("add \"/etc/cdi\" to cdi-spec-dirs in {file}"),
        );
    }
    Finding::ok("docker", format!("{version}, CDI is on"))
}

fn containerd(containerd: &Containerd, annotated: Option<&Path>) -> Finding {
    let version = told(containerd.version);
    let config = match &containerd.config {
        Ok(config) => config,
        Err(error) => return Finding::fail("containerd", format!("{version}: {error}"), "correct that file"),
    };
    if config.cri_is_off {
        return Finding::ok(
            "containerd",
            format!("{version}, used by Docker only: its CRI plugin is disabled"),
        );
    }
    if containerd.version.is_some_and(|version| version < CONTAINERD_CDI) {
        return Finding::warn(
            "containerd",
            format!("{version}, whose CRI plugin has no CDI support (Docker does not need it)"),
            "for Kubernetes: update it to 1.7 or newer",
        );
    }
    let unasked = containerd
        .version
        .is_some_and(|version| version >= CONTAINERD_CDI_UNASKED);
    if !config.cdi.unwrap_or(unasked) {
        return Finding::warn(
            "containerd",
            format!("{version}, CDI is off in its CRI plugin, which Docker does not use"),
            "for Kubernetes: enable_cdi = true under [plugins.\"io.containerd.grpc.v1.cri\"] in /etc/containerd/config.toml, then systemctl restart containerd",
        );
    }
    if !finds(config.spec_dirs.as_ref(), annotated) {
        return Finding::warn(
            "containerd",
            format!("{version}, does not look for CDI specs in /etc/cdi"),
            "add \"/etc/cdi\" to cdi_spec_dirs in /etc/containerd/config.toml",
        );
    }
    Finding::ok("containerd", format!("{version}, CDI is on"))
}

fn cri_o(engine: &CriO, annotated: Option<&Path>, programs: &Programs) -> Finding {
    let version = told(engine.version);
    let config = match &engine.config {
        Ok(config) => config,
        Err(error) => return Finding::fail("cri-o", format!("{version}: {error}"), "correct that file"),
    };
    let finding = hooks_finding(
        "cri-o",
        &version,
        &engine.hooks,
        programs,
        "hooks_dir under [crio.runtime] in a file of /etc/crio/crio.conf.d",
    );
    if let Some(directory) = engine
        .unwatched
        .first()
        .filter(|_| finding.verdict == Verdict::Ok)
    {
        return Finding::fail(
            "cri-o",
            format!(
                "{version}: {} was created after CRI-O started, which therefore runs none of its hooks",
                directory.display()
            ),
            "systemctl restart crio (running containers continue)",
        );
    }
    if finding.hint.is_none() && !finds(config.spec_dirs.as_ref(), annotated) {
        return Finding::warn(
            "cri-o",
            format!("{version}, does not look for CDI specs in /etc/cdi"),
            "add \"/etc/cdi\" to cdi_spec_dirs under [crio.runtime] in a file of /etc/crio/crio.conf.d",
        );
    }
    finding
}

fn runtime(name: &'static str, version: Option<Version>) -> Finding {
    let is_old = name == "runc" && version.is_some_and(|version| version < RUNC_HOOKS);
    if is_old {
        return Finding::fail(
            name,
            format!("{}, without createRuntime hooks", told(version)),
            "update it to 1.0 or newer",
        );
    }
    Finding::ok(name, told(version))
}
