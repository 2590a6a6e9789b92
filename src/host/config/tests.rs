use super::*;
use crate::model::policy::{ContainerTraits, Fallback, Policy};
use crate::model::request::OnRemoval;
use crate::model::request::annotations::read_list;
use crate::model::request::entry::Origin;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(Path::new("/etc/c.toml"), text).map_err(|error| error.to_string())
}

fn parse_policy(text: &str) -> Result<Policy, String> {
    let config = parse(text)?;
    config.policy().map_err(|error| error.to_string())
}

/// The settings alone: without classes, policy and the path of the file.
fn settings(text: &str) -> Result<Config, String> {
    parse(text).map(|config| Config {
        path: DEFAULT_CONFIG.into(),
        files: Vec::new(),
        ..config
    })
}

#[test]
fn an_empty_file_is_the_default() {
    assert_eq!(settings("").unwrap(), Config::default());
}

#[test]
fn the_packaged_configuration_has_the_defaults() {
    let text = include_str!("../../../packaging/config.toml");
    assert_eq!(settings(text).unwrap(), Config::default());
    // It is still valid with all keys that are shown in comments.
    let uncommented: String = text
        .lines()
        .map(|line| {
            line.strip_prefix("#")
                .filter(|rest| !rest.starts_with([' ', '#']))
                .unwrap_or(line)
        })
        .fold(String::new(), |all, line| all + line + "\n");
    let shown = parse(&uncommented).unwrap();
    let classes = shown.classes().unwrap();
    assert_eq!(
        classes.iter().map(|(name, _)| name).collect::<Vec<_>>(),
        ["lab-board"]
    );
    let policy = shown.policy().unwrap();
    assert_eq!([policy.allow.len(), policy.deny.len()], [1, 1]);
    assert_eq!(
        (policy.fallback, policy.classes_only),
        (Fallback::Removable, false)
    );
    assert_eq!(settings(&uncommented).unwrap(), Config::default());
}

#[test]
fn every_key_is_read() {
    let text = "state-dir = \"/x\"\nlog-level = \"debug\"\nprestart-timeout = 3\nsystemd-unit = \"none\"\n[lowrisc]\nrequired = true\non-removal = \"kill\"\n";
    let config = parse(text).unwrap();
    assert_eq!(config.state_dir, Path::new("/x"));
    assert_eq!(config.log_level, LogLevel::Debug);
    assert_eq!(config.systemd_unit, SystemdUnitSetting::None);
    assert_eq!(config.prestart_timeout, Duration::from_secs(3));
    assert_eq!(
        config.lowrisc,
        LowriscLifecycle {
            required: true,
            on_removal: OnRemoval::Kill,
            has_host_mode: false,
        }
    );
}

#[test]
fn errors_name_the_file_the_place_and_the_fault() {
    let error = parse("log-level = \"info\"\nstate_dir = \"/x\"\n").unwrap_err();
    assert!(
        error.contains("/etc/c.toml") && error.contains("line 2") && error.contains("state_dir"),
        "{error}"
    );
    let error = parse("[class.lab]\ndevices = [\"usb:12345\"]")
        .unwrap()
        .classes()
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with(
            "cannot read the configuration /etc/c.toml: class \"lab\": device request \"usb:12345\""
        ),
        "{error}"
    );
    let error = parse("[class.lab]\ndevcies = []")
        .unwrap()
        .classes()
        .unwrap_err()
        .to_string();
    assert!(error.contains("line 2") && error.contains("devcies"), "{error}");
    assert!(parse("prestart-timeout = 60").unwrap_err().contains("1 to 9"));
    assert!(parse("state-dir = \"run\"").unwrap_err().contains("absolute"));
    assert!(parse("log-level = \"loud\"").unwrap_err().contains("loud"));
    assert!(
        parse("systemd-unit = \"runit\"")
            .unwrap_err()
            .contains("expected `auto` or `none`")
    );
}

