//! What the verbs for USB devices of other hosts print.

use std::io::Write;

use anyhow::Result;
use serde_json::{Value, json};

use crate::cli::matching;
use crate::cli::render::json::{write_json, write_json_list};
use crate::cli::render::table::{self, print_line};
use crate::model::oci::engine::short_id;
use crate::model::remote::address::{RemoteDevice, Server};
use crate::usbip::Attached;
use crate::usbip::protocol::{Exported, Speed};
use crate::usbip::records::Local;
use crate::usbip::vhci::State;

/// Prints the devices that a server exports.
pub(super) fn list(server: &Server, exported: &[Exported], as_json: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if as_json {
        let all: Vec<Value> = exported
            .iter()
            .map(|device| exported_json(server, device))
            .collect();
        write_json_list(&mut out, "devices", &all)?;
        return Ok(());
    }
    if exported.is_empty() {
        print_line!(
            out,
            "{server} exports no free device. On that host: `usbip bind --busid BUSID`; a device in use is not listed."
        )?;
        return Ok(());
    }
    let rows: Vec<[String; 5]> = exported
        .iter()
        .map(|device| {
            [
                device.busid.to_string(),
                device.ids.to_string(),
                speed_of(device),
                classes(device).join(" "),
                device.path.clone(),
            ]
        })
        .collect();
    table::write(&mut out, ["BUSID", "ID", "SPEED", "CLASS", "PATH THERE"], &rows)?;
    Ok(())
}

fn speed_of(device: &Exported) -> String {
    device.speed.map_or_else(|| "-".into(), |speed| speed.to_string())
}

/// The class of the device, or of its interfaces if the device names none.
fn classes(device: &Exported) -> Vec<String> {
    let mut names = Vec::new();
    let own = (device.class[0] != 0).then_some(&device.class);
    for class in own.into_iter().chain(&device.interfaces) {
        let name = class_name(class[0]);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The name of a class (usb.org, Defined Class Codes), or its number.
fn class_name(class: u8) -> String {
    let name = match class {
        0x01 => "audio",
        0x02 | 0x0a => "communication",
        0x03 => "hid",
        0x06 => "image",
        0x07 => "printer",
        0x08 => "storage",
        0x09 => "hub",
        0x0b => "smartcard",
        0x0e => "video",
        0xe0 => "wireless",
        0xff => "vendor",
        other => return format!("{other:02x}"),
    };
    name.to_owned()
}

fn exported_json(server: &Server, device: &Exported) -> Value {
    json!({
        "device": format!("{server}/busid:{}", device.busid),
        "busid": device.busid.as_str(),
        "id": device.ids.to_string(),
        "speed": device.speed.map(|speed| speed.to_string()),
        "class": device.class,
        "interfaces": device.interfaces,
        "path": device.path,
    })
}

/// Prints a device that was attached, and the request for it.
pub(super) fn print_attached(requested: &RemoteDevice, attached: &Attached, as_json: bool) -> Result<()> {
    let nodes = match &attached.device {
        Some(device) => matching::nodes_at(&device.dir.display().to_string())?,
        None => Vec::new(),
    };
    let mut out = std::io::stdout().lock();
    if as_json {
        let mut whole = attached_json(attached);
        whole["nodes"] = json!(nodes);
        write_json(&mut out, &whole)?;
        return Ok(());
    }
    print_line!(
        out,
        "{requested} is attached at port {}: {}",
        attached.slot.port,
        nodes.join(" ")
    )?;
    if let Some(local) = attached.record.as_ref().and_then(|record| record.local.as_ref()) {
        print_line!(out, "A container requests it with {}", request(local))?;
    }
    Ok(())
}

/// The request for this device, with its serial number if it has one.
fn request(device: &Local) -> String {
    let by_ids = format!("usb:{}", device.ids);
    let plain = |serial: &&String| serial.bytes().all(|byte| byte.is_ascii_alphanumeric());
    match device.serial.as_ref().filter(plain) {
        Some(serial) if !serial.is_empty() => format!("{by_ids}:{serial}"),
        _ => by_ids,
    }
}

/// Prints the attached devices.
pub(super) fn ports(attached: &[Attached], as_json: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if as_json {
        let all: Vec<Value> = attached.iter().map(attached_json).collect();
        write_json_list(&mut out, "ports", &all)?;
        return Ok(());
    }
    if attached.is_empty() {
        print_line!(
            out,
            "No remote device is attached. `oci-hotplug usbip attach HOST/VID:PID` attaches one."
        )?;
        return Ok(());
    }
    let rows: Vec<[String; 6]> = attached.iter().map(row).collect();
    table::write(&mut out, ["PORT", "STATE", "ID", "SERIAL", "HERE", "FROM"], &rows)?;
    Ok(())
}

fn row(attached: &Attached) -> [String; 6] {
    let dash = || "-".to_owned();
    let device = attached.device.as_ref();
    [
        attached.slot.port.to_string(),
        state(attached).into(),
        device.map_or_else(dash, |device| device.ids.to_string()),
        serial(attached).map_or_else(dash, |serial| serial.escape_debug().to_string()),
        device.map_or_else(dash, |device| device.name.clone()),
        attached.record.as_ref().map_or_else(
            || "(not by oci-hotplug)".into(),
            |record| match &record.container {
                Some(owner) => format!("{} for container {}", record.remote, short_id(owner)),
                None => record.remote.to_string(),
            },
        ),
    ]
}

/// The serial number in the record: reading it from the device could block as long as the server
/// hangs.
fn serial(attached: &Attached) -> Option<&String> {
    attached.record.as_ref()?.local.as_ref()?.serial.as_ref()
}

/// The state of an attachment, in one word.
fn state(attached: &Attached) -> &'static str {
    let unfinished = attached
        .record
        .as_ref()
        .is_some_and(|record| record.local.is_none());
    match attached.slot.state {
        State::Free | State::NotReady => "free",
        State::Broken => "broken",
        // It is being attached, or the process that attached it was killed. No driver is bound.
        _ if unfinished => "unfinished",
        _ if attached.is_up() => "attached",
        State::Starting | State::Used => "starting",
    }
}

fn attached_json(attached: &Attached) -> Value {
    let device = attached.device.as_ref();
    let record = attached.record.as_ref();
    json!({
        "port": attached.slot.port,
        "state": state(attached),
        "speed": Speed::new(attached.slot.speed).map(|speed| speed.to_string()),
        "id": device.map(|device| device.ids.to_string()),
        "serial": serial(attached),
        "syspath": device.map(|device| device.dir.display().to_string()),
        "device": record.map(|record| record.remote.to_string()),
        "requested": record.map(|record| record.requested.to_string()),
        "container": record.and_then(|record| record.container.as_ref()),
    })
}
