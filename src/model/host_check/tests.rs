use std::path::PathBuf;

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
                of_root: true,
                mode: 0o700,
            }),
            writable: true,
            filesystem: Some("tmpfs".into()),
        },
        configuration: Ok(Configuration {
            path: "/etc/oci-hotplug/config.toml".into(),
            files: 1,
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
        verdict, seen, hint, ..
    } = it.remove(0);
    assert_eq!(verdict != Verdict::Ok, hint.is_some(), "{check}: {seen}");
    let hint = hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
    (verdict, format!("{seen}{hint}"))
}

#[track_caller]
fn assert_told(verdict: Verdict, words: &[&str], check: &str, change: impl FnOnce(&mut Facts)) {
    let (found, text) = told(check, change);
    assert_eq!(found, verdict, "{check}: {text}");
    for word in words {
        assert!(text.contains(word), "{check}: {word:?} in {text:?}");
    }
}

use Verdict::{Fail, Ok as Good, Warn};

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

#[test]
fn the_kernel_must_have_all_required_features() {
    assert_told(Good, &["5.6.0"], "kernel", |host| host.kernel = "5.6.0".into());
    assert_told(
        Fail,
        &["Linux 5.4.0-42-generic (update it to Linux 5.6"],
        "kernel",
        |host| {
            host.kernel = "5.4.0-42-generic".into();
        },
    );
    assert_told(Warn, &["version is unknown", "mount /proc"], "kernel", |host| {
        host.kernel = String::new()
    });
}

#[test]
fn a_cgroup_hierarchy_must_control_devices() {
    let v1 = Some(PathBuf::from("/sys/fs/cgroup/devices"));
    assert_told(Warn, &["hybrid without a devices controller"], "cgroup", |host| {
        host.cgroups.other_v1 = true;
    });
    assert_told(Fail, &["no hierarchy", "mount cgroup2"], "cgroup", |host| {
        host.cgroups.v2 = None;
    });
    // cgroup v1 needs no BPF; the check `bpf` says so.
    let bpf = |host: &Facts| judge(host)[3].seen.clone();
    let mut host = ready();
    assert_eq!(bpf(&host), "device programs can be loaded");
    host.cgroups.v1_devices = v1.clone();
    assert_eq!(
        bpf(&host),
        "device programs can be loaded, and cgroup v1 needs none"
    );
    host.live.as_mut().unwrap().bpf_error = Some("Operation not permitted".into());
    let findings = judge(&host);
    assert!(
        findings.iter().all(|finding| finding.verdict == Good),
        "{findings:#?}"
    );
    assert!(
        findings[2]
            .seen
            .starts_with("hybrid: v1's devices controller at /sys/fs/cgroup/devices")
    );
    host.cgroups.v2 = None;
    assert!(judge(&host)[2].seen.starts_with("v1, "));
}

#[test]
fn cgroup_v2_needs_bpf() {
    assert_told(
        Fail,
        &["Operation not permitted", "CAP_BPF", "CONFIG_CGROUP_BPF"],
        "bpf",
        |host| host.live.as_mut().unwrap().bpf_error = Some("Operation not permitted".into()),
    );
}

#[test]
fn a_user_other_than_root_gets_one_warning() {
    let mut host = ready();
    host.live = Some(Live {
        uid: 1000,
        bpf_error: Some("Operation not permitted".into()),
    });
    host.state.writable = false;
    let bad: Vec<Finding> = judge(&host)
        .into_iter()
        .filter(|finding| finding.verdict != Good)
        .collect();
    assert_eq!(bad.len(), 1, "{bad:#?}");
    assert_eq!((bad[0].check, bad[0].verdict), ("user", Fail));
}

#[test]
fn without_udevd_the_finding_says_what_does_not_work() {
    assert_told(
        Warn,
        &["does not run", "systemctl restart systemd-udevd"],
        "udevd",
        |host| {
            host.udevd = Udevd::Silent;
        },
    );
    assert_told(Warn, &["tag:", "/dev/serial/by-id"], "udevd", |host| {
        host.udevd = Udevd::Absent
    });
    let (_, absent) = told("udevd", |host| host.udevd = Udevd::Absent);
    assert!(!absent.contains("these rules"), "{absent}");
    // Case security 4: a deny rule that cannot be evaluated.
    for udevd in [Udevd::Absent, Udevd::Silent] {
        let words = [
            "refuse every device that they could match",
            "[[policy.deny]] at /etc/c.toml line 3",
        ];
        assert_told(Warn, &words, "udevd", |host| {
            host.udevd = udevd;
            config(host)
                .deny_by_udev
                .push("[[policy.deny]] at /etc/c.toml line 3".into());
        });
    }
}

