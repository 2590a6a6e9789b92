//! `oci-hotplug allow`: rules of the policy, each a file in `config.d`.

mod report;
mod written;

use std::io::Write;

use anyhow::{Result, bail};
use clap::Args;

use self::report::report;
use self::written::PREFIX;
use super::drop_in;
use super::error::Usage;
use super::reload;
use super::request_word::request_text;
use crate::host::config::Config;
use crate::host::state::registry::Registry;
use crate::model::device::Access;
use crate::model::policy::{ContainerTraits, Policy, Rule};
use crate::model::quoting::{shell_quoted, slug, split_unescaped, visible};
use crate::model::request::Request;
use crate::model::request::entry::{Origin, RequestEntry};
use crate::model::request::selector::DeviceSelector;

/// The longest part of a file's name that is made from the selectors, in bytes.
const MAX_SLUG: usize = 60;

/// The arguments.
#[derive(Debug, Args)]
pub(super) struct Allow {
    /// Selectors as in requests, without options: usb:0627:0001, 'subsystem:tty&usb:0403',
    /// /dev/ttyUSB0. Each also covers the devices below the one that it names.
    #[arg(value_name = "SELECTOR", required_unless_present = "list")]
    selectors: Vec<String>,
    /// The access to allow: letters of r, w and m [default: all].
    #[arg(long, value_name = "ACCESS")]
    access: Option<Access>,
    /// A note in the file that says why.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Show and check the rule, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Show the rules that this command has written.
    #[arg(long, conflicts_with_all = ["selectors", "access", "reason", "dry_run", "remove"])]
    list: bool,
    /// Remove the rules for exactly these selectors that this command has written.
    #[arg(long, conflicts_with_all = ["reason", "dry_run"])]
    remove: bool,
}

/// Does what the arguments say.
pub(super) fn run(arguments: &Allow, config: &Config, registry: &Registry, as_json: bool) -> Result<()> {
    if arguments.list {
        return written::list(config, as_json);
    }
    let selectors: Vec<String> = arguments
        .selectors
        .iter()
        .map(|text| request_text(text))
        .collect();
    if arguments.remove {
        return written::remove(config, registry, &selectors, arguments.access, as_json);
    }
    add(arguments, config, registry, selectors, as_json)
}

fn add(
    arguments: &Allow,
    config: &Config,
    registry: &Registry,
    selectors: Vec<String>,
    as_json: bool,
) -> Result<()> {
    check_selectors(&selectors)?;
    let access = arguments.access.unwrap_or(Access::ALL);
    let before = config.policy()?;
    let new: Vec<String> = selectors
        .iter()
        .filter(|text| !is_allowed(&before, text, access))
        .cloned()
        .collect();
    if new.is_empty() {
        return report(&selectors, access, None, "unchanged", &[], as_json);
    }
    let text = text(&new, arguments.access, arguments.reason.as_deref());
    let name = file_name(&new, access);
    let after = config
        .with_file(&config.drop_in_dir().join(&name), &text)?
        .policy()?;
    check_effect(&after, &new)?;
    let (path, written) = drop_in::write(config, &name, &text, arguments.dry_run)?;
    let reloaded = match written {
        drop_in::Written::DryRun => {
            if !as_json {
                writeln!(std::io::stdout(), "{text}")?;
            }
            Vec::new()
        }
        _ => reload::all(registry)?,
    };
    report(&new, access, Some(path), written.word(), &reloaded, as_json)?;
    reload::failures(&reloaded)
}

/// # Errors
/// When a word is not a selector.
fn check_selectors(selectors: &[String]) -> Result<()> {
    for text in selectors {
        if split_unescaped(text, ';').len() > 1 {
            let fault =
                format!("selector {text:?}: a rule has no options, only --access, such as --access rw");
            return Err(Usage(fault).into());
        }
        if let Err(error) = text.parse::<DeviceSelector>() {
            return Err(Usage(format!("selector {text:?}: {error}")).into());
        }
    }
    Ok(())
}

/// # Errors
/// When the policy would still deny these devices.
fn check_effect(policy: &Policy, selectors: &[String]) -> Result<()> {
    for text in selectors {
        let Ok(request) = text.parse::<Request>() else {
            continue;
        };
        let entry = RequestEntry::new(Origin::Annotation, request);
        if let Err(denial) = policy.authorise(&ContainerTraits::default(), &entry) {
            bail!("a rule cannot allow {text:?} ({}): {}", denial.rule, denial.hint);
        }
    }
    Ok(())
}

/// Whether a rule without conditions allows exactly this selector.
fn is_allowed(policy: &Policy, text: &str, access: Access) -> bool {
    let Ok(selector) = text.parse::<DeviceSelector>() else {
        return false;
    };
    let unconditional = |rule: &&Rule| {
        rule.annotations.is_empty() && rule.user_namespace.is_none() && rule.privileged.is_none()
    };
    let mut rules = policy.allow.iter().filter(unconditional);
    rules.any(|rule| rule.access.covers(access) && rule.devices.contains(&selector))
}

fn file_name(selectors: &[String], access: Access) -> String {
    let mut selectors = selectors.to_vec();
    selectors.sort();
    let all = selectors.join(",");
    let number = drop_in::number(&format!("{all};access={access}"));
    format!("{PREFIX}{}-{number:08x}.toml", slug(&all, MAX_SLUG))
}

fn text(selectors: &[String], access: Option<Access>, reason: Option<&str>) -> String {
    let words: Vec<String> = selectors.iter().map(|text| shell_quoted(text)).collect();
    let mut text = format!(
        "{} To remove it: oci-hotplug allow --remove {}\n[[policy.allow]]\ndevices = {}\n",
        drop_in::MARK,
        visible(&words.join(" ")),
        drop_in::array(selectors)
    );
    if let Some(access) = access {
        text += &format!("access = \"{access}\"\n");
    }
    if let Some(reason) = reason {
        text += &format!("reason = {}\n", drop_in::quoted(reason));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::written::File;
    use super::*;
    use crate::model::any_text::any_text;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_file_of_a_rule_says_what_was_allowed(selector in "(usb:0403|devnode:/dev/[ -~é\n]{1,20})", reason in any_text()) {
            let selectors = [selector];
            let file: File = toml::from_str(&text(&selectors, Some(Access::READ), Some(&reason))).unwrap();
            let [rule] = &file.policy.allow[..] else { panic!("one rule") };
            prop_assert_eq!(&rule.devices[..], &selectors[..]);
            prop_assert_eq!(rule.access, Some(Access::READ));
            prop_assert_eq!(rule.reason.as_deref(), Some(&*reason));
            let name = file_name(&selectors, Access::READ);
            prop_assert!(name.len() < 100 && !name.contains('/'), "{}", name);
        }
    }
}
