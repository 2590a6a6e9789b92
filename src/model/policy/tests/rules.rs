//! Allow and deny rules.

use nix::time::ClockId;

use super::*;

#[test]
fn an_invalid_rule_is_refused_with_reason_and_place() {
    let fault = |list, devices: &[&str], applies_to| {
        let definition = RuleDefinition {
            devices: devices.iter().map(|text| text.to_string()).collect(),
            access: None,
            annotations: BTreeMap::new(),
            user_namespace: None,
            privileged: None,
            reason: None,
            applies_to,
        };
        let place = Place {
            list,
            file: "/etc/c.toml".into(),
            line: 7,
        };
        Rule::parse(place, &definition).unwrap_err().to_string()
    };
    let place = "[[policy.deny]] at /etc/c.toml line 7";
    let told = |devices: &[&str]| fault(List::Deny, devices, None);
    assert_eq!(
        told(&[]),
        format!("{place}: no devices: write for example devices = [\"usb:0403\"]")
    );
    assert_eq!(
        told(&["usb:0403", "usb:0403;access=r"]),
        format!(
            "{place}: device \"usb:0403;access=r\": devices of a rule have no options: use the key access = \"rw\" (devices, element 2)"
        )
    );
    assert_eq!(
        told(&["parent-of:usb:0403"]),
        format!(
            "{place}: device \"parent-of:usb:0403\": rules do not support parent-of: select the parent itself, which includes all devices below it (devices, element 1)"
        )
    );
    assert!(told(&["usb:x"]).starts_with(&format!("{place}: device \"usb:x\": ")));
    assert!(
        fault(List::Allow, &["usb:0403"], Some(AppliesTo::All))
            .contains("applies-to is only for [[policy.deny]]")
    );
}

#[test]
fn a_deny_rule_of_a_user_denies_what_the_administrator_allows() {
    let of = ContainerTraits::default();
    let entry = untrusted("subsystem:tty");
    let mut policy = policy(Fallback::Anything, vec![allow(&["glob:**"])], Vec::new());
    let told = |policy: &Policy| told_of(policy, &entry, "/dev/ttyS0", &of);
    assert_eq!(told(&policy), "allowed");
    policy.deny_also(vec![deny(&["subsystem:tty"])]);
    assert_eq!(told(&policy), "[[policy.deny]] at /etc/c.toml line 7");
}

/// The order of decisions, as in the module's comment and packaging/policy.md, pair by pair.
#[test]
fn decisions_are_made_in_the_documented_order() {
    let of = ContainerTraits::default();
    let entry = untrusted("subsystem:block");
    let all = || vec![allow(&["glob:**"])];
    let told = |policy: &Policy, node: &str| told_of(policy, &entry, node, &of);
    let deny_disks = || vec![deny(&["subsystem:block"])];
    let denied = "[[policy.deny]] at /etc/c.toml line 7";
    let classes = |policy: Policy| Policy {
        classes_only: true,
        ..policy
    };
    // Deny before classes-only, a line that nothing lifts, allow rules, the default.
    assert_eq!(
        told(
            &classes(policy(Fallback::Anything, all(), deny_disks())),
            "/dev/sda"
        ),
        denied
    );
    assert_eq!(
        told(&policy(Fallback::Anything, all(), deny_disks()), "/dev/sda"),
        denied
    );
    assert_eq!(
        told(&policy(Fallback::Anything, all(), deny_disks()), "/dev/sdb"),
        denied
    );
    // classes-only before the lines, allow rules and the default.
    let only = classes(policy(Fallback::Anything, all(), vec![]));
    for node in ["/dev/sda", "/dev/mem", "/dev/kvm", "/dev/ttyUSB0"] {
        assert_eq!(told(&only, node), "classes-only, in /etc/c.toml", "{node}");
    }
    // Permanent lines before allow rules; these before the other lines; those before the default.
    assert_eq!(
        told(&policy(Fallback::Anything, all(), vec![]), "/dev/mem"),
        "protected: memory"
    );
    assert_eq!(
        told(&policy(Fallback::Anything, all(), vec![]), "/dev/kvm"),
        "allowed"
    );
    assert_eq!(
        told(&policy(Fallback::Anything, vec![], vec![]), "/dev/kvm"),
        "protected: virtualization"
    );
    // An allow rule with too little access: the default gives the rest, unless a line protects the
    // device.
    let reading = || {
        vec![rule(List::Allow, &["glob:**"], |rule| {
            rule.access = Some(Access::READ)
        })]
    };
    assert_eq!(
        told(&policy(Fallback::Anything, reading(), vec![]), "/dev/ttyS0"),
        "allowed"
    );
    assert_eq!(
        told(&policy(Fallback::Anything, reading(), vec![]), "/dev/kvm"),
        "protected: virtualization"
    );
    assert_eq!(
        told(&policy(Fallback::Nothing, reading(), vec![]), "/dev/ttyS0"),
        "[[policy.allow]] at /etc/c.toml line 7"
    );
    assert_eq!(
        told(&policy(Fallback::Nothing, vec![], vec![]), "/dev/ttyS0"),
        "default = \"nothing\""
    );
    // Two rules that allow the access only together.
    let writing = rule(List::Allow, &["glob:**"], |rule| {
        rule.access = Some(Access::WRITE | Access::MKNOD)
    });
    let together = policy(
        Fallback::Nothing,
        reading().into_iter().chain([writing]).collect(),
        vec![],
    );
    assert_eq!(told(&together, "/dev/ttyS0"), "allowed");
}

