//! Every form of a rule, and every message about one.

use proptest::prelude::*;

use super::*;

#[test]
fn lines_of_devices_list_are_parsed_and_written_unchanged() {
    for line in [
        "c 1:3 rwm",
        "b 8:* r",
        "a *:* rwm",
        "c *:* m",
        "c 136:4294967295 rw",
    ] {
        assert_eq!(line.parse::<DeviceRule>().unwrap().to_string(), line);
    }
}

#[test]
fn a_malformed_rule_is_refused_with_its_reason() {
    let message = |text: &str| text.parse::<DeviceRule>().unwrap_err().to_string();
    let form = "must be \"KIND MAJOR:MINOR ACCESS\", such as \"c 1:3 rwm\" or \"b 8:* r\"";
    assert_eq!(message(""), format!("device rule \"\": {form}"));
    assert_eq!(message("c 1 rwm"), format!("device rule \"c 1 rwm\": {form}"));
    assert_eq!(message("c 1:3 r w"), format!("device rule \"c 1:3 r w\": {form}"));
    assert_eq!(
        message("d 1:3 r"),
        "device rule \"d 1:3 r\": kind \"d\" must be a, b or c"
    );
    let number = "must be decimal, below 2^32, or \"*\"";
    assert_eq!(
        message("c x:3 r"),
        format!("device rule \"c x:3 r\": number \"x\" {number}")
    );
    assert_eq!(
        message("c 1:+3 r"),
        format!("device rule \"c 1:+3 r\": number \"+3\" {number}")
    );
    assert!(message("c 1:3 x").starts_with("device rule \"c 1:3 x\": access \"x\""));
}

#[test]
fn the_json_of_a_rule_is_its_text() {
    let rule: DeviceRule = serde_json::from_str("\"c 1:* rw\"").unwrap();
    assert_eq!(serde_json::to_string(&rule).unwrap(), "\"c 1:* rw\"");
    assert!(serde_json::from_str::<DeviceRule>("\"c 1\"").is_err());
}

pub(in crate::model::cgroup) fn any_access() -> impl Strategy<Value = Access> {
    (1_u32..8).prop_map(Access::from_bits_truncate)
}

pub(in crate::model::cgroup) fn any_num() -> impl Strategy<Value = DevNum> {
    (
        prop_oneof![Just(DevKind::Block), Just(DevKind::Char)],
        0_u32..3,
        0_u32..3,
    )
        .prop_map(|(kind, major, minor)| DevNum { kind, major, minor })
}

pub(in crate::model::cgroup) fn any_rule() -> impl Strategy<Value = DeviceRule> {
    (any_num(), any_access(), any::<bool>(), any::<bool>()).prop_map(|(num, access, major, minor)| {
        let rule = DeviceRule::exactly(num, access);
        DeviceRule {
            major: rule.major.filter(|_| major),
            minor: rule.minor.filter(|_| minor),
            ..rule
        }
    })
}

proptest! {
    #[test]
    fn a_rule_survives_formatting_and_parsing(rule in any_rule()) {
        prop_assert_eq!(rule.to_string().parse::<DeviceRule>().unwrap(), rule);
    }
}
