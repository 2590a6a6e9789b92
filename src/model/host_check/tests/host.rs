//! Findings about the kernel, cgroups, udevd, the configuration and oci-hotplug's own files.

use std::path::PathBuf;

use super::*;
use crate::model::host_check::facts::*;

use Verdict::{Fail, Ok as Good, Warn};

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
    let bpf = |host: &Facts| judge(host)[3].found.clone();
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
            .found
            .starts_with("hybrid: v1's devices controller at /sys/fs/cgroup/devices")
    );
    host.cgroups.v2 = None;
    assert!(judge(&host)[2].found.starts_with("v1, "));
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

/// A host as an ordinary user checks it.
fn as_user(host: &mut Facts) {
    host.live = Some(Live {
        uid: 1000,
        bpf_error: Some("Operation not permitted".into()),
    });
    host.state.path = "/run/user/1000/oci-hotplug".into();
}

/// The finding of one check of a host that an ordinary user checks.
fn finding_as_user(check: &str, change: impl FnOnce(&mut Facts)) -> Finding {
    let mut host = ready();
    as_user(&mut host);
    change(&mut host);
    let mut findings = judge(&host).into_iter();
    findings.find(|finding| finding.check == check).unwrap()
}

#[test]
fn an_ordinary_user_checks_its_own_containers() {
    let mut host = ready();
    as_user(&mut host);
    let findings = judge(&host);
    assert!(
        findings.iter().all(|finding| finding.verdict == Good),
        "{findings:#?}"
    );
    let user = finding_as_user("user", |_| {});
    assert!(
        user.found
            .contains("user 1000: this is about the user's own rootless containers")
    );
    assert!(
        finding_as_user("state", |_| {})
            .found
            .ends_with("for user 1000 only")
    );
    let state = finding_as_user("state", |host| host.state.writable = false);
    let hint = state.hint.unwrap();
    assert!(
        state.verdict == Fail && hint.contains("loginctl enable-linger 1000"),
        "{hint}"
    );
    let state = finding_as_user("state", |host| host.state.access.as_mut().unwrap().mode = 0o755);
    let hint = state.hint.unwrap();
    assert!(state.verdict == Fail && hint.starts_with("chown 1000 "), "{hint}");
}

#[test]
fn the_file_of_a_user_is_named() {
    let file = "/home/alice/.config/oci-hotplug/config.toml";
    assert_told(Good, &[&format!("and {file}: ")], "config", |host| {
        host.configuration.as_mut().unwrap().user_file = Some(file.into());
    });
}

#[test]
fn a_node_that_a_user_of_the_container_cannot_open_is_a_warning() {
    let expected = [
        "container board, /dev/ttyUSB0: mode 0660",
        "`oci-hotplug explain board /dev/ttyUSB0` shows it for one device",
    ];
    let finding = finding_as_user("containers", |host| {
        host.containers.closed = vec![ClosedNode {
            container: "board".into(),
            path: "/dev/ttyUSB0".into(),
            fault: "mode 0660".into(),
        }];
    });
    assert_eq!(finding.verdict, Warn);
    assert_eq!([finding.found, finding.hint.unwrap()], expected);
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
    assert!(finding.found.ends_with("(96 now)"), "{}", finding.found);
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
        host.state.access.as_mut().unwrap().is_own = false;
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