#[test]
fn a_rule_applies_to_devices_below_and_a_negated_term_to_devices_above() {
    let told =
        |devices: &[&str], node: &str| told(&policy(Fallback::Nothing, vec![allow(devices)], vec![]), node);
    assert_eq!(told(&["usb:0403:6001:A"], "/dev/ttyUSB0"), "allowed");
    assert_eq!(
        told(&["usb:0403:6001:A"], "/dev/ttyUSB1"),
        "default = \"nothing\""
    );
    assert_eq!(told(&["port:1-1"], "/dev/ttyUSB1"), "allowed");
    assert_eq!(
        told(&["port:1-1&subsystem:tty"], "/dev/bus/usb/001/003"),
        "default = \"nothing\""
    );
    assert_eq!(
        told(&["subsystem:tty&!port:1-1"], "/dev/ttyUSB1"),
        "default = \"nothing\""
    );
    assert_eq!(told(&["subsystem:tty&!port:1-1"], "/dev/ttyACM0"), "allowed");
    assert_eq!(told(&["pci:0000:00:17.0"], "/dev/sda1"), "protected: host-disk");
}

#[test]
fn a_rule_has_an_access() {
    let of = ContainerTraits::default();
    let reading = rule(List::Allow, &["subsystem:tty"], |rule| {
        rule.access = Some(Access::READ)
    });
    let reading = policy(Fallback::Nothing, vec![reading], vec![]);
    assert_eq!(
        told_of(
            &reading,
            &untrusted("subsystem:tty;access=r"),
            "/dev/ttyUSB0",
            &of
        ),
        "allowed"
    );
    let setup = HOST.setup();
    let denial = setup.denial(&reading, &untrusted("subsystem:tty"), "/dev/ttyUSB0");
    assert_eq!(
        denial.to_string(),
        "denied by the policy ([[policy.allow]] at /etc/c.toml line 7): it allows access=r, and the request needs \
         access=rwm (request ;access=r)"
    );
    let writing = rule(List::Deny, &["subsystem:tty"], |rule| {
        rule.access = Some(Access::WRITE);
        rule.reason = Some("the line is shared".into());
    });
    let writing = policy(Fallback::Removable, vec![], vec![writing]);
    assert_eq!(
        told_of(&writing, &untrusted("usb:0403;access=r"), "/dev/ttyUSB0", &of),
        "allowed"
    );
    let denial = setup.denial(&writing, &untrusted("usb:0403"), "/dev/ttyUSB0");
    assert_eq!(
        denial.to_string(),
        "denied by the policy ([[policy.deny]] at /etc/c.toml line 7): the line is shared (request ;access=rm, or change the rule)"
    );
}

