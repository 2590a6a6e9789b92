//! Properties that hold for all policies and devices.

use super::*;
use crate::model::oci::Annotations;
use crate::model::request::class::{Classes, Definition};
use crate::model::request::parse_request_list;

fn any_devices() -> impl Strategy<Value = Vec<&'static str>> {
    let selectors = [
        "usb:0403",
        "usb:0403:6001:A",
        "port:1-1",
        "subsystem:tty",
        "subsystem:block",
        "subsystem:input",
        "tag:systemd",
        "property:ID_BUS=usb",
        "driver:usb",
        "glob:ttyUSB*",
        "devnode:/dev/sda1",
        "subsystem:tty&!usb:0403",
        "subsystem:usb&!tag:seat",
        "subsystem:misc",
        "subsystem:mem",
        "!tag:x&subsystem:vc",
        "pci:0000:00:14.0",
    ];
    let usable: Vec<_> = selectors
        .into_iter()
        .filter(|text| !text.starts_with('!'))
        .collect();
    prop::collection::vec(prop::sample::select(usable), 1..4)
}

fn any_rule(list: List) -> impl Strategy<Value = Rule> {
    let condition = || prop_oneof![Just(None), Just(Some(true)), Just(Some(false))];
    (any_devices(), 1..8u32, condition(), condition(), any::<bool>()).prop_map(
        move |(devices, access, user_namespace, privileged, named)| {
            rule(list, &devices, |rule| {
                rule.access = Some(Access::from_bits_truncate(access));
                rule.user_namespace = user_namespace;
                rule.privileged = privileged;
                if named {
                    rule.annotations = [("ns".into(), "lab*".into())].into();
                }
                if list == List::Deny && privileged.is_none() {
                    rule.applies_to = Some(AppliesTo::All);
                }
            })
        },
    )
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let fallback = prop::sample::select(vec![Fallback::Removable, Fallback::Nothing, Fallback::Anything]);
    let allow = prop::collection::vec(any_rule(List::Allow), 0..4);
    let deny = prop::collection::vec(any_rule(List::Deny), 0..3);
    (fallback, allow, deny).prop_map(|(fallback, allow, deny)| policy(fallback, allow, deny))
}

fn any_traits() -> impl Strategy<Value = ContainerTraits> {
    (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(user_namespace, privileged, lab)| {
        let annotations = if lab {
            [("ns".to_owned(), "lab1".to_owned())].into()
        } else {
            Annotations::new()
        };
        ContainerTraits::new(annotations, user_namespace, privileged)
    })
}

/// For each device of the host: 0 denied, 1 undecided, 2 allowed.
fn verdicts(policy: &Policy, entry: &RequestEntry, of: &ContainerTraits, before: bool) -> Vec<u8> {
    let host = if before { &HOST_BEFORE_UDEVD } else { &HOST };
    let setup = host.setup().in_container(of);
    let judge = |device: &Device| match setup.judge(policy, entry, device) {
        Verdict::Denied(_) => 0,
        Verdict::Undecided(_) => 1,
        Verdict::Allowed(_) => 2,
    };
    host.devices
        .iter()
        .filter(|device| device.node.is_some())
        .map(judge)
        .collect()
}

/// The name of a device, and a udev fact of it.
type Fact = (&'static str, &'static str);

/// udev facts that the rules below evaluate: of the partition and of its disk.
const UDEV_FACTS: [Fact; 4] = [
    ("sdb1", "label"),
    ("sdb1", "tag"),
    ("sdb1", "link"),
    ("sdb", "label"),
];

/// The disk and the partition that have the [`UDEV_FACTS`].
const STICK: [&str; 2] = ["sdb", "sdb1"];