#[test]
fn the_security_module_is_reported() {
    assert_told(
        Warn,
        &["SELinux enforces", "container_use_devices"],
        "security",
        |host| {
            host.selinux = Some(true);
        },
    );
    assert_told(Good, &["permissive"], "security", |host| {
        host.selinux = Some(false)
    });
    assert_told(Good, &["neither"], "security", |host| host.apparmor = false);
}

#[test]
fn watchers_need_inotify_instances() {
    assert_told(Warn, &["8 instances", "sysctl fs.inotify"], "inotify", |host| {
        host.inotify_instances = Some(8);
    });
    let mut host = ready();
    host.containers.watched = 96;
    let finding = &judge(&host)[6];
    assert_eq!((finding.check, finding.verdict), ("inotify", Warn));
    assert!(finding.seen.ends_with("(96 now)"), "{}", finding.seen);
}

#[test]
fn the_state_directory_must_be_roots_and_on_a_volatile_file_system() {
    assert_told(Fail, &["is not writable"], "state", |host| {
        host.state.writable = false
    });
    assert_told(
        Fail,
        &["mode 0755", "chmod 0700 /run/oci-hotplug"],
        "state",
        |host| {
            host.state.access.as_mut().unwrap().mode = 0o755;
        },
    );
    assert_told(Fail, &["another user", "chown root"], "state", |host| {
        host.state.access.as_mut().unwrap().of_root = false;
    });
    assert_told(Warn, &["is on ext4", "below /run"], "state", |host| {
        host.state.filesystem = Some("ext4".into());
    });
    assert_told(Good, &["/run/oci-hotplug, for root only"], "state", |_| {});
    assert_told(Good, &["created with the first container"], "state", |host| {
        host.state.access = None
    });
}

#[test]
fn an_unusable_configuration_fails() {
    assert_told(
        Fail,
        &["cannot read c.toml: line 3 | x ^", "oci-hotplug.toml(5)"],
        "config",
        |host| host.configuration = Err("cannot read c.toml: line 3\n  |\n  x ^\n\n".into()),
    );
    assert_told(
        Fail,
        &["users other than root", "chmod 0644 /etc/x.toml"],
        "config",
        |host| {
            config(host).open_files = vec!["/etc/x.toml".into()];
        },
    );
    assert_told(Warn, &["anything", "removable"], "config", |host| {
        config(host).allows_anything = true
    });
    assert_told(Good, &["1 class, 2 rules"], "config", |_| {});
    assert_told(Good, &["defaults"], "config", |host| config(host).files = 0);
}

#[test]
fn hooks_and_watcher_must_be_complete_of_this_version_and_writable_only_by_root() {
    let name = || vec!["oci-hotplug-watcher".to_owned()];
    assert_told(
        Fail,
        &["oci-hotplug-watcher missing in /usr/libexec"],
        "programs",
        |host| {
            host.programs.missing = name();
        },
    );
    assert_told(
        Fail,
        &["users other than root can write oci-hotplug-watcher"],
        "programs",
        |host| {
            host.programs.open = name();
        },
    );
    assert_told(
        Warn,
        &["version differs", "install oci-hotplug again"],
        "programs",
        |host| {
            host.programs.other_versions = name();
        },
    );
}

/// One hint is enough for one cause.
#[test]
fn what_starts_a_missing_program_refers_to_the_check_of_the_programs() {
    let mut host = ready();
    host.programs.missing = vec!["oci-hotplug-prestart".into()];
    host.cdi.missing_hook = Some("/usr/libexec/oci/hooks.d/oci-hotplug-prestart".into());
    podman_hooks(&mut host).files[0].is_executable = false;
    let findings = judge(&host);
    let failed: Vec<_> = findings
        .iter()
        .filter(|finding| finding.verdict == Fail)
        .map(|finding| (finding.check, finding.caused_by, finding.hint.is_some()))
        .collect();
    let cause = Some("programs");
    assert_eq!(
        failed,
        [
            ("programs", None, true),
            ("cdi", cause, false),
            ("podman", cause, false)
        ]
    );

    // Another program that does not exist has a line with its own hint.
    host.programs.missing.clear();
    let findings = judge(&host);
    let failed = findings.iter().filter(|finding| finding.verdict == Fail);
    assert!(failed.clone().count() == 2 && failed.clone().all(|finding| finding.hint.is_some()));
}

#[test]
fn where_systemd_runs_it_must_have_the_units() {
    assert_told(Warn, &["is not restarted"], "units", |host| {
        host.systemd.has_units = false
    });
    assert_told(Good, &["no systemd", "oci-hotplug recover"], "units", |host| {
        host.systemd = Systemd {
            runs: false,
            has_units: false,
        };
    });
}