#[test]
fn rules_remember_file_and_line() {
    let text = "[policy]\ndefault = \"nothing\"\nclasses-only = true\n\n[[policy.allow]]\ndevices = [\"usb:0403&subsystem:tty\"]\naccess = \"rw\"\n\n[[policy.deny]]\ndevices = [\"port:1-1\"]\nreason = \"the lab's\"\napplies-to = \"all\"\nannotations = { \"io.kubernetes.cri.sandbox-namespace\" = \"kube-*\" }\nuser-namespace = false\nprivileged = true\n";
    let policy = parse_policy(text).unwrap();
    assert_eq!((policy.fallback, policy.classes_only), (Fallback::Nothing, true));
    assert_eq!(
        policy.allow[0].place.to_string(),
        "[[policy.allow]] at /etc/c.toml line 5"
    );
    assert_eq!(
        policy.deny[0].place.to_string(),
        "[[policy.deny]] at /etc/c.toml line 9"
    );
    assert_eq!(policy.deny[0].reason.as_deref(), Some("the lab's"));
    assert_eq!(
        (policy.deny[0].user_namespace, policy.deny[0].privileged),
        (Some(false), Some(true))
    );
}

#[test]
fn an_error_in_a_rule_has_file_line_and_hint() {
    let rule = |rest: &str| parse_policy(&format!("# a comment\n\n[[policy.allow]]\n{rest}\n")).unwrap_err();
    for (rest, said) in [
        (
            "devices = []",
            "no devices: write for example devices = [\"usb:0403\"]",
        ),
        (
            "devices = [\"usb:0403\", \"usb:12345\"]",
            "device \"usb:12345\": vendor id must be 4 hex digits, such as 0403 (devices, element 2)",
        ),
        (
            "devices = [\"parent-of:usb:0403\"]",
            "device \"parent-of:usb:0403\": rules do not support parent-of: select the parent itself, which includes all devices below it (devices, element 1)",
        ),
        (
            "devices = [\"usb:0403;access=r\"]",
            "device \"usb:0403;access=r\": devices of a rule have no options: use the key access = \"rw\" (devices, element 1)",
        ),
        (
            "devices = [\"usb:0403\"]\napplies-to = \"all\"",
            "applies-to is only for [[policy.deny]]: trusted requests need no allow rule",
        ),
    ] {
        assert_eq!(
            rule(rest),
            format!("cannot read the configuration: [[policy.allow]] at /etc/c.toml line 3: {said}")
        );
    }
    for (text, parts) in [
        ("[policy]\ndefault = \"usb\"", ["line 2", "removable"]),
        ("[policy]\nclases-only = true", ["line 2", "clases-only"]),
        (
            "[[policy.deny]]\ndevices = [\"usb:0403\"]\naccess = \"x\"",
            ["line 3", "letters r, w and m"],
        ),
        ("[[policy.deny]]\nreason = \"x\"", ["line 1", "devices"]),
        (
            "[[policy.deny]]\ndevices = [\"usb:0403\"]\nannotations = { \"[\" = \"a\" }",
            ["line 1", "annotations"],
        ),
    ] {
        let error = parse_policy(text).unwrap_err();
        assert!(
            error.contains("/etc/c.toml") && parts.iter().all(|part| error.contains(part)),
            "{error}"
        );
    }
}

/// Loads these files as a configuration with `config.d`.
fn load(files: &[(&str, &str)]) -> Result<Config, String> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("config.d")).unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let config = Config::load(Some(&dir.path().join("config.toml")), None);
    config
        .and_then(|config| config.policy().map(|_| config))
        .map_err(|error| {
            error
                .to_string()
                .replace(dir.path().to_str().unwrap(), "/etc/oci-hotplug")
        })
}

