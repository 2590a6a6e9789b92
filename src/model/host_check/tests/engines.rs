//! Findings about engines and runtimes.

use std::path::PathBuf;

use super::*;
use crate::model::host_check::engine_config::DEFAULT_HOOK_DIR;
use crate::model::host_check::facts::*;
use crate::model::host_check::version::Version;

use Verdict::{Fail, Ok as Good, Warn};

#[test]
fn podman_and_cri_o_must_find_both_hooks() {
    assert_told(
        Fail,
        &["5.4.2: /etc/c: line 1", "correct that file"],
        "podman",
        |host| {
            host.engines.podman.as_mut().unwrap().hooks = Err("/etc/c: line 1".into());
        },
    );
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
fn the_rootless_docker_of_a_user_is_configured_in_the_home_directory() {
    let hints = ["~/.config/docker/daemon.json", "systemctl --user restart"];
    assert_told(Warn, &hints, "docker", |host| {
        let mut of_user = docker(Version(26, 1, 5), None);
        of_user.is_rootless = true;
        host.engines.docker = Some(of_user);
    });
    assert_told(Good, &["CDI is on"], "docker", |host| {
        let mut of_user = docker(Version(26, 1, 5), Some(true));
        of_user.is_rootless = true;
        of_user.config.as_mut().unwrap().spec_dirs = Some(vec!["/home/alice/.config/cdi".into()]);
        host.engines.docker = Some(of_user);
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
            &["/etc/x: line 7", "correct that file"],
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
