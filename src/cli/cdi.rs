//! `oci-hotplug cdi`: write, list, validate and resolve specs of the Container Device Interface.

pub(super) mod show;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::error::warn;
use super::render::json::write_json_list;
use super::render::table::print_line;
use crate::cdi::directories::{DEFAULT_DIRECTORIES, SpecFile, Specs};
use crate::cdi::generate::{self, ANNOTATED, DEFAULT_KIND, NewDevice};
use crate::cdi::generated_files;
use crate::cdi::names::Kind;
use crate::host::config::Config;
use crate::host::programs;
use crate::model::request::annotations::{RequestListError, read_list};
use crate::model::request::class::Classes;
use crate::model::request::entry::Origin;
use crate::model::request::symlink::parse_symlinks;

/// The arguments.
#[derive(Debug, Args)]
pub(super) struct Cdi {
    #[command(subcommand)]
    verb: Verb,
    /// A directory with specs; can be given more than once; later ones have precedence [default:
    /// /etc/cdi and /var/run/cdi].
    #[arg(long, global = true, value_name = "DIR")]
    cdi_dir: Vec<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Write a device that adds the hooks, for engines without hooks.d.
    ///
    /// Examples: oci-hotplug cdi generate board --device usb:0403:6001; oci-hotplug cdi generate
    /// annotated, which adds the hooks for containers with requests in annotations; oci-hotplug cdi
    /// generate --all, a device for each class of the configuration.
    Generate(Generate),
    /// List the devices that engines find on this host, and the errors in specs.
    List,
    /// Check a spec, or all of them.
    Validate {
        /// The spec [default: all that engines read].
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Remove devices that `cdi generate` wrote. Specs of other programs stay.
    ///
    /// Examples: oci-hotplug cdi remove board; oci-hotplug cdi remove oci-hotplug.dev/device=board;
    /// oci-hotplug cdi remove --all.
    Remove {
        /// Names of devices, with VENDOR/CLASS= or, for oci-hotplug.dev/device, without.
        #[arg(value_name = "NAME", required_unless_present = "all")]
        names: Vec<String>,
        /// Remove all of oci-hotplug.dev/device except "annotated".
        #[arg(long, conflicts_with = "names")]
        all: bool,
    },
    /// Show what a container with these devices gets.
    Resolve {
        /// Names of devices, with VENDOR/CLASS= or, for oci-hotplug.dev/device, without.
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
    },
}

#[derive(Debug, Args)]
struct Generate {
    /// The device's name, behind the "=".
    #[arg(value_name = "NAME", required_unless_present = "all", conflicts_with = "all")]
    name: Option<String>,
    /// A request, as in the annotation io.oci-hotplug.devices; can be given more than once.
    #[arg(long, value_name = "REQUEST", conflicts_with = "all")]
    device: Vec<String>,
    /// A further link, as in the annotation io.oci-hotplug.symlinks; can be given more than once.
    #[arg(long, value_name = "RULE", conflicts_with = "all")]
    symlink: Vec<String>,
    /// Write a device for each class of the configuration, with the class's name.
    #[arg(long)]
    all: bool,
    /// Vendor and class, before the "=".
    #[arg(long, value_name = "VENDOR/CLASS", default_value = DEFAULT_KIND)]
    kind: String,
    /// The directory to write to, or "-" for standard output.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DIRECTORIES[0])]
    output: PathBuf,
    /// Replace a spec of another program that has the same file name.
    #[arg(long)]
    force: bool,
    /// Where the hooks are [default: /usr/libexec/oci/hooks.d, or beside this program].
    #[arg(long, value_name = "DIR")]
    hook_dir: Option<PathBuf>,
}

pub(super) fn run(arguments: &Cdi, config: &Config, as_json: bool) -> Result<()> {
    let directories = directories(&arguments.cdi_dir);
    match &arguments.verb {
        Verb::Generate(arguments) => {
            let classes = match arguments.all {
                true => config.classes()?,
                false => config.usable_classes(),
            };
            run_generate(arguments, directories, &classes, as_json)
        }
        Verb::List => show::list(&Specs::scan(&directories), as_json),
        Verb::Validate { file: None } => show::validate(&Specs::scan(&directories), as_json),
        Verb::Validate { file: Some(path) } => {
            let specs = Specs {
                files: vec![SpecFile::read(path, 0)],
                ..Specs::default()
            };
            show::validate(&specs, as_json)
        }
        Verb::Remove { names, all } => remove(&Specs::scan(&directories), names, *all, as_json),
        Verb::Resolve { names } => {
            let names: Vec<String> = names.iter().map(|name| qualified(name)).collect();
            show::resolve(&Specs::scan(&directories), &names, as_json)
        }
    }
}

/// The directories with specs: those that are given, or the default ones.
pub(super) fn directories(given: &[PathBuf]) -> Vec<PathBuf> {
    match given {
        [] => DEFAULT_DIRECTORIES.map(PathBuf::from).to_vec(),
        _ => given.to_vec(),
    }
}

/// The name of a device of ours with its kind in front; others as they are.
fn qualified(name: &str) -> String {
    match name.contains(['=', '/']) {
        true => name.to_owned(),
        false => format!("{DEFAULT_KIND}={name}"),
    }
}

fn remove(specs: &Specs, names: &[String], all: bool, as_json: bool) -> Result<()> {
    let ours = generated_files::files_of_ours(specs);
    let annotated = qualified(ANNOTATED);
    let kind = qualified("");
    let mut selected: Vec<&(&Path, String)> = Vec::new();
    if all {
        selected.extend(
            ours.iter()
                .filter(|(_, name)| name.starts_with(&kind) && *name != annotated),
        );
    }
    // Find all devices before removing one.
    for name in names {
        let name = qualified(name);
        let before = selected.len();
        selected.extend(ours.iter().filter(|(_, device)| *device == name));
        if selected.len() > before {
            continue;
        }
        match specs.devices().get(&name) {
            Some(_) => bail!(
                "cannot remove {name}: another program wrote its spec (`oci-hotplug cdi list` shows the file)"
            ),
            None => bail!(
                "cannot remove {name}: no such device is defined (`oci-hotplug cdi list` shows those that are)"
            ),
        }
    }
    let mut out = std::io::stdout().lock();
    let mut removed: Vec<Value> = Vec::new();
    for (path, name) in selected {
        std::fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
        removed.push(json!({ "device": name, "file": path, "result": "removed" }));
        if !as_json {
            print_line!(out, "{name}: removed {}", path.display())?;
        }
    }
    if as_json {
        write_json_list(&mut out, "devices", &removed)?;
    } else if removed.is_empty() {
        print_line!(out, "There are no devices of `oci-hotplug cdi generate`.")?;
    }
    Ok(())
}

fn run_generate(
    arguments: &Generate,
    mut directories: Vec<PathBuf>,
    classes: &Classes,
    as_json: bool,
) -> Result<()> {
    let kind: Kind = arguments.kind.parse().context("--kind")?;
    let hook_dir = match &arguments.hook_dir {
        Some(dir) => dir.clone(),
        None => default_hook_dir()?,
    };
    let devices = devices(arguments, classes)?;
    let mut out = std::io::stdout().lock();
    if arguments.output == Path::new("-") {
        write!(
            out,
            "{}",
            generate::text(&generate::document(&kind, &hook_dir, &devices)?)
        )?;
        return Ok(());
    }
    directories.push(arguments.output.clone());
    let specs = Specs::scan(&directories);
    let written = write_files(arguments, &kind, &hook_dir, &devices, &specs)?;
    if as_json {
        let list: Vec<Value> = written
            .iter()
            .map(|(name, file, result)| json!({ "device": name, "file": file, "result": result }))
            .collect();
        write_json_list(&mut out, "devices", &list)?;
    } else {
        for (name, file, result) in written {
            print_line!(out, "{name}: {result} {file}")?;
        }
    }
    if arguments.all {
        warn_of_stale(&specs, &kind, classes);
    }
    Ok(())
}

/// Writes a file for each device, after checking all of them. Returns for each its name, the file,
/// and what was done.
fn write_files(
    arguments: &Generate,
    kind: &Kind,
    hook_dir: &Path,
    devices: &[NewDevice],
    specs: &Specs,
) -> Result<Vec<(String, String, &'static str)>> {
    let mut ready = Vec::new();
    for device in devices {
        let document = generate::document(kind, hook_dir, std::slice::from_ref(device))?;
        let path = generated_files::check(specs, &arguments.output, kind, &device.name, arguments.force)?;
        ready.push((path, document, device));
    }
    let mut written = Vec::new();
    for (path, document, device) in &ready {
        let change = generated_files::write(path, document)?;
        written.push((
            format!("{kind}={}", device.name),
            path.display().to_string(),
            change.word(),
        ));
    }
    Ok(written)
}

fn default_hook_dir() -> Result<PathBuf> {
    Ok(generate::find_hooks(&programs::directories()?)?)
}

/// The devices to be written, with checked requests.
fn devices(arguments: &Generate, classes: &Classes) -> Result<Vec<NewDevice>> {
    let Some(name) = &arguments.name else {
        return devices_of_classes(classes);
    };
    for request in &arguments.device {
        read_list(Origin::Root, request, classes)?;
    }
    for rule in &arguments.symlink {
        parse_symlinks(rule).map_err(RequestListError::from)?;
    }
    if arguments.device.is_empty() && name != ANNOTATED {
        bail!(
            "device {name:?} has no request: give --device REQUEST (only the device \"{ANNOTATED}\" leaves requests to the \
             container's annotations)"
        );
    }
    Ok(vec![NewDevice {
        name: name.clone(),
        devices: arguments.device.clone(),
        symlinks: arguments.symlink.clone(),
    }])
}

fn devices_of_classes(classes: &Classes) -> Result<Vec<NewDevice>> {
    let devices: Vec<NewDevice> = classes
        .iter()
        .map(|(name, _)| NewDevice {
            name: name.to_owned(),
            devices: vec![format!("class:{name}")],
            symlinks: Vec::new(),
        })
        .collect();
    let config = classes.defined_in().display();
    if devices.is_empty() {
        bail!("{config} defines no class (`oci-hotplug class add lab-board usb:0403:6001` defines one)");
    }
    if devices.iter().any(|device| device.name == ANNOTATED) {
        bail!(
            "class \"{ANNOTATED}\" in {config}: this name is reserved for the device without requests (rename the class)"
        );
    }
    Ok(devices)
}

/// Warns about devices whose class is not defined: containers with such a device do not start.
fn warn_of_stale(specs: &Specs, kind: &Kind, classes: &Classes) {
    let known: BTreeSet<&str> = classes.iter().map(|(name, _)| name).collect();
    for file in &specs.files {
        let Some(spec) = file.spec.as_ref().ok().filter(|spec| generate::is_ours(spec)) else {
            continue;
        };
        for device in spec.devices.iter().filter(|_| spec.kind == kind.to_string()) {
            let requests = generate::requests(device).into_iter();
            let mut classes = requests.filter_map(|request| request.strip_prefix("class:"));
            if let Some(name) =
                classes.find(|name| !known.contains(name.split([';', ',']).next().unwrap_or(name).trim()))
            {
                warn(&format!(
                    "{} requests class {name:?}, which is not defined: remove it",
                    file.path.display()
                ));
            }
        }
    }
}