#[test]
fn later_files_win_and_rules_and_classes_add_up() {
    let config = load(&[
        ("config.toml", "log-level = \"debug\"\nprestart-timeout = 3\n[policy]\ndefault = \"nothing\"\n[[policy.allow]]\ndevices = [\"usb:0403\"]\n[class.a]\ndevices = [\"usb:0001\"]\n[lowrisc]\nrequired = true"),
        ("config.d/20-b.toml", "[policy]\ndefault = \"anything\"\n[class.a]\ndevices = [\"usb:0002\"]\n[class.b]\ndevices = [\"usb:0003\"]"),
        ("config.d/10-a.toml", "log-level = \"warn\"\n[policy]\ndefault = \"removable\"\n[[policy.allow]]\ndevices = [\"usb:1050\"]\n[lowrisc]\non-removal = \"kill\""),
        ("config.d/.30-hidden.toml", "rubbish"),
        ("config.d/40-editor.toml~", "rubbish"),
    ])
    .unwrap();
    let policy = config.policy().unwrap();
    assert_eq!(
        (config.log_level, config.prestart_timeout),
        (LogLevel::Warn, Duration::from_secs(3))
    );
    assert_eq!((policy.fallback, policy.allow.len()), (Fallback::Anything, 2));
    assert_eq!(
        (config.lowrisc.required, config.lowrisc.on_removal.clone()),
        (true, OnRemoval::Kill)
    );
    let classes = config.classes().unwrap();
    let classes: Vec<_> = classes
        .iter()
        .map(|(name, class)| (name, class.requests[0].to_string()))
        .collect();
    assert_eq!(
        classes,
        [("a", "usb:0002".to_owned()), ("b", "usb:0003".to_owned())]
    );
}

#[test]
fn an_invalid_drop_in_is_an_error_that_names_the_file() {
    let error = load(&[("config.toml", ""), ("config.d/10-a.toml", "[policy]\n\nx = 1")]);
    let error = error.unwrap_err();
    assert!(
        error.starts_with("cannot read the configuration /etc/oci-hotplug/config.d/10-a.toml: ")
            && error.contains("line 3"),
        "{error}"
    );
    let error = load(&[
        ("config.toml", ""),
        ("config.d/1.toml", "state-dir = \"/x\"\nbroken"),
    ])
    .unwrap_err();
    assert!(error.contains("config.d/1.toml: line 2, column 7: "), "{error}");
    let error = load(&[
        ("config.toml", ""),
        ("config.d/1.toml", "[[policy.deny]]\ndevices = [\"x\"]"),
    ])
    .unwrap_err();
    assert!(
        error.contains("/etc/oci-hotplug/config.d/1.toml line 1: device \"x\""),
        "{error}"
    );
}

/// Whether requests are admitted with this drop-in: one of an annotation, one of root, class a1 and
/// class b2.
fn served(drop_in: &str) -> [bool; 4] {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("config.d")).unwrap();
    std::fs::write(
        dir.path().join("config.toml"),
        "[class.a1]\ndevices = [\"usb:0001\"]\n",
    )
    .unwrap();
    std::fs::write(dir.path().join("config.d/1.toml"), drop_in).unwrap();
    let config = Config::load(Some(&dir.path().join("config.toml")), None).unwrap();
    let (policy, classes) = (config.usable_policy(), config.usable_classes());
    [
        (Origin::Annotation, "usb:0403"),
        (Origin::Root, "usb:0403"),
        (Origin::Annotation, "class:a1"),
        (Origin::Annotation, "class:b2"),
    ]
    .map(|(origin, text)| {
        let Ok(asks) = read_list(origin, text, &classes) else {
            return false;
        };
        let of = ContainerTraits::default();
        asks.entries
            .iter()
            .all(|entry| policy.authorise(&of, entry).is_ok())
    })
}

/// Case newcomer: one broken drop-in.
#[test]
fn a_broken_drop_in_denies_only_what_it_may_be_about() {
    // Annotation, root, class a1 of the intact file, class b2 of the drop-in.
    for (drop_in, expected) in [
        ("[class.b2]\ndevices = [\"usb:0002\"]", [true, true, true, true]),
        (
            "[[policy.allow]] devices = [\"usb:0627:0001\"]",
            [false, true, true, false],
        ),
        (
            "[[policy.allow]]\ndevices = [\"usb:12345\"]",
            [false, true, true, false],
        ),
        ("[class.b2]\ndevices = [\"usb:12345\"]", [true, true, true, false]),
        (
            "[class.b2]\ndevices = [\"usb:0002\"]\nrubbish",
            [false, true, true, false],
        ),
        (
            "[class.a1]\ndevices = [\"usb:12345\"]",
            [true, true, false, false],
        ),
        (
            "[[policy.deny]]\ndevices = [\"usb:0403\"\n",
            [false, false, false, false],
        ),
        (
            "[[policy.deny]]\ndevices = [\"usb:12345\"]\napplies-to = \"all\"",
            [false, false, false, false],
        ),
        (
            "[[policy.dney]]\ndevices = [\"usb:0403\"]\napplies-to = \"all\"",
            [false, false, false, false],
        ),
        ("log-level = \"loud\"", [false, true, true, false]),
    ] {
        assert_eq!(served(drop_in), expected, "{drop_in}");
    }
}