#[test]
fn conditions_are_evaluated_on_the_container() {
    let annotations = [(
        "io.kubernetes.cri.sandbox-namespace".to_owned(),
        "lab-7".to_owned(),
    )]
    .into();
    let lab = ContainerTraits::new(annotations, true, false);
    let other = ContainerTraits::default();
    let entry = untrusted("usb:0403");
    let told = |change: fn(&mut RuleDefinition), of: &ContainerTraits| {
        let rule = rule(List::Allow, &["usb:0403"], change);
        told_of(
            &policy(Fallback::Nothing, vec![rule], vec![]),
            &entry,
            "/dev/ttyUSB0",
            of,
        ) == "allowed"
    };
    let namespace: fn(&mut RuleDefinition) = |rule| {
        rule.annotations = [("io.kubernetes.cri.sandbox-namespace".into(), "lab-*".into())].into();
    };
    let mapped: fn(&mut RuleDefinition) = |rule| rule.user_namespace = Some(true);
    let confined: fn(&mut RuleDefinition) = |rule| rule.privileged = Some(false);
    let privileged: fn(&mut RuleDefinition) = |rule| rule.privileged = Some(true);
    assert_eq!([told(namespace, &lab), told(namespace, &other)], [true, false]);
    assert_eq!([told(mapped, &lab), told(mapped, &other)], [true, false]);
    assert_eq!([told(confined, &lab), told(privileged, &lab)], [true, false]);
    let part: fn(&mut RuleDefinition) = |rule| {
        rule.annotations = [("io.kubernetes.cri.sandbox-namespace".into(), "lab".into())].into();
    };
    assert!(!told(part, &lab), "a pattern is of the whole value");
    let long = ContainerTraits::new([("a".to_owned(), "x".repeat(5000))].into(), false, false);
    assert!(long.annotations.is_empty());
}

#[test]
fn trusted_requests_are_allowed_unless_a_deny_rule_is_for_all() {
    let of = ContainerTraits::default();
    let mine = RequestEntry::new(Origin::Root, "devnode:/dev/sda".parse().unwrap());
    let class = untrusted("devnode:/dev/sda").of_class("lab");
    let strict = |applies_to| {
        let mut rule = deny(&["subsystem:block"]);
        rule.applies_to = applies_to;
        Policy {
            classes_only: true,
            ..policy(Fallback::Nothing, vec![], vec![rule])
        }
    };
    for entry in [&mine, &class] {
        assert_eq!(
            told_of(&strict(AppliesTo::Untrusted), entry, "/dev/sda", &of),
            "allowed"
        );
        assert_eq!(
            told_of(&strict(AppliesTo::All), entry, "/dev/sda", &of),
            "[[policy.deny]] at /etc/c.toml line 7"
        );
        assert_eq!(strict(AppliesTo::All).authorise(&of, entry), Ok(()));
    }
}

#[test]
fn an_untrusted_request_gets_a_remote_device_only_by_a_rule_that_names_its_host() {
    let of = ContainerTraits::default();
    let entry = untrusted("usbip:lab:3241/0403:6001:FT001");
    let anything = |allow, deny| policy(Fallback::Anything, allow, deny);
    assert_eq!(
        anything(vec![], vec![])
            .authorise(&of, &entry)
            .unwrap_err()
            .to_string(),
        "denied by the policy (usbip): a device of another host, lab:3241, and no rule allows it (to allow all \
         devices of that host, run `oci-hotplug allow 'usbip:lab:3241'`)"
    );
    for (devices, is_allowed) in [
        ("usbip:lab:3241", true),
        ("usbip:lab:3241/0403:6001", true),
        ("usbip:lab:3241/0403:6001:FT001", true),
        ("usbip:lab", false),
        ("usbip:lab:3241/0403:6010", false),
        ("usbip:lab:3241/busid:1-1", false),
        ("usb:0403:6001", false),
    ] {
        let allows = anything(vec![allow(&[devices])], vec![]);
        assert_eq!(allows.authorise(&of, &entry).is_ok(), is_allowed, "{devices}");
        let node = "/dev/ttyUSB0";
        let verdict = told_of(&allows, &entry, node, &of);
        assert_eq!(verdict == "allowed", is_allowed, "{devices}: {verdict}");
    }
    let nothing = policy(Fallback::Nothing, vec![allow(&["usbip:lab:3241"])], vec![]);
    assert_eq!(told_of(&nothing, &entry, "/dev/ttyUSB0", &of), "allowed");
    // A rule for other devices adds no access.
    let reading = rule(List::Allow, &["usbip:lab:3241"], |rule| {
        rule.access = Some(Access::READ)
    });
    let with_other = policy(Fallback::Nothing, vec![reading, allow(&["usb:1050"])], vec![]);
    assert_eq!(
        told_of(&with_other, &entry, "/dev/ttyUSB0", &of),
        "[[policy.allow]] at /etc/c.toml line 7"
    );

    let mine = RequestEntry::new(Origin::Root, entry.request.clone());
    assert_eq!(anything(vec![], vec![]).authorise(&of, &mine), Ok(()));
    let denies = |applies_to| {
        let mut rule = deny(&["usbip:lab:3241/0403:6001"]);
        rule.applies_to = applies_to;
        anything(vec![allow(&["usbip:lab:3241"])], vec![rule])
    };
    assert!(denies(AppliesTo::Untrusted).authorise(&of, &entry).is_err());
    assert_eq!(denies(AppliesTo::Untrusted).authorise(&of, &mine), Ok(()));
    assert!(denies(AppliesTo::All).authorise(&of, &mine).is_err());
    // A vague request does not get a device that is denied by name.
    for (request, is_allowed) in [
        ("usbip:lab:3241/*:6001", false),
        ("usbip:lab:3241/*:*:FT001", false),
        ("usbip:lab:3241/nth:2:0403:6001", false),
        ("usbip:lab:3241/busid:1-1", false),
        ("usbip:lab:3241/busid:1-1:0403:6010", true),
        ("usbip:lab:3241/0403:6010", true),
    ] {
        let judged = denies(AppliesTo::Untrusted).authorise(&of, &untrusted(request));
        assert_eq!(judged.is_ok(), is_allowed, "{request}");
    }
}

