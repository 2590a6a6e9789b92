//! `oci-hotplug class`: the classes of the configuration. Those that this command defines are a
//! file each in `config.d`.

use std::io::Write;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::drop_in;
use super::render::json::{write_json, write_json_list};
use super::render::table::{self, print_line};
use super::request_word::request_text;
use crate::host::config::Config;
use crate::model::request::ClassName;
use crate::model::request::annotations::{RequestListError, read_list};
use crate::model::request::class::{Class as Defined, Classes};
use crate::model::request::entry::Origin;
use crate::model::request::symlink::parse_symlinks;

/// The arguments.
#[derive(Debug, Args)]
pub(super) struct Class {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Define a class. Containers request it as class:NAME, in the annotation or by `oci-hotplug
    /// attach`.
    ///
    /// The class becomes a file in config.d beside the configuration. The policy does not restrict
    /// its devices, except by rules with applies-to = "all".
    ///
    /// Examples: oci-hotplug class add lab-board 'usb:0403:6001;access=rw';
    /// oci-hotplug class add probes usb:1366 usb:0483:374b --symlink usb:1366:0101:0=/dev/probe.
    Add(Add),
    /// List the classes and their requests.
    List,
    /// Remove a class that `class add` has defined. Running containers keep its devices until they
    /// end.
    Remove {
        /// The class.
        #[arg(value_name = "NAME")]
        name: String,
    },
}

#[derive(Debug, Args)]
struct Add {
    /// Letters, digits and, in between, "-", "_" and ".".
    #[arg(value_name = "NAME")]
    name: String,
    /// Requests as in the annotation io.oci-hotplug.devices.
    #[arg(value_name = "REQUEST", required = true)]
    requests: Vec<String>,
    /// A further link, as in the annotation io.oci-hotplug.symlinks; can be given more than once.
    #[arg(long, value_name = "RULE")]
    symlink: Vec<String>,
    /// Show and check the class, and change nothing.
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(arguments: &Class, config: &Config, as_json: bool) -> Result<()> {
    match &arguments.verb {
        Verb::Add(arguments) => add(arguments, config, as_json),
        Verb::List => list(&config.classes()?, as_json),
        Verb::Remove { name } => {
            ClassName::new(name)?;
            let path = config.drop_in_dir().join(file_name(name));
            drop_in::remove(&path, &format!("class {name}"))?;
            report(name, "removed", &path, as_json)
        }
    }
}

fn file_name(class: &str) -> String {
    format!("class-{class}.toml")
}

fn add(arguments: &Add, config: &Config, as_json: bool) -> Result<()> {
    let name = ClassName::new(&arguments.name)?;
    let requests: Vec<String> = arguments.requests.iter().map(|text| request_text(text)).collect();
    // An error names the argument, and not a file that does not exist yet.
    for text in &requests {
        read_list(Origin::Root, text, &Classes::none(config.path()))?;
    }
    for rule in &arguments.symlink {
        parse_symlinks(rule).map_err(RequestListError::from)?;
    }
    let mut text = format!(
        "{} To remove it: oci-hotplug class remove {name}\n[class.{}]\ndevices = {}\n",
        drop_in::MARK,
        drop_in::quoted(&arguments.name),
        drop_in::array(&requests),
        name = name.as_str(),
    );
    if !arguments.symlink.is_empty() {
        text += &format!("symlinks = {}\n", drop_in::array(&arguments.symlink));
    }
    let file = file_name(&arguments.name);
    let path = config.drop_in_dir().join(&file);
    let classes = config.classes()?;
    let known = classes.iter().find(|(known, _)| *known == arguments.name);
    if let Some((_, class)) = known.filter(|_| !config.files().any(|known| known == path)) {
        let after = config.with_file(&path, &text)?.classes()?;
        if after
            .iter()
            .any(|(name, new)| name == arguments.name && new == class)
        {
            return report(&arguments.name, "unchanged", config.path(), as_json);
        }
        bail!(
            "cannot define class {}: the configuration already defines it as {} (choose another name, or change it there)",
            arguments.name,
            requests_of(class).join(", ")
        );
    }
    let (path, written) = drop_in::write(config, &file, &text, arguments.dry_run)?;
    if written == drop_in::Written::DryRun && !as_json {
        writeln!(std::io::stdout(), "{text}")?;
    }
    report(&arguments.name, written.word(), &path, as_json)
}

fn report(name: &str, result: &str, path: &std::path::Path, as_json: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if as_json {
        let whole = json!({ "class": name, "file": path, "result": result });
        write_json(&mut out, &whole)?;
    } else {
        print_line!(out, "class {name}: {result} {}", path.display())?;
    }
    Ok(())
}

pub(super) fn requests_of(class: &Defined) -> Vec<String> {
    class.requests.iter().map(ToString::to_string).collect()
}

fn list(classes: &Classes, as_json: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let rows: Vec<(&str, Vec<String>)> = classes
        .iter()
        .map(|(name, class)| (name, requests_of(class)))
        .collect();
    if as_json {
        let list: Vec<Value> = rows
            .iter()
            .map(|(name, requests)| json!({ "class": name, "requests": requests }))
            .collect();
        write_json_list(&mut out, "classes", &list)?;
    } else if rows.is_empty() {
        print_line!(
            out,
            "No class is defined. Define one with: oci-hotplug class add NAME REQUEST"
        )?;
    } else {
        let rows: Vec<[String; 2]> = rows
            .into_iter()
            .map(|(name, requests)| [name.to_owned(), requests.join(", ")])
            .collect();
        table::write(&mut out, ["CLASS", "REQUESTS"], &rows)?;
    }
    Ok(())
}
