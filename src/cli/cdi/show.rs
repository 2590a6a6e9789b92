//! `oci-hotplug cdi list`, `validate` and `resolve`: the specs that engines read here.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::cdi::directories::{Definition, SpecFile, Specs, is_spec_name, shown};
use crate::cdi::document::{Device, Edits};
use crate::cdi::generate;
use crate::cdi::names::Kind;
use crate::cli::render::json::write_json;
use crate::cli::render::table::{self, print_line};

/// The faults, each with file, position and message.
fn problems(specs: &Specs) -> Vec<Value> {
    let mut all: Vec<Value> = Vec::new();
    for (directory, error) in &specs.unreadable {
        all.push(json!({ "file": directory, "message": error }));
    }
    for file in &specs.files {
        for fault in file.spec.as_ref().err().into_iter().flatten() {
            all.push(json!({
                "file": file.path, "line": fault.line, "column": fault.column, "field": fault.field,
                "message": fault.message,
            }));
        }
    }
    for (name, definition) in specs.devices() {
        let Definition::Conflict(paths) = definition else {
            continue;
        };
        for path in &paths {
            let others: Vec<&Path> = paths.iter().copied().filter(|other| other != path).collect();
            let others = shown(&others);
            all.push(json!({
                "file": path,
                "message": format!("device {name} is also defined in {others}: engines ignore all of them"),
            }));
        }
    }
    all
}

/// `FILE:LINE:COLUMN: FIELD: MESSAGE`, as compilers print it.
fn problem_line(problem: &Value) -> String {
    let text = |key: &str| problem[key].as_str().unwrap_or_default().to_owned();
    let mut line = text("file");
    if let (Some(at), Some(column)) = (problem["line"].as_u64(), problem["column"].as_u64()) {
        line += &format!(":{at}:{column}");
    }
    if !text("field").is_empty() {
        line += &format!(": {}", text("field"));
    }
    format!("{line}: {}", text("message"))
}

/// Prints the devices and the problems.
pub(super) fn list(specs: &Specs, as_json: bool) -> Result<()> {
    let devices = specs.devices();
    let problems = problems(specs);
    let mut out = std::io::stdout().lock();
    if as_json {
        let list: Vec<Value> = devices
            .iter()
            .filter_map(|(name, definition)| match definition {
                Definition::By {
                    file,
                    device,
                    shadowed,
                    ..
                } => Some(json!({
                    "device": name, "file": file.path, "shadows": shadowed,
                    "hotplug": generate::is_our_device(device), "requests": generate::requests(device),
                })),
                Definition::Conflict(_) => None,
            })
            .collect();
        let whole = json!({ "directories": specs.directories, "devices": list, "problems": problems });
        write_json(&mut out, &whole)?;
        return Ok(());
    }
    let rows: Vec<[String; 3]> = devices
        .iter()
        .filter_map(|(name, definition)| row(name, definition))
        .collect();
    if rows.is_empty() {
        let directories: Vec<&Path> = specs.directories.iter().map(PathBuf::as_path).collect();
        print_line!(out, "No device is defined in {}.", shown(&directories))?;
    } else {
        table::write(&mut out, ["DEVICE", "HOTPLUG", "FILE"], &rows)?;
    }
    if !problems.is_empty() {
        print_line!(out, "\nProblems")?;
        for problem in &problems {
            print_line!(out, "  {}", problem_line(problem))?;
        }
    }
    Ok(())
}

/// Name, requests and file; `None` if engines ignore the device.
fn row(name: &str, definition: &Definition<'_>) -> Option<[String; 3]> {
    let Definition::By {
        file,
        device,
        shadowed,
        ..
    } = definition
    else {
        return None;
    };
    let mut from = file.path.display().to_string();
    if !shadowed.is_empty() {
        from += &format!(" (instead of {})", shown(shadowed));
    }
    Some([name.to_owned(), hotplug(device), from])
}

fn hotplug(device: &Device) -> String {
    let requests = generate::requests(device);
    match (generate::is_our_device(device), requests.is_empty()) {
        (false, _) => "-".to_owned(),
        (true, true) => "by annotation".to_owned(),
        (true, false) => requests.join(", "),
    }
}

/// Prints the problems; fails if there are any.
pub(super) fn validate(specs: &Specs, as_json: bool) -> Result<()> {
    let problems = problems(specs);
    let warnings: Vec<Value> = specs.files.iter().flat_map(warnings).collect();
    let mut out = std::io::stdout().lock();
    if as_json {
        let whole = json!({ "files": specs.files.len(), "problems": problems, "warnings": warnings });
        write_json(&mut out, &whole)?;
    } else {
        for problem in &problems {
            print_line!(out, "{}", problem_line(problem))?;
        }
        for warning in &warnings {
            print_line!(out, "warning: {}", problem_line(warning))?;
        }
        if problems.is_empty() {
            let files = specs.files.len();
            print_line!(
                out,
                "{files} {} valid",
                if files == 1 { "spec is" } else { "specs are" }
            )?;
        }
    }
    match problems.len() {
        0 => Ok(()),
        count => bail!("{count} {}", if count == 1 { "problem" } else { "problems" }),
    }
}

