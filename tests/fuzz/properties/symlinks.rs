//! Rules for further links, in our grammar and in container-hotplug's.

use oci_hotplug::model::request::symlink::{MAX_RULES, SymlinkRule, parse_lowrisc_symlinks, parse_symlinks};

use super::{devices, is_fit_for_a_log, is_no_larger_than};

/// A rule that is understood says the same when it is written and read again, and leads to one
/// place.
pub fn hold(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    match text.parse::<SymlinkRule>() {
        Ok(rule) => are_sound(&[rule], text.len()),
        Err(error) => is_fit_for_a_log(&error),
    }
    for parse in [parse_symlinks, parse_lowrisc_symlinks] {
        match parse(text) {
            Ok(rules) => are_sound(&rules, text.len()),
            Err(error) => is_fit_for_a_log(&error),
        }
    }
}

fn are_sound(rules: &[SymlinkRule], length: usize) {
    assert!(!rules.is_empty() && rules.len() <= MAX_RULES);
    for rule in rules {
        let written = rule.to_string();
        is_no_larger_than(written.len(), length);
        assert_eq!(written.parse::<SymlinkRule>().as_ref(), Ok(rule), "{written:?}");
        devices::is_plain(&rule.path);
        for device in devices::samples() {
            rule.matches(&device, []);
        }
    }
    let list = rules
        .iter()
        .map(SymlinkRule::to_string)
        .collect::<Vec<_>>()
        .join(",");
    assert_eq!(parse_symlinks(&list).as_deref(), Ok(rules), "{list:?}");
}
