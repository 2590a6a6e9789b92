//! The rules that `oci-hotplug allow` has written: `--list` and `--remove`.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Result, bail};
use serde::Deserialize;
use serde_json::{Value, json};

use super::report::removed;
use crate::cli::drop_in;
use crate::cli::reload;
use crate::cli::render::json::write_json_list;
use crate::cli::render::table::{self, print_line};
use crate::host::config::Config;
use crate::host::state::registry::Registry;
use crate::model::device::Access;

/// How the names of our files begin.
pub(super) const PREFIX: &str = "allow-";

/// The part of a written file that is read again.
#[derive(Deserialize)]
pub(super) struct File {
    pub(super) policy: Rules,
}

#[derive(Deserialize)]
pub(super) struct Rules {
    pub(super) allow: Vec<Written>,
}

#[derive(Deserialize)]
pub(super) struct Written {
    pub(super) devices: Vec<String>,
    pub(super) access: Option<Access>,
    pub(super) reason: Option<String>,
}

/// The rules that this command has written, with their files.
fn written(config: &Config) -> Result<Vec<(PathBuf, Written)>> {
    let mut rules = Vec::new();
    for (path, text) in drop_in::files(config, PREFIX)? {
        // The administrator changed the file.
        let Ok(file) = toml::from_str::<File>(&text) else {
            continue;
        };
        rules.extend(file.policy.allow.into_iter().map(|rule| (path.clone(), rule)));
    }
    Ok(rules)
}

/// Prints these rules.
pub(super) fn list(config: &Config, as_json: bool) -> Result<()> {
    let rules = written(config)?;
    let mut out = std::io::stdout().lock();
    let access = |rule: &Written| rule.access.unwrap_or(Access::ALL).to_string();
    if as_json {
        let list: Vec<Value> = rules
            .iter()
            .map(|(path, rule)| {
                json!({ "devices": rule.devices, "access": access(rule), "reason": rule.reason, "file": path })
            })
            .collect();
        write_json_list(&mut out, "rules", &list)?;
    } else if rules.is_empty() {
        print_line!(
            out,
            "No rule of `oci-hotplug allow` is in {}.",
            config.drop_in_dir().display()
        )?;
    } else {
        let rows: Vec<[String; 4]> = rules
            .iter()
            .map(|(path, rule)| {
                let reason = rule.reason.clone().unwrap_or_else(|| "-".into());
                [
                    rule.devices.join(" "),
                    access(rule),
                    reason,
                    path.display().to_string(),
                ]
            })
            .collect();
        table::write(&mut out, ["DEVICES", "ACCESS", "REASON", "FILE"], &rows)?;
    }
    Ok(())
}

/// Removes the rules for exactly these selectors, and reloads the watchers.
///
/// # Errors
/// When this command has written no such rule, or a file has further rules. Nothing was removed
/// then.
pub(super) fn remove(
    config: &Config,
    registry: &Registry,
    selectors: &[String],
    access: Option<Access>,
    as_json: bool,
) -> Result<()> {
    let what = selectors.join(", ");
    let rules = written(config)?;
    let found: Vec<(PathBuf, Access)> = rules
        .iter()
        .filter(|(_, rule)| sorted(&rule.devices) == sorted(selectors))
        .map(|(path, rule)| (path.clone(), rule.access.unwrap_or(Access::ALL)))
        .filter(|(_, allowed)| access.is_none_or(|access| *allowed == access))
        .collect();
    if found.is_empty() {
        bail!(
            "cannot remove the rule for {what}: `oci-hotplug allow` did not write it (`oci-hotplug allow --list` shows the rules that it wrote)"
        );
    }
    for (path, _) in &found {
        if rules.iter().filter(|(other, _)| other == path).count() > 1 {
            bail!(
                "cannot remove the rule for {what}: {} has further rules (remove it there)",
                path.display()
            );
        }
    }
    for (path, _) in &found {
        drop_in::remove(path, &what)?;
    }
    let reloaded = reload::all(registry)?;
    removed(selectors, &found, &reloaded, as_json)?;
    reload::failures(&reloaded)
}

fn sorted(texts: &[String]) -> Vec<&String> {
    let mut texts: Vec<&String> = texts.iter().collect();
    texts.sort();
    texts
}