fn any_rule_on_udevs_facts(list: List) -> impl Strategy<Value = Rule> {
    let selectors = vec![
        "property:ID_FS_LABEL=secret",
        "subsystem:block&!property:ID_FS_LABEL=secret",
        "tag:lab",
        "subsystem:block&!tag:lab",
        "devnode:/dev/disk/by-label/x",
        "usb:0781&!devnode:/dev/disk/by-label/x",
        "glob:/dev/disk/**",
        "tag:lab&property:ID_FS_LABEL=secret",
        "usb:0781",
        "devnode:/dev/sdb&!tag:lab",
    ];
    prop::collection::vec(prop::sample::select(selectors), 1..3)
        .prop_map(move |devices| rule(list, &devices, |_| {}))
}

fn with_fact(device: &mut Device, fact: &str) {
    match fact {
        "label" => drop(device.properties.insert("ID_FS_LABEL".into(), "secret".into())),
        "tag" => drop(device.tags.insert("lab".into())),
        _ => drop(device.links.insert("/dev/disk/by-label/x".into())),
    }
}

/// A set of udev facts: bit `n` stands for fact `n` of [`UDEV_FACTS`].
type FactSet = usize;

const FACT_SETS: std::ops::Range<FactSet> = 0..1 << UDEV_FACTS.len();

/// The facts of a set that belong to one device.
fn facts_of(name: &str, set: FactSet) -> FactSet {
    (0..UDEV_FACTS.len())
        .filter(|bit| UDEV_FACTS[*bit].0 == name)
        .fold(0, |its, bit| its | (set & 1 << bit))
}

/// The stick: disk and partition in these udev states; a processed device has its facts of the set.
pub(super) fn stick(states: [UdevState; 2], set: FactSet) -> Vec<Device> {
    let mut devices: Vec<Device> = companion_hub().into_iter().map(before_udev).collect();
    for device in &mut devices {
        device.udev_state = UdevState::Processed;
        for (name, udev_state) in STICK.into_iter().zip(states) {
            if device.syspath.name() == name {
                device.udev_state = udev_state;
                let known = if udev_state == UdevState::Processed {
                    facts_of(name, set)
                } else {
                    0
                };
                (0..UDEV_FACTS.len())
                    .filter(|bit| known >> bit & 1 == 1)
                    .for_each(|bit| with_fact(device, UDEV_FACTS[bit].1));
            }
        }
    }
    devices
}

/// Every state of the stick in which udevd has not processed all of it: each with the facts that
/// are known then, and the sets of facts that may turn out to be true.
fn partial_facts() -> Vec<(Vec<Device>, Vec<FactSet>)> {
    let states = [
        [UdevState::Pending, UdevState::Pending],
        [UdevState::Overdue, UdevState::Overdue],
        [UdevState::NoUdevd, UdevState::NoUdevd],
        [UdevState::Processed, UdevState::Pending],
        [UdevState::Processed, UdevState::Overdue],
        [UdevState::Overdue, UdevState::Processed],
    ];
    let mut all = Vec::new();
    for states in states {
        let known = |set: FactSet| {
            let processed = STICK
                .into_iter()
                .zip(states)
                .filter(|(_, udev_state)| *udev_state == UdevState::Processed);
            processed.fold(0, |known, (name, _)| known | facts_of(name, set))
        };
        for set in FACT_SETS.filter(|set| known(*set) == *set) {
            let possible = FACT_SETS.filter(|complete| known(*complete) == set).collect();
            all.push((stick(states, set), possible));
        }
    }
    all
}

fn allowed_among(policy: &Policy, devices: &[Device]) -> BTreeMap<String, bool> {
    let host = Host::new(devices.to_vec());
    let entry = untrusted("usb:0781");
    let nodes = ["sdb", "sdb1", "2-1.3"].map(|name| {
        let device = devices
            .iter()
            .find(|device| device.syspath.name() == name)
            .unwrap();
        let verdict = host.setup().judge(policy, &entry, device);
        (name.to_owned(), matches!(verdict, Verdict::Allowed(_)))
    });
    nodes.into()
}