/// The administrator's configuration with the file of a user.
fn with_user_file(administrators: &str, users: &str) -> Config {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join(".config/oci-hotplug");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("config.toml"), users).unwrap();
    Config {
        user_file: UserFile::in_home(home.path()),
        ..parse(administrators).unwrap()
    }
}

#[test]
fn the_file_of_a_user_denies_more_and_defines_untrusted_classes() {
    let administrators = "[policy]\ndefault = \"nothing\"\n[[policy.deny]]\ndevices = [\"usb:0001\"]\n[class.lab]\ndevices = [\"usb:0002\"]\n";
    let users = "[[policy.deny]]\ndevices = [\"usb:0003\"]\n[class.lab]\ndevices = [\"usb:0004\"]\n[class.own]\ndevices = [\"usb:0005\"]\n";
    let config = with_user_file(administrators, users);
    let policy = config.policy().unwrap();
    assert_eq!(policy, config.usable_policy());
    assert_eq!((policy.fallback, policy.deny.len()), (Fallback::Nothing, 2));
    let classes = config.classes().unwrap();
    assert_eq!(classes, config.usable_classes());
    let entries = read_list(Origin::Annotation, "class:lab,class:own", &classes);
    let entries = entries.unwrap().entries;
    let told: Vec<_> = entries
        .iter()
        .map(|entry| (entry.request.to_string(), entry.is_trusted()))
        .collect();
    assert_eq!(
        told,
        [("usb:0002".to_owned(), true), ("usb:0005".to_owned(), false)]
    );
    assert_eq!(config.broken().count(), 0);
}

#[test]
fn a_broken_file_of_a_user_denies_what_it_may_be_about() {
    let of = ContainerTraits::default();
    for (users, is_root_served) in [
        ("log-level = \"debug\"", true),
        ("[[policy.deny]]\ndevices = []", false),
    ] {
        let config = with_user_file("[class.lab]\ndevices = [\"usb:0002\"]\n", users);
        assert!(config.policy().is_err() && config.classes().is_err());
        assert_eq!(config.broken().count(), 1);
        let (policy, classes) = (config.usable_policy(), config.usable_classes());
        assert!(read_list(Origin::Annotation, "class:own", &classes).is_err());
        for (origin, text, is_served) in [
            (Origin::Annotation, "usb:0403", false),
            (Origin::Annotation, "class:lab", is_root_served),
            (Origin::Root, "usb:0403", is_root_served),
        ] {
            let entries = read_list(origin, text, &classes).unwrap().entries;
            assert_eq!(
                policy.authorise(&of, &entries[0]).is_ok(),
                is_served,
                "{users:?} {text}"
            );
        }
    }
}

#[test]
fn the_state_directory_is_found_unless_a_broken_file_may_set_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    let found = |text: &str| {
        std::fs::write(&path, text).unwrap();
        Config::of_state_only(Some(&path), None).map(|config| config.state_dir)
    };
    assert_eq!(found("state-dir = \"/x\"\nunknown = 1"), Some("/x".into()));
    assert_eq!(
        found("rubbish"),
        Some(crate::host::state::registry::DEFAULT_STATE_DIR.into())
    );
    assert_eq!(found("state-dir = \"/x\"\nrubbish"), None);
}

#[test]
fn a_named_file_must_exist() {
    let error = Config::load(Some(Path::new("/nowhere/c.toml")), None)
        .unwrap_err()
        .to_string();
    assert!(error.contains("/nowhere/c.toml"), "{error}");
}