#[test]
fn the_device_annotated_must_be_defined_correctly() {
    assert_told(
        Warn,
        &["annotated", "oci-hotplug cdi generate annotated"],
        "cdi",
        |host| {
            host.cdi.annotated = None;
        },
    );
    assert_told(
        Fail,
        &["/etc/cdi/annotated.json: torn", "replace it"],
        "cdi",
        |host| {
            host.cdi.fault = Some(("torn".into(), "replace it"));
        },
    );
    assert_told(
        Warn,
        &["a.json, b.json, c.json and 1 more", "cdi validate"],
        "cdi",
        |host| {
            host.cdi.broken = ["a", "b", "c", "d"]
                .map(|name| format!("{name}.json").into())
                .into();
        },
    );
}

#[test]
fn podman_and_cri_o_must_find_both_hooks() {
    assert_told(Fail, &["5.4.2: /etc/c: line 1", "mend"], "podman", |host| {
        host.engines.podman.as_mut().unwrap().hooks = Err("/etc/c: line 1".into());
    });
    assert_told(
        Fail,
        &["no file starts oci-hotplug-prestart", "install oci-hotplug again"],
        "podman",
        |host| {
            podman_hooks(host).files.clear();
        },
    );
    assert_told(
        Fail,
        &[
            "in /opt/hooks.d",
            "add \"/usr/share/containers/oci/hooks.d\" to hooks_dir under [engine]",
        ],
        "podman",
        |host| {
            *podman_hooks(host) = Hooks {
                dirs: vec!["/opt/hooks.d".into()],
                files: Vec::new(),
            };
        },
    );
    assert_told(Fail, &["no file starts oci-hotplug-poststop"], "cri-o", |host| {
        let engine = host.engines.cri_o.as_mut().unwrap();
        engine.hooks.files.pop();
        // Without a hook file, the directory need not be watched.
        engine.unwatched.push(DEFAULT_HOOK_DIR.into());
    });
    assert_told(
        Fail,
        &[
            "1.36.0: /usr/share/containers/oci/hooks.d was created after CRI-O started",
            "systemctl restart crio",
        ],
        "cri-o",
        |host| {
            let engine = host.engines.cri_o.as_mut().unwrap();
            engine.unwatched.push(DEFAULT_HOOK_DIR.into());
        },
    );
    assert_told(
        Fail,
        &["starts /usr/libexec/oci/hooks.d/oci-hotplug-prestart, which does not exist"],
        "podman",
        |host| {
            podman_hooks(host).files[0].is_executable = false;
        },
    );
    assert_told(
        Fail,
        &["at stage poststart", "\"stages\": [\"createRuntime\"]"],
        "podman",
        |host| {
            podman_hooks(host).files[0].definition.stages = vec!["poststart".into()];
        },
    );
    assert_told(Good, &[], "podman", |host| {
        podman_hooks(host).files[0].definition.stages = vec!["prestart".into()];
    });
    assert_told(
        Fail,
        &["is not for containers with the annotation"],
        "podman",
        |host| {
            podman_hooks(host).files[1].definition.asked_by_annotation = false;
        },
    );
}

#[test]
fn engines_that_need_cdi_must_have_it_enabled() {
    for (version, cdi, verdict) in [
        (Version(20, 10, 24), None, Warn),
        (Version(20, 10, 24), Some(true), Warn),
        (Version(25, 0, 0), Some(true), Good),
        (Version(26, 1, 5), None, Warn),
        (Version(26, 1, 5), Some(true), Good),
        (Version(28, 1, 1), None, Warn),
        (Version(28, 2, 0), None, Good),
        (Version(28, 2, 0), Some(false), Warn),
    ] {
        assert_told(verdict, &[&version.to_string()], "docker", |host| {
            host.engines.docker = Some(docker(version, cdi));
        });
    }
    for (version, cdi, verdict) in [
        (Version(1, 6, 20), Some(true), Warn),
        (Version(1, 7, 0), Some(true), Good),
        (Version(1, 7, 24), None, Warn),
        (Version(1, 7, 24), Some(true), Good),
        (Version(2, 0, 0), None, Good),
        (Version(2, 1, 4), Some(false), Warn),
    ] {
        assert_told(verdict, &[&version.to_string()], "containerd", |host| {
            host.engines.containerd = Some(containerd(version, cdi));
        });
    }
    // Docker's own containerd serves no CRI and needs no CDI.
    assert_told(Good, &["Docker only"], "containerd", |host| {
        let mut engine = containerd(Version(1, 7, 27), None);
        engine.config.as_mut().unwrap().cri_is_off = true;
        host.engines.containerd = Some(engine);
    });
}