/// Case security 4: all combinations of udevd's facts about inputs.
#[test]
fn an_input_that_is_allowed_before_udevd_has_processed_it_stays_allowed() {
    let keys = [
        "ID_INPUT",
        "ID_INPUT_KEYBOARD",
        "ID_INPUT_MOUSE",
        "ID_INPUT_JOYSTICK",
        "ID_INPUT_TOUCHPAD",
    ];
    let of = ContainerTraits::default();
    let entry = untrusted("subsystem:input");
    for tree in [joystick(), dualsense(), headset(), security_key()] {
        let nodes: Vec<String> = tree
            .iter()
            .filter_map(|device| Some(device.node.as_ref()?.path.display().to_string()))
            .collect();
        let allowed = |udev_state, set: u32| -> Vec<bool> {
            let mut devices: Vec<Device> = tree.iter().cloned().map(before_udev).collect();
            for device in &mut devices {
                device.udev_state = udev_state;
                if device.subsystem.as_deref() == Some("input") && udev_state == UdevState::Processed {
                    let said = (0..).zip(keys).filter(|(bit, _)| set >> bit & 1 == 1);
                    let said = said.map(|(_, key)| (key.to_owned(), "1".to_owned()));
                    device.properties.extend(said);
                }
            }
            let told = |node: &String| told_among(&Policy::default(), &entry, node, &of, devices.clone());
            nodes.iter().map(|node| told(node) == "allowed").collect()
        };
        for set in 0..1 << keys.len() {
            let after = allowed(UdevState::Processed, set);
            for udev_state in [UdevState::Pending, UdevState::Overdue] {
                let before = allowed(udev_state, 0);
                let lost = before.iter().zip(&after).any(|(before, after)| *before && !after);
                assert!(!lost, "{nodes:?} {set:b} {udev_state:?}");
            }
        }
    }
}

/// A third of the usual number of cases, because each evaluates every device of a host.
fn fewer_cases() -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig {
        cases: usual.cases.div_ceil(3),
        ..usual
    }
}

/// The same request, by a class in the file of a user.
fn class_of_a_user(entry: &RequestEntry) -> RequestEntry {
    let definition = Definition {
        devices: vec![entry.request.to_string()],
        symlinks: Vec::new(),
    };
    let file = Path::new("/home/alice/.config/oci-hotplug/config.toml");
    let of_user = Classes::parse(file, &[("own".to_owned(), definition)].into()).unwrap();
    let mut classes = Classes::none(Path::new("/etc/c.toml"));
    classes.add_of_user(of_user);
    let expanded = classes.expand(Origin::Annotation, parse_request_list("class:own").unwrap());
    expanded.unwrap().entries.remove(0)
}

