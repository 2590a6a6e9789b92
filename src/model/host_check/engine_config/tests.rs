use super::*;

fn paths(texts: &[&str]) -> Vec<PathBuf> {
    texts.iter().map(PathBuf::from).collect()
}

#[test]
fn dockers_file_says_whether_cdi_is_on_and_where_specs_are() {
    let parsed = DockerConfig::parse(
        r#"{ "log-driver": "journald", "features": { "containerd-snapshotter": true, "cdi": true },
                 "cdi-spec-dirs": ["/etc/cdi", "/opt/cdi"] }"#,
    )
    .unwrap();
    assert_eq!(parsed.cdi, Some(true));
    assert_eq!(parsed.spec_dirs, Some(paths(&["/etc/cdi", "/opt/cdi"])));
    let off = DockerConfig::parse(r#"{"features": {"cdi": false}}"#).unwrap();
    assert_eq!(off.cdi, Some(false));
    for nothing in ["", "\n", "{}", r#"{"live-restore": true}"#] {
        assert_eq!(
            DockerConfig::parse(nothing).unwrap(),
            DockerConfig::default(),
            "{nothing:?}"
        );
    }
    let error = DockerConfig::parse("{\"features\": {\"cdi\": true},}").unwrap_err();
    assert!(error.contains("line 1"), "{error}");
}

#[test]
fn containerds_file_is_parsed_in_all_three_versions() {
    for (text, expected) in [
        ("[plugins.cri]\nenable_cdi = true\n", Some(true)),
        (
            "version = 2\n[plugins]\n  [plugins.\"io.containerd.grpc.v1.cri\"]\n    enable_cdi = false\n    [plugins.\"io.containerd.grpc.v1.cri\".containerd]\n      snapshotter = \"overlayfs\"\n",
            Some(false),
        ),
        (
            "version = 3\n[plugins.'io.containerd.cri.v1.runtime']\nenable_cdi = true\n[plugins.'io.containerd.cri.v1.images']\nsnapshotter = 'overlayfs'\n",
            Some(true),
        ),
        ("version = 3\n", None),
        ("", None),
    ] {
        let mut config = ContainerdConfig::default();
        assert_eq!(config.take(text).unwrap(), Vec::<String>::new());
        assert_eq!(config.cdi, expected, "{text}");
        assert!(!config.cri_is_off, "{text}");
    }
}

#[test]
fn imported_files_override_containerds_file_key_by_key() {
    let mut config = ContainerdConfig::default();
    let imports = config
        .take("version = 2\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n[plugins.\"io.containerd.grpc.v1.cri\"]\nenable_cdi = false\ncdi_spec_dirs = [\"/opt/cdi\"]\n")
        .unwrap();
    assert_eq!(imports, ["/etc/containerd/conf.d/*.toml"]);
    config
        .take("[plugins.\"io.containerd.grpc.v1.cri\"]\nenable_cdi = true\n")
        .unwrap();
    assert_eq!(config.cdi, Some(true));
    assert_eq!(config.spec_dirs, Some(paths(&["/opt/cdi"])));
}

#[test]
fn dockers_own_containerd_has_no_cri() {
    let mut config = ContainerdConfig::default();
    config.take("disabled_plugins = [\"cri\"]\n").unwrap();
    assert!(config.cri_is_off);
    assert!(config.take("disabled_plugins = 1\n").is_err());
}

#[test]
fn cri_os_drop_ins_override_key_by_key() {
    let mut config = CriOConfig::default();
    assert_eq!(config.hooks_dirs, paths(&[DEFAULT_HOOK_DIR]));
    config
        .take("[crio]\nroot = \"/var/lib/containers/storage\"\n[crio.runtime]\nhooks_dir = [\"/opt/hooks.d\"]\ncdi_spec_dirs = [\"/etc/cdi\"]\n[crio.runtime.runtimes.crun]\nruntime_path = \"/usr/bin/crun\"\n")
        .unwrap();
    config
        .take("[crio.runtime]\nhooks_dir = [\"/usr/share/containers/oci/hooks.d\", \"/opt/hooks.d\"]\n")
        .unwrap();
    assert_eq!(config.hooks_dirs, paths(&[DEFAULT_HOOK_DIR, "/opt/hooks.d"]));
    assert_eq!(config.spec_dirs, Some(paths(&["/etc/cdi"])));
}

#[test]
fn podmans_directories_are_replaced_or_extended() {
    let mut dirs = paths(&[DEFAULT_HOOK_DIR]);
    take_podman_hooks_dirs(&mut dirs, "[engine]\nruntime = \"crun\"\n").unwrap();
    assert_eq!(dirs, paths(&[DEFAULT_HOOK_DIR]));
    take_podman_hooks_dirs(&mut dirs, "[engine]\nhooks_dir = [\"/opt/a\", {append = true}]\n").unwrap();
    assert_eq!(dirs, paths(&[DEFAULT_HOOK_DIR, "/opt/a"]));
    take_podman_hooks_dirs(&mut dirs, "[engine]\nhooks_dir = [\"/opt/b\"]\n").unwrap();
    assert_eq!(dirs, paths(&["/opt/b"]));
    let error = take_podman_hooks_dirs(&mut dirs, "[engine\n").unwrap_err();
    assert!(error.contains("line 1"), "{error}");
}

#[test]
fn the_hook_files_of_the_package_run_for_containers_with_the_annotation() {
    let prestart = hook_definition(include_str!("../../../../hooks.d/oci-hotplug-prestart.json")).unwrap();
    assert_eq!(
        prestart,
        HookDefinition {
            program: "/usr/libexec/oci/hooks.d/oci-hotplug-prestart".into(),
            stages: vec!["createRuntime".into()],
            asked_by_annotation: true,
        }
    );
    let poststop = hook_definition(include_str!("../../../../hooks.d/oci-hotplug-poststop.json")).unwrap();
    assert_eq!(poststop.stages, ["poststop"]);
    assert!(poststop.asked_by_annotation);
}

#[test]
fn a_hook_file_with_other_conditions_does_not_run_for_containers_with_the_annotation() {
    let asks = |when: &str| {
        let text = format!(
            r#"{{"version": "1.0.0", "hook": {{"path": "/h"}}, "when": {when}, "stages": ["poststop"]}}"#
        );
        hook_definition(&text).unwrap().asked_by_annotation
    };
    assert!(asks(r#"{"always": true}"#));
    assert!(asks(r#"{"annotations": {"^io\\.oci-hotplug\\.": ".*"}}"#));
    for when in [
        "{}",
        r#"{"always": false}"#,
        r#"{"annotations": {"^com\\.example$": ".*"}}"#,
        r#"{"annotations": {"^io\\.oci-hotplug\\.": "^yes$"}}"#,
        r#"{"annotations": {"^io\\.oci-hotplug\\.": ".*", "^other$": ".*"}}"#,
        r#"{"annotations": {"(": ".*"}}"#,
        r#"{"always": true, "commands": ["^/bin/sh$"]}"#,
        r#"{"always": true, "hasBindMounts": true}"#,
    ] {
        assert!(!asks(when), "{when}");
    }
    assert_eq!(hook_definition("{}"), None);
    assert_eq!(hook_definition("no JSON"), None);
}
