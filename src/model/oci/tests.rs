//! The states and configurations of all runtimes, and every message about them.

use std::path::{Path, PathBuf};

use super::*;
use proptest::prelude::*;

#[test]
fn the_command_line_of_a_runtime_has_the_bundle_of_its_container_only() {
    let bundle = |words: &str| {
        let id = "c1".parse().unwrap();
        bundle_argument(words.replace(' ', "\0").as_bytes(), &id)
    };
    for words in [
        "/usr/bin/crun --systemd-cgroup create --bundle /b --pid-file /p c1",
        "crun create --bundle=/b c1",
        "runc run -b /b c1",
        "/usr/bin/conmon --api-version 1 -c c1 -u c1 -r /usr/bin/crun -b /b -p /p",
    ] {
        assert_eq!(bundle(words), Some(PathBuf::from("/b")), "{words}");
    }
    for words in [
        "crun create --bundle /b c2",
        "crun create --bundle b c1",
        "crun create c1 --bundle",
        "c1",
        "",
    ] {
        assert_eq!(bundle(words), None, "{words}");
    }
}

#[test]
fn the_states_of_all_runtimes_are_parsed() {
    let states = [
        // runc, createRuntime
        (
            r#"{"ociVersion":"1.2.0","id":"c1","status":"creating","pid":42,"bundle":"/b","annotations":{"k":"v"}}"#,
            Some(42),
        ),
        // crun, createRuntime: `root` is not in the specification
        (
            r#"{"ociVersion":"1.0","id":"c1","pid":42,"root":"/b/rootfs","bundle":"/b","status":"created","annotations":{"k":"v"}}"#,
            Some(42),
        ),
        // crun, poststop: pid 0
        (
            r#"{"ociVersion":"1.0","id":"c1","pid":0,"root":"/b/rootfs","bundle":"/b","status":"stopped","annotations":{"k":"v"}}"#,
            None,
        ),
        // runc, poststop: no pid
        (
            r#"{"ociVersion":"1.2.0","id":"c1","status":"stopped","bundle":"/b","annotations":{"k":"v"}}"#,
            None,
        ),
        // youki before 0.6: its internal state
        (
            r#"{"ociVersion":"v1.0.2","id":"c1","status":"created","pid":42,"bundle":"/b","annotations":{"k":"v"},"created":"2024-01-01T00:00:00Z","creator":0,"useSystemd":false}"#,
            Some(42),
        ),
    ];
    for (json, pid) in states {
        let state = HookState::parse(json.as_bytes()).unwrap();
        assert_eq!(state.id.as_str(), "c1", "{json}");
        assert_eq!(state.pid, pid, "{json}");
        assert_eq!(state.bundle.as_deref(), Some(Path::new("/b")), "{json}");
        assert_eq!(state.annotations["k"], "v", "{json}");
    }
}