proptest! {
    #![proptest_config(fewer_cases())]

    #[test]
    fn an_additional_deny_rule_never_allows_more(
        policy in any_policy(), more in any_rule(List::Deny), of in any_traits(), access in 1..8u32,
        trusted in any::<bool>(), before in any::<bool>(),
    ) {
        let mut entry = untrusted("subsystem:tty");
        entry.request.options.access = Access::from_bits_truncate(access);
        if trusted {
            entry.origin = Origin::Root;
        }
        let mut stricter = policy.clone();
        stricter.deny.push(more);
        let less = verdicts(&stricter, &entry, &of, before);
        prop_assert!(less.iter().zip(verdicts(&policy, &entry, &of, before)).all(|(less, all)| *less <= all));
    }

    /// Whether a container may start, and each of its devices.
    #[test]
    fn the_file_of_a_user_never_allows_what_was_denied(
        policy in any_policy(), rules in prop::collection::vec(any_rule(List::Deny), 0..3), of in any_traits(),
        classes_only in any::<bool>(), in_class in any::<bool>(), before in any::<bool>(),
    ) {
        let administrators = Policy { classes_only, ..policy };
        let mut merged = administrators.clone();
        merged.deny_also(rules);
        let request = untrusted("subsystem:tty");
        let entry = if in_class { class_of_a_user(&request) } else { request };
        prop_assert!(administrators.authorise(&of, &entry).is_ok() || merged.authorise(&of, &entry).is_err());
        let with_file = verdicts(&merged, &entry, &of, before);
        let without = verdicts(&administrators, &untrusted("subsystem:tty"), &of, before);
        prop_assert!(with_file.iter().zip(without).all(|(with_file, without)| *with_file <= without));
    }

    #[test]
    fn an_additional_allow_rule_never_denies_more(
        policy in any_policy(), more in any_rule(List::Allow), of in any_traits(), access in 1..8u32,
        before in any::<bool>(),
    ) {
        let mut entry = untrusted("subsystem:tty");
        entry.request.options.access = Access::from_bits_truncate(access);
        let mut wider = policy.clone();
        wider.allow.push(more);
        let more = verdicts(&wider, &entry, &of, before);
        prop_assert!(more.iter().zip(verdicts(&policy, &entry, &of, before)).all(|(more, all)| *more >= all));
    }

    #[test]
    fn a_deny_rule_overrides_all_allow_rules(policy in any_policy(), devices in any_devices(), of in any_traits()) {
        let mut denying = policy.clone();
        denying.allow.push(allow(&devices));
        denying.deny.push(deny(&devices));
        let entry = untrusted("subsystem:tty");
        let only_allowed = verdicts(&super::policy(Fallback::Nothing, vec![allow(&devices)], vec![]), &entry, &of, false);
        let denied = verdicts(&denying, &entry, &of, false);
        prop_assert!(denied.iter().zip(only_allowed).all(|(denied, allowed)| allowed != 2 || *denied == 0));
    }

    #[test]
    fn a_verdict_that_is_certain_before_udevd_stays_the_same(policy in any_policy(), of in any_traits()) {
        let entry = untrusted("subsystem:tty");
        let (before, after) = (verdicts(&policy, &entry, &of, true), verdicts(&policy, &entry, &of, false));
        let allowed = before.iter().zip(&after).filter(|(before, after)| **before == 2 && **after != 2).count();
        let refused = before.iter().zip(&after).filter(|(before, after)| **before == 0 && **after == 2).count();
        prop_assert_eq!((allowed, refused), (0, 0));
    }

    #[test]
    fn a_request_that_may_not_start_never_gets_a_device(policy in any_policy(), of in any_traits()) {
        for (request, node) in [("devnode:/dev/mem", "/dev/mem"), ("devnode:/dev/kvm", "/dev/kvm"), ("usb:0403", "/dev/ttyUSB0")] {
            let entry = untrusted(request);
            if policy.authorise(&of, &entry).is_err() {
                prop_assert_ne!(told_of(&policy, &entry, node, &of), "allowed");
            }
        }
    }
}

proptest! {
    // Each case tries all facts in all states.
    #![proptest_config(fewer_cases())]

    /// Case security 4.
    #[test]
    fn a_device_that_is_allowed_before_udevd_has_processed_it_stays_allowed(
        rules in prop::collection::vec(any_rule_on_udevs_facts(List::Allow), 0..3),
        denials in prop::collection::vec(any_rule_on_udevs_facts(List::Deny), 0..3),
        fallback in prop::sample::select(vec![Fallback::Removable, Fallback::Nothing, Fallback::Anything]),
    ) {
        let policy = policy(fallback, rules, denials);
        let after: Vec<_> =
            FACT_SETS.map(|set| allowed_among(&policy, &stick([UdevState::Processed; 2], set))).collect();
        for (partial, possible) in partial_facts() {
            let before = allowed_among(&policy, &partial);
            for set in possible {
                for (node, allowed) in &before {
                    prop_assert!(!allowed || after[set][node], "{node} {set:b}");
                }
            }
        }
    }
}