#[test]
fn an_engine_with_other_spec_directories_is_reported() {
    let elsewhere = || Some(vec![PathBuf::from("/opt/cdi")]);
    assert_told(Warn, &["add \"/etc/cdi\" to cdi-spec-dirs"], "docker", |host| {
        host.engines
            .docker
            .as_mut()
            .unwrap()
            .config
            .as_mut()
            .unwrap()
            .spec_dirs = elsewhere();
    });
    assert_told(
        Warn,
        &["add \"/etc/cdi\" to cdi_spec_dirs"],
        "containerd",
        |host| {
            host.engines
                .containerd
                .as_mut()
                .unwrap()
                .config
                .as_mut()
                .unwrap()
                .spec_dirs = elsewhere();
        },
    );
    assert_told(
        Warn,
        &["add \"/etc/cdi\" to cdi_spec_dirs", "[crio.runtime]"],
        "cri-o",
        |host| {
            host.engines
                .cri_o
                .as_mut()
                .unwrap()
                .config
                .as_mut()
                .unwrap()
                .spec_dirs = elsewhere();
        },
    );
    assert_told(Good, &[], "docker", |host| {
        let both = Some(vec!["/opt/cdi".into(), "/etc/cdi".into()]);
        host.engines
            .docker
            .as_mut()
            .unwrap()
            .config
            .as_mut()
            .unwrap()
            .spec_dirs = both;
    });
}

#[test]
fn an_unreadable_file_of_an_engine_fails() {
    for check in ["docker", "containerd", "cri-o"] {
        let fault = || "/etc/x: line 7".to_owned();
        assert_told(
            Fail,
            &["/etc/x: line 7", "mend that file"],
            check,
            |host| match check {
                "docker" => host.engines.docker.as_mut().unwrap().config = Err(fault()),
                "containerd" => host.engines.containerd.as_mut().unwrap().config = Err(fault()),
                _ => host.engines.cri_o.as_mut().unwrap().config = Err(fault()),
            },
        );
    }
}

#[test]
fn only_installed_engines_are_judged() {
    let mut host = ready();
    host.engines = Engines::default();
    host.runtimes.clear();
    let findings = judge(&host);
    let last: Vec<(&str, Verdict)> = findings[13..]
        .iter()
        .map(|finding| (finding.check, finding.verdict))
        .collect();
    assert_eq!(last, [("engines", Good), ("runtimes", Warn)]);
}

#[test]
fn one_runtime_must_support_the_hooks() {
    assert_told(Fail, &["0.1.1", "1.0 or newer"], "runc", |host| {
        host.runtimes = vec![("runc", Some(Version(0, 1, 1)))];
    });
    assert_told(Good, &["1.0.0"], "runc", |host| {
        host.runtimes = vec![("runc", Some(Version(1, 0, 0)))];
    });
    assert_told(Good, &["unknown version"], "runc", |host| {
        host.runtimes = vec![("runc", None)]
    });
}

#[test]
fn containers_with_problems_are_named() {
    assert_told(
        Fail,
        &["without a watcher: web (oci-hotplug recover)"],
        "containers",
        |host| {
            host.containers.unwatched = vec!["web".into()];
        },
    );
    assert_told(
        Warn,
        &["gone: old (run oci-hotplug recover"],
        "containers",
        |host| {
            host.containers.gone = vec!["old".into()];
        },
    );
    assert_told(Warn, &["cannot read x: torn"], "containers", |host| {
        host.containers.unreadable = vec!["cannot read x: torn".into()];
    });
    assert_told(
        Warn,
        &["1 watcher runs", "--restart-watchers"],
        "containers",
        |host| {
            host.containers.outdated = 1;
        },
    );
    assert_told(
        Warn,
        &[
            "container web has an annotation of oci-hotplug but no watcher",
            "(start it with `--device oci-hotplug.dev/device=annotated`, or attach",
        ],
        "containers",
        |host| {
            let how = "start it with `--device oci-hotplug.dev/device=annotated`";
            host.containers.unhooked = vec![("web".into(), how)];
        },
    );
    assert_told(
        Warn,
        &["container lab was not started, 2m ago: no (`oci-hotplug events`"],
        "containers",
        |host| {
            host.containers.refused = vec!["container lab was not started, 2m ago: no".into()];
        },
    );
    let mut host = ready();
    host.containers.unwatched = vec!["web".into()];
    host.containers.gone = vec!["old".into()];
    let told = judge(&host);
    assert_eq!(
        told.iter()
            .filter(|finding| finding.check == "containers")
            .count(),
        2
    );
}
