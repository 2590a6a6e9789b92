//! The finding for every state of a host.

mod engines;
mod host;

use super::engine_config::{ContainerdConfig, CriOConfig, DEFAULT_HOOK_DIR, DockerConfig, HookDefinition};
use super::facts::*;
use super::version::Version;
use super::*;

fn hook(name: &str, stage: &str) -> HookFile {
    HookFile {
        path: format!("{DEFAULT_HOOK_DIR}/{name}.json").into(),
        definition: HookDefinition {
            program: format!("/usr/libexec/oci/hooks.d/{name}").into(),
            stages: vec![stage.into()],
            asked_by_annotation: true,
        },
        is_executable: true,
    }
}

fn hooks() -> Hooks {
    Hooks {
        dirs: vec![DEFAULT_HOOK_DIR.into()],
        files: vec![
            hook("oci-hotplug-prestart", "createRuntime"),
            hook("oci-hotplug-poststop", "poststop"),
        ],
    }
}

/// A correctly configured host with every engine.
fn ready() -> Facts {
    Facts {
        live: Some(Live {
            uid: 0,
            bpf_error: None,
        }),
        kernel: "6.12.48+deb13-amd64".into(),
        cgroups: Cgroups {
            v2: Some("/sys/fs/cgroup".into()),
            ..Cgroups::default()
        },
        udevd: Udevd::Running,
        selinux: None,
        apparmor: true,
        inotify_instances: Some(128),
        state: StateDir {
            path: "/run/oci-hotplug".into(),
            access: Some(Access {
                is_own: true,
                mode: 0o700,
            }),
            writable: true,
            filesystem: Some("tmpfs".into()),
        },
        configuration: Ok(Configuration {
            path: "/etc/oci-hotplug/config.toml".into(),
            files: 1,
            user_file: None,
            open_files: Vec::new(),
            classes: 1,
            allow: 1,
            deny: 1,
            deny_by_udev: Vec::new(),
            allows_anything: false,
        }),
        programs: Programs {
            dir: "/usr/libexec/oci/hooks.d".into(),
            ..Programs::default()
        },
        systemd: Systemd {
            runs: true,
            has_units: true,
        },
        cdi: Cdi {
            annotated: Some("/etc/cdi/annotated.json".into()),
            ..Cdi::default()
        },
        engines: Engines {
            podman: Some(Podman {
                version: Some(Version(5, 4, 2)),
                hooks: Ok(hooks()),
            }),
            docker: Some(docker(Version(28, 2, 0), None)),
            containerd: Some(containerd(Version(2, 0, 0), None)),
            cri_o: Some(CriO {
                version: Some(Version(1, 36, 0)),
                config: Ok(CriOConfig::default()),
                hooks: hooks(),
                unwatched: Vec::new(),
            }),
        },
        runtimes: vec![("runc", Some(Version(1, 1, 15)))],
        containers: Containers {
            watched: 2,
            ..Containers::default()
        },
    }
}

fn docker(version: Version, cdi: Option<bool>) -> Docker {
    Docker {
        is_rootless: false,
        version: Some(version),
        config: Ok(DockerConfig { cdi, spec_dirs: None }),
    }
}

fn containerd(version: Version, cdi: Option<bool>) -> Containerd {
    Containerd {
        version: Some(version),
        config: Ok(ContainerdConfig {
            cdi,
            ..ContainerdConfig::default()
        }),
    }
}

fn podman_hooks(facts: &mut Facts) -> &mut Hooks {
    facts.engines.podman.as_mut().unwrap().hooks.as_mut().unwrap()
}

fn config(facts: &mut Facts) -> &mut Configuration {
    facts.configuration.as_mut().unwrap()
}

/// The finding of this check on a changed host; all other findings must stay the same.
fn told(check: &str, change: impl FnOnce(&mut Facts)) -> (Verdict, String) {
    let mut facts = ready();
    change(&mut facts);
    let others = |findings: Vec<Finding>| {
        let (it, others): (Vec<_>, Vec<_>) = findings.into_iter().partition(|finding| finding.check == check);
        (it, others)
    };
    let (mut it, rest) = others(judge(&facts));
    assert_eq!(rest, others(judge(&ready())).1, "{check}");
    let Finding {
        verdict, found, hint, ..
    } = it.remove(0);
    assert_eq!(verdict != Verdict::Ok, hint.is_some(), "{check}: {found}");
    let hint = hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
    (verdict, format!("{found}{hint}"))
}

#[track_caller]
fn assert_told(verdict: Verdict, words: &[&str], check: &str, change: impl FnOnce(&mut Facts)) {
    let (found, text) = told(check, change);
    assert_eq!(found, verdict, "{check}: {text}");
    for word in words {
        assert!(text.contains(word), "{check}: {word:?} in {text:?}");
    }
}

#[test]
fn a_correctly_configured_host_has_only_good_findings() {
    let findings = judge(&ready());
    assert!(
        findings.iter().all(|finding| finding.verdict == Verdict::Ok),
        "{findings:#?}"
    );
    let checks: Vec<&str> = findings.iter().map(|finding| finding.check).collect();
    assert_eq!(
        checks,
        [
            "user",
            "kernel",
            "cgroup",
            "bpf",
            "udevd",
            "security",
            "inotify",
            "state",
            "config",
            "programs",
            "units",
            "cdi",
            "containers",
            "podman",
            "docker",
            "containerd",
            "cri-o",
            "runc"
        ]
    );
}