/// What is valid but does not work on this host.
fn warnings(file: &SpecFile) -> Vec<Value> {
    let mut found = Vec::new();
    if !is_spec_name(&file.path) {
        found.push((
            String::new(),
            "engines read only files whose names end in .json or .yaml".to_owned(),
        ));
    }
    if let Ok(spec) = &file.spec {
        let kind: Result<Kind, _> = spec.kind.parse();
        let fault = kind.ok().and_then(|kind| kind.check_engines().err());
        found.extend(fault.map(|fault| ("kind".to_owned(), fault.to_string())));
        for (device, index) in spec.devices.iter().zip(0..) {
            warn_of(
                &format!("devices[{index}].containerEdits"),
                &device.container_edits,
                &mut found,
            );
        }
        warn_of("containerEdits", &spec.container_edits, &mut found);
    }
    found
        .into_iter()
        .map(|(field, message)| json!({ "file": file.path, "field": field, "message": message }))
        .collect()
}

fn warn_of(field: &str, edits: &Edits, found: &mut Vec<(String, String)>) {
    for (hook, index) in edits.hooks.iter().zip(0..) {
        if !Path::new(&hook.path).is_file() {
            let message = format!(
                "{} does not exist: a container with this device will not start",
                hook.path
            );
            found.push((format!("{field}.hooks[{index}].path"), message));
        }
    }
    for (node, index) in edits.device_nodes.iter().zip(0..) {
        // Engines read what is not given from the host's node, and reject links
        // (container-edits_unix.go:49-133).
        if node
            .kind
            .as_deref()
            .is_some_and(|kind| kind == "p" || node.major.is_some())
        {
            continue;
        }
        let host = node.host_path.as_deref().unwrap_or(&node.path);
        let message = match std::fs::symlink_metadata(host) {
            Ok(there) if there.is_symlink() => {
                format!(
                    "{host} is a link, which engines do not follow: a container with this device will not start"
                )
            }
            Ok(_) => continue,
            Err(_) => {
                format!(
                    "{host} does not exist: a container with this device will not start while it is absent"
                )
            }
        };
        found.push((format!("{field}.deviceNodes[{index}]"), message));
    }
}

/// Prints what a container with these devices gets.
pub(super) fn resolve(specs: &Specs, names: &[String], as_json: bool) -> Result<()> {
    let edits = match specs.resolve(names) {
        Ok(edits) => edits,
        Err(unresolved) => {
            let all: Vec<String> = unresolved.iter().map(ToString::to_string).collect();
            bail!("cannot resolve CDI devices: {}", all.join("\n  "));
        }
    };
    let mut out = std::io::stdout().lock();
    if as_json {
        write_json(&mut out, &json!({ "edits": edits }))?;
        return Ok(());
    }
    let devices = specs.devices();
    for name in names {
        if let Some(Definition::By { file, .. }) = devices.get(name) {
            print_line!(out, "{name}  from {}", file.path.display())?;
        }
    }
    for line in lines(&edits) {
        print_line!(out, "  {line}")?;
    }
    Ok(())
}

/// The edits, one per line, in the order in which engines apply them.
pub(in crate::cli) fn lines(edits: &Edits) -> Vec<String> {
    let mut lines: Vec<String> = edits
        .env
        .iter()
        .map(|variable| format!("environment {variable}"))
        .collect();
    for node in &edits.device_nodes {
        let host = node
            .host_path
            .as_ref()
            .map_or_else(String::new, |host| format!(" from {host}"));
        let access = node
            .permissions
            .as_deref()
            .filter(|access| !access.is_empty())
            .unwrap_or("rwm");
        lines.push(format!("node {}{host}, access {access}", node.path));
    }
    for device in &edits.net_devices {
        lines.push(format!(
            "network interface {} as {}",
            device.host_interface_name, device.name
        ));
    }
    for mount in &edits.mounts {
        lines.push(format!("mount {} at {}", mount.host_path, mount.container_path));
    }
    for hook in &edits.hooks {
        let arguments = hook.args.iter().skip(1).map(|argument| format!(" {argument}"));
        lines.push(format!(
            "hook {}: {}{}",
            hook.hook_name,
            hook.path,
            arguments.collect::<String>()
        ));
    }
    if edits.intel_rdt.is_some() {
        lines.push("Intel RDT".into());
    }
    lines.extend(edits.additional_gids.iter().map(|gid| format!("group {gid}")));
    lines
}