#[test]
fn a_certain_denial_is_given_before_any_device_is_known() {
    let of = ContainerTraits::default();
    let refused = |policy: &Policy, request: &str| {
        policy
            .authorise(&of, &untrusted(request))
            .map_err(|denial| denial.to_string())
    };
    let default = policy(Fallback::Removable, vec![], vec![]);
    assert_eq!(
        refused(&default, "devnode:/dev/mem").unwrap_err(),
        "denied by the policy (protected: memory): mem, kmem, port, kmsg, core memory and model-specific registers \
         are protected, because they give access to the host's memory, I/O ports and kernel log (to allow it anyway, run `oci-hotplug class add devnode-dev-mem \
         'devnode:/dev/mem'` and request class:devnode-dev-mem)"
    );
    assert_eq!(
        refused(&default, "node:/dev/kvm;access=rw").unwrap_err(),
        "denied by the policy (protected: virtualization): kvm, vhost and vfio are protected, because they give access to memory and devices of the host (to allow it, run `oci-hotplug allow 'node:/dev/kvm' --access rw`)"
    );
    // No rule applies to the devices above the one that it names.
    let nothing = policy(Fallback::Nothing, vec![], vec![]);
    assert_eq!(
        refused(&nothing, "parent-of:usb:0403:6001;access=rw").unwrap_err(),
        "denied by the policy (default = \"nothing\"): no rule allows it (to allow it anyway, run \
         `oci-hotplug class add parent-of-usb-0403-6001 'parent-of:usb:0403:6001;access=rw'` and request \
         class:parent-of-usb-0403-6001)"
    );
    for request in [
        "usb:0403",
        "parent-of:devnode:/dev/mem",
        "devnode:/dev/ttyS0",
        "subsystem:mem",
        "usb:0403&!devnode:/dev/mem",
    ] {
        assert_eq!(refused(&default, request), Ok(()), "{request}");
    }
    let with_rule = policy(Fallback::Nothing, vec![allow(&["subsystem:misc"])], vec![]);
    assert_eq!(
        refused(&with_rule, "devnode:/dev/kvm"),
        Ok(()),
        "a rule may allow it"
    );
    assert!(refused(&with_rule, "devnode:/dev/kmsg").is_err());
    assert!(
        refused(&policy(Fallback::Nothing, vec![], vec![]), "usb:0403")
            .unwrap_err()
            .contains("default = \"nothing\"")
    );
    let classes = Policy {
        classes_only: true,
        ..default
    };
    let error = refused(&classes, "usb:0403;access=r").unwrap_err();
    assert!(
        error.contains("classes-only, in /etc/c.toml") && error.contains("'usb:0403;access=r'"),
        "{error}"
    );
}

#[test]
fn a_verdict_is_computed_quickly() {
    let setup = HOST.setup();
    let tty = with_node(&HOST.devices, "/dev/ttyUSB0");
    let entry = untrusted("usb:2109:2813");
    let policy = policy(
        Fallback::Removable,
        vec![allow(&["usb:1050", "port:1-7"])],
        vec![deny(&["usb:0781", "subsystem:block"])],
    );
    // Of this thread's processor time: other programs may have the processor meanwhile.
    let now = || std::time::Duration::from(ClockId::CLOCK_THREAD_CPUTIME_ID.now().unwrap());
    let begin = now();
    for _ in 0..1000 {
        assert!(matches!(setup.judge(&policy, &entry, tty), Verdict::Allowed(_)));
    }
    let each = (now() - begin) / 1000;
    println!("a verdict takes {each:?}");
    // A generous limit in a debug build; 0.3 ms would not be noticed.
    assert!(each < std::time::Duration::from_micros(500), "{each:?}");
}
