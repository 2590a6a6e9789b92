//! The classes and the policy of one configuration file. Only programs that use them parse them.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use toml::Spanned;

use super::error::ConfigError;
use super::toml_file::{from_toml, line_of};
use crate::model::policy::{Fallback, List, Place, Policy, Rule, RuleDefinition};
use crate::model::request::class::{Classes, Definition};

#[derive(Debug, Deserialize)]
struct ClassesOfFile {
    #[serde(default)]
    class: BTreeMap<String, Definition>,
}

#[derive(Debug, Deserialize)]
struct PolicyOfFile {
    #[serde(default)]
    policy: PolicyText,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct PolicyText {
    default: Option<Fallback>,
    classes_only: Option<bool>,
    allow: Vec<Spanned<RuleDefinition>>,
    deny: Vec<Spanned<RuleDefinition>>,
}

/// Whether a file with an error may be meant to deny trusted requests. The file cannot be parsed,
/// so the decision is by words in its text.
pub(super) fn may_deny_trusted(text: &str) -> bool {
    let text = text.to_lowercase();
    text.contains("deny") || text.contains("applies")
}

/// The classes of a file.
///
/// # Errors
/// When a class is defined wrongly.
pub(super) fn classes_of(path: &Path, text: &str) -> Result<Classes, ConfigError> {
    let file: ClassesOfFile = from_toml(path, text)?;
    parse_classes(path, &file.class)
}

/// The classes of a file's definitions.
///
/// # Errors
/// When a class is defined wrongly.
pub(super) fn parse_classes(
    path: &Path,
    definitions: &BTreeMap<String, Definition>,
) -> Result<Classes, ConfigError> {
    Classes::parse(path, definitions).map_err(|source| ConfigError::Class {
        path: path.to_owned(),
        source: Box::new(source),
    })
}

/// Adds the policy of a file.
///
/// # Errors
/// When a key or a rule of the file is wrong. Then nothing of the file is added.
pub(super) fn add_policy(policy: &mut Policy, path: &Path, text: &str) -> Result<(), ConfigError> {
    let written = from_toml::<PolicyOfFile>(path, text)?.policy;
    let allow = rules(path, text, List::Allow, written.allow)?;
    let deny = rules(path, text, List::Deny, written.deny)?;
    policy.fallback = written.default.unwrap_or(policy.fallback);
    policy.classes_only = written.classes_only.unwrap_or(policy.classes_only);
    policy.allow.extend(allow);
    policy.deny.extend(deny);
    Ok(())
}

/// The rules of a list.
///
/// # Errors
/// When a rule is wrong.
pub(super) fn rules(
    path: &Path,
    text: &str,
    list: List,
    written: Vec<Spanned<RuleDefinition>>,
) -> Result<Vec<Rule>, ConfigError> {
    let rule = |rule: Spanned<RuleDefinition>| {
        let place = Place {
            list,
            file: path.to_owned(),
            line: line_of(text, rule.span().start),
        };
        Ok(Rule::parse(place, rule.get_ref())?)
    };
    written.into_iter().map(rule).collect()
}