#[test]
fn null_annotations_count_as_absent() {
    let state = HookState::parse(br#"{"id":"c1","annotations":null,"pid":null}"#).unwrap();
    assert!(state.annotations.is_empty());
    assert_eq!(state.pid, None);
}

#[test]
fn ids_with_path_components_are_refused() {
    for id in ["", ".", "..", "a/b", "../x", "a\0b", "a b", "é", &"x".repeat(256)] {
        assert!(id.parse::<ContainerId>().is_err(), "{id:?}");
    }
    for id in ["a", "A-b_c.d+e", "...", &"x".repeat(255)] {
        assert_eq!(id.parse::<ContainerId>().unwrap().to_string(), id);
    }
}

#[test]
fn an_error_names_what_is_wrong() {
    let error = |json: &str| HookState::parse(json.as_bytes()).unwrap_err().to_string();
    for text in ["", "[]", "\"c1\"", "[\"c1\",1,\"/b\"]"] {
        assert!(error(text).contains("not a JSON object"), "{}", error(text));
    }
    let long = error(&format!("{{\"id\":\"c1\" \"{}", "x".repeat(5000)));
    assert!(long.len() < 500, "{long}");
    let fault = error(r#"{"id":}"#);
    assert!(fault.contains(": expected value at line 1 column 7 ("), "{fault}");
    assert_eq!(
        error("{}"),
        "cannot read the container's state from standard input: `id` is not a string"
    );
    assert!(error(r#"{"id":"../x"}"#).contains(r#"container id "../x": must be"#));
}

#[test]
fn the_config_has_root_user_and_cgroup() {
    let json = br#"{"ociVersion":"1.0.2","root":{"path":"rootfs","readonly":true},
        "process":{"user":{"uid":1000,"gid":100,"additionalGids":[5]},"args":["sh"],"cwd":"/"},
        "annotations":{"a":"b"},"linux":{"cgroupsPath":"machine.slice:libpod:c1","namespaces":[]}}"#;
    let config = BundleConfig::parse(Path::new("/b"), json).unwrap();
    assert_eq!(config.rootfs, Path::new("/b/rootfs"));
    assert_eq!(config.user, ProcessUser { uid: 1000, gid: 100 });
    assert_eq!(config.cgroups_path.as_deref(), Some("machine.slice:libpod:c1"));
    assert_eq!(config.annotations["a"], "b");
}

#[test]
fn the_last_mount_on_sys_says_whether_it_is_read_only() {
    let read_only = |mounts: &str| {
        let json = format!(r#"{{"root":{{"path":"r"}},"mounts":{mounts}}}"#);
        let config = BundleConfig::parse(Path::new("/b"), json.as_bytes());
        config.unwrap().read_only_sys
    };
    let sys = |options: &str| {
        format!(r#"{{"destination":"/sys","type":"sysfs","source":"sysfs","options":{options}}}"#)
    };
    let (ro, rw) = (sys(r#"["nosuid","ro"]"#), sys(r#"["rw"]"#));
    let cgroup = r#"{"destination":"/sys/fs/cgroup","options":["ro"]}"#;
    assert!(read_only(&format!("[{ro},{cgroup}]")));
    assert!(read_only(&format!("[{rw},{ro}]")));
    for mounts in [
        format!("[{ro},{rw}]"),
        format!("[{rw},{cgroup}]"),
        format!("[{}]", sys("null")),
    ] {
        assert!(!read_only(&mounts), "{mounts}");
    }
    for mounts in ["[]", "null"] {
        assert!(!read_only(mounts), "{mounts}");
    }
}

#[test]
fn user_namespaces_and_privileged_containers_are_recognized() {
    let config = |linux: &str| {
        let json = format!(r#"{{"root":{{"path":"r"}},"linux":{linux}}}"#);
        let config = BundleConfig::parse(Path::new("/b"), json.as_bytes()).unwrap();
        (config.user_namespace, config.allows_every_device)
    };
    let ordinary = r#"{"namespaces":[{"type":"pid"}],"resources":{"devices":[{"allow":false,"access":"rwm"},
        {"allow":true,"type":"c","major":1,"minor":3,"access":"rwm"}]}}"#;
    assert_eq!(config(ordinary), (false, false));
    assert_eq!(
        config(r#"{"namespaces":[{"type":"user"}],"resources":null}"#),
        (true, false)
    );
    // Docker, containerd and podman with --privileged.
    let privileged =
        r#"{"resources":{"devices":[{"allow":false,"access":"rwm"},{"allow":true,"access":"rwm"}]}}"#;
    assert_eq!(config(privileged), (false, true));
    let taken_back = r#"{"resources":{"devices":[{"allow":true,"type":"a","major":-1},{"allow":false}]}}"#;
    assert_eq!(config(taken_back), (false, false));
    for (rule, is_for_every_device) in [
        (r#""type":"a""#, true),
        (r#""type":"a","major":-1,"minor":-1"#, true),
        (r#""type":"c""#, false),
        (r#""type":"a","major":0"#, false),
        (r#""type":"a","major":1"#, false),
        (r#""minor":0"#, false),
        (r#""minor":1"#, false),
    ] {
        let linux = format!(r#"{{"resources":{{"devices":[{{"allow":true,{rule}}}]}}}}"#);
        assert_eq!(config(&linux).1, is_for_every_device, "{rule}");
    }
}

/// Case README 19. runc 1.1.5 started a container with each of these files and ran its hooks.
#[test]
fn every_config_that_runc_accepts_is_accepted() {
    let parse = |json: &str| BundleConfig::parse(Path::new("/b"), json.as_bytes());
    let plain = parse(r#"{"root":{"path":"r"}}"#).unwrap();
    for json in [
        r#"{"root":{"path":"r"},"process":{"user":null}}"#,
        r#"{"root":{"path":"r"},"process":{}}"#,
        r#"{"root":{"path":"r"},"process":null,"linux":null,"annotations":null}"#,
        r#"{"root":{"path":"r"},"process":{"user":{"uid":null,"gid":null,"additionalGids":null,"umask":18,"username":null}}}"#,
        r#"{"root":{"path":"r"},"linux":{"resources":{"devices":[{"access":"rwm"}]}}}"#,
        r#"{"root":{"path":"r"},"linux":{"resources":{"devices":[{"allow":null,"type":null,"major":null,"minor":null,"access":"rwm"}]}}}"#,
        r#"{"root":{"path":"r"},"linux":{"resources":{"devices":null},"namespaces":null,"cgroupsPath":null}}"#,
        r#"{"root":{"path":"r"},"linux":{"resources":null}}"#,
        r#"{"root":{"path":"r"},"foo":{"x":[1e30,null,1e400,123456789012345678901234567890]}}"#,
        r#"{"root":{"path":"x"},"root":{"readonly":false},"root":{"path":"r","path":null}}"#,
        r#"{"ROOT":{"Path":"r"}}"#,
        r#"{"root":{"path":"r"},"proceſs":{"user":{"uid":0}}}"#,
        r#"{"root":{"path":"r"}} garbage"#,
    ] {
        assert_eq!(parse(json).unwrap(), plain, "{json}");
    }
    let emptied = r#"{"root":{"path":"r"},"annotations":{"a":"b"},"annotations":null,"linux":{"namespaces":[{"type":"user"}],"namespaces":null}}"#;
    assert_eq!(parse(emptied).unwrap(), plain, "null empties lists and maps");
    let config = parse(r#"{"root":{},"annotations":{"a":"b"},"annotations":{"c":null,"d":"\ud800x"},"LINUX":{"CGROUPSPATH":"g"},"process":{"user":{"uid":1}},"process":{"user":{"gid":2}}}"#).unwrap();
    assert_eq!(config.rootfs, Path::new("/b"));
    let annotations: Vec<_> = config
        .annotations
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    assert_eq!(annotations[..2], [("a", "b"), ("c", "")]);
    assert!(config.annotations["d"].ends_with('x'), "{annotations:?}");
    assert_eq!(config.user, ProcessUser { uid: 1, gid: 2 });
    assert_eq!(config.cgroups_path.as_deref(), Some("g"));
}

/// Case README 19: a file that runc refuses is refused.
#[test]
fn a_config_that_runtimes_refuse_is_refused_with_its_path() {
    for json in [
        r#"{"root":{"path":"r"},"process":{"user":{"uid":"5"}}}"#,
        r#"{"root":{"path":"r"},"process":{"user":{"uid":-1}}}"#,
        r#"{"root":{"path":"r"},"process":{"user":{"uid":4294967296}}}"#,
        r#"{"root":{"path":"r"},"annotations":{"a":1}}"#,
        r#"{"root":{"path":"r"},"root":null}"#,
        r#"{"root":{"path":"r"}"#,
        "{}",
        "null",
        "[]",
    ] {
        let error = BundleConfig::parse(Path::new("/b"), json.as_bytes()).unwrap_err();
        assert!(
            error.to_string().starts_with("cannot read /b/config.json: "),
            "{error}"
        );
    }
    for (json, expected) in [
        (r#"{"root":5}"#, "expected an object at"),
        (r#"{"root":{"path":5}}"#, "expected a string at"),
        (r#"{"linux":{"namespaces":5}}"#, "expected a list at"),
        (r#"{"annotations":5}"#, "expected an object of strings at"),
    ] {
        let error = BundleConfig::parse(Path::new("/b"), json.as_bytes()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn an_absolute_root_is_not_joined_with_the_bundle() {
    let config = BundleConfig::parse(Path::new("/b"), br#"{"root":{"path":"/var/merged"}}"#).unwrap();
    assert_eq!(config.rootfs, Path::new("/var/merged"));
    assert_eq!(config.user, ProcessUser { uid: 0, gid: 0 });
}

proptest! {
    #[test]
    fn no_state_causes_a_panic(json in ".{0,200}") {
        let _ = HookState::parse(json.as_bytes());
    }

    #[test]
    fn no_config_causes_a_panic(json in ".{0,200}") {
        let _ = BundleConfig::parse(Path::new("/b"), json.as_bytes());
    }

    #[test]
    fn an_id_never_contains_a_separator(text in ".{0,40}") {
        if let Ok(id) = text.parse::<ContainerId>() {
            prop_assert!(!id.as_str().contains('/') && id.as_str() != ".." && id.as_str() != ".");
        }
    }
}
