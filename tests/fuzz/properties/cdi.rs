//! CDI specs.

use oci_hotplug::cdi::document::Document;
use oci_hotplug::cdi::fault::Fault;
use oci_hotplug::cdi::names::{Kind, QualifiedName};
use oci_hotplug::cdi::{generate, rules};
use oci_hotplug::model::yaml::{self, Node};

use super::is_fit_for_a_log;

/// What is understood says the same when it is written and read again; each fault is at a place of
/// the text.
pub fn hold(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    for error in [text.parse::<Kind>().err(), text.parse::<QualifiedName>().err()] {
        error.iter().for_each(is_fit_for_a_log);
    }
    let (root, document) = match read(text) {
        Ok(read) => read,
        Err(fault) => return is_placed(&fault, text),
    };
    let faults = rules::faults(&document, &root);
    faults.iter().for_each(|fault| is_placed(fault, text));
    assert!(!rules::required_version(&document).0.is_empty());
    assert!(!generate::is_ours(&document) || document.devices.iter().all(generate::is_our_device));
    let written = generate::text(&document);
    let (root, again) = read(&written).unwrap_or_else(|fault| panic!("{fault}: {written}"));
    assert_eq!(again, document, "{written}");
    // Which fault there is, is a matter of what the document says, not of how it is laid out.
    let again: Vec<_> = rules::faults(&document, &root).into_iter().map(what).collect();
    assert_eq!(again, faults.into_iter().map(what).collect::<Vec<_>>());
}

fn read(text: &str) -> Result<(Node, Document), Fault> {
    let root = yaml::parse(text)?;
    let document = Document::decode(&root)?;
    Ok((root, document))
}

fn what(fault: Fault) -> (String, String) {
    (fault.field, fault.message)
}

fn is_placed(fault: &Fault, text: &str) {
    is_fit_for_a_log(fault);
    if let Some(line) = fault.line {
        // YAML knows more line breaks than Rust (YAML 1.1, 4.2).
        let breaks = text
            .chars()
            .filter(|letter| matches!(letter, '\r' | '\n' | '\u{85}' | '\u{2028}' | '\u{2029}'));
        assert!((1..=breaks.count() + 2).contains(&line), "{fault}");
    }
}
