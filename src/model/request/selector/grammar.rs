//! Parses selectors.
//!
//! Must not know options and lists (`request`) or devices (`matching`).

use std::path::PathBuf;
use std::str::FromStr;

use super::error::KINDS;
use super::path::{self, PathFault};
use super::{DeviceSelector, Glob, MAX_PARENTS, MAX_TERMS, PathRegex, Selector, SelectorError, Term};
use crate::model::quoting::{
    escapes, nearest, shown, split_once_unescaped, split_unescaped, trim_unescaped, unescape,
};

/// How many characters of a word a message shows.
const SHOWN_WORD: usize = 24;

impl FromStr for DeviceSelector {
    type Err = SelectorError;

    /// Parses `*( "parent-of:" ) selector *( "&" [ "!" ] selector )`.
    fn from_str(text: &str) -> Result<Self, SelectorError> {
        refuse_separators(text, &[',', ';'])?;
        let (parents, rest) = strip_parents(trim_unescaped(text))?;
        if rest.is_empty() {
            return Err(SelectorError::Empty);
        }
        let texts = split_unescaped(rest, '&');
        if texts.len() > MAX_TERMS {
            return Err(SelectorError::TooManyTerms);
        }
        let terms: Vec<Term> = texts
            .into_iter()
            .map(|term| parse_term(trim_unescaped(term)))
            .collect::<Result<_, _>>()?;
        if terms[0].negated {
            return Err(SelectorError::NegatedFirst);
        }
        let is_remote = |term: &Term| matches!(term.selector, Selector::Usbip { .. });
        if (parents > 0 || terms.len() > 1) && terms.iter().any(is_remote) {
            return Err(SelectorError::Usbip);
        }
        Ok(Self { parents, terms })
    }
}

fn strip_parents(mut text: &str) -> Result<(usize, &str), SelectorError> {
    let mut parents = 0;
    while let Some(rest) = text.strip_prefix("parent-of:") {
        parents += 1;
        if parents > MAX_PARENTS {
            return Err(SelectorError::TooManyParents);
        }
        text = rest;
    }
    Ok((parents, text))
}

fn parse_term(text: &str) -> Result<Term, SelectorError> {
    let (negated, selector) = match text.strip_prefix('!') {
        Some(selector) => (true, selector),
        None => (false, text),
    };
    if selector.is_empty() {
        return Err(SelectorError::EmptyTerm);
    }
    Ok(Term {
        negated,
        selector: parse_selector(selector)?,
    })
}

impl FromStr for Selector {
    type Err = SelectorError;

    /// Parses a single `KIND:VALUE`.
    fn from_str(text: &str) -> Result<Self, SelectorError> {
        refuse_separators(text, &[',', ';', '&'])?;
        let text = trim_unescaped(text);
        if text.is_empty() {
            return Err(SelectorError::Empty);
        }
        parse_selector(text)
    }
}

fn refuse_separators(text: &str, separators: &[char]) -> Result<(), SelectorError> {
    let found = separators
        .iter()
        .find(|separator| split_once_unescaped(text, **separator).is_some());
    found.map_or(Ok(()), |found| Err(SelectorError::Separator { found: *found }))
}

fn parse_selector(text: &str) -> Result<Selector, SelectorError> {
    let Some((kind, value)) = text.split_once(':') else {
        return Err(not_a_kind(text));
    };
    match kind {
        "usb" => parse_usb(&plain(value)?, check_any_serial),
        "devnode" => Ok(Selector::DevNode(parse_node(value, "devnode")?)),
        "syspath" => {
            let path = path::sys_path(&plain(value)?).map_err(|fault| SelectorError::Path {
                kind: "syspath",
                fault,
            })?;
            Ok(Selector::SysPath(path))
        }
        "glob" => parse_path_glob(value),
        "regex" => parse_regex(value),
        "subsystem" => Ok(Selector::Subsystem(name(value, "subsystem", "subsystem:tty")?)),
        "driver" => Ok(Selector::Driver(name(value, "driver", "driver:ftdi_sio")?)),
        "tag" => Ok(Selector::Tag(name(value, "tag", "tag:uaccess")?)),
        "property" => parse_property(value),
        "attr" => parse_attr(value),
        "port" => parse_port(plain(value)?),
        "pci" => parse_pci(&plain(value)?),
        "node" => Ok(Selector::Node(parse_node(value, "node")?)),
        "usbip" => parse_remote(&plain(value)?),
        "parent-of" => Err(SelectorError::LateParent),
        "class" => Err(SelectorError::Class),
        _ => Err(unknown_kind(kind, text)),
    }
}

fn not_a_kind(text: &str) -> SelectorError {
    if text.starts_with('/') {
        return SelectorError::BarePath;
    }
    SelectorError::NoKind {
        word: shown(text, SHOWN_WORD),
    }
}

fn unknown_kind(kind: &str, text: &str) -> SelectorError {
    if kind.starts_with('/') {
        return SelectorError::BarePath;
    }
    if parse_usb(text, check_any_serial).is_ok() {
        return SelectorError::BareUsbIds {
            ids: shown(text, SHOWN_WORD),
        };
    }
    SelectorError::UnknownKind {
        kind: shown(kind, SHOWN_WORD),
        near: nearest(kind, &KINDS),
    }
}

/// The value without its backslashes.
fn plain(value: &str) -> Result<String, SelectorError> {
    let plain = unescape(value).ok_or(SelectorError::Dangling)?;
    if plain.contains(char::is_control) {
        return Err(SelectorError::Control);
    }
    Ok(plain)
}

fn name(value: &str, kind: &'static str, example: &'static str) -> Result<String, SelectorError> {
    let name = plain(value)?;
    if name.is_empty() {
        return Err(SelectorError::EmptyValue { kind, example });
    }
    Ok(name)
}

/// Parses `VID[:PID[:SERIAL]]`; everything after the second colon is the serial number.
fn parse_usb(
    value: &str,
    check_serial: fn(&str) -> Result<(), SelectorError>,
) -> Result<Selector, SelectorError> {
    let mut parts = value.splitn(3, ':');
    let vendor = parse_usb_id(parts.next().unwrap_or_default(), "vendor", "0403")?;
    let product = parts
        .next()
        .map(|id| parse_usb_id(id, "product", "6001"))
        .transpose()?;
    let serial = parts.next().map(str::to_owned);
    if let Some(serial) = &serial {
        check_serial(serial)?;
    }
    Ok(Selector::Usb {
        vendor,
        product,
        serial,
    })
}

/// Accepts exactly 4 hex digits and returns them in lower case.
pub(in crate::model) fn parse_usb_id(
    text: &str,
    which: &'static str,
    example: &'static str,
) -> Result<String, SelectorError> {
    if text.len() == 4 && text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Ok(text.to_ascii_lowercase());
    }
    Err(SelectorError::UsbId { which, example })
}

fn check_any_serial(serial: &str) -> Result<(), SelectorError> {
    if serial.trim_end().is_empty() {
        return Err(SelectorError::EmptySerial {
            what: "serial number",
            example: "usb:0403:6001:FT001",
        });
    }
    Ok(())
}

fn parse_node(value: &str, kind: &'static str) -> Result<PathBuf, SelectorError> {
    let link_escape = escapes(value).any(|(at, letter)| {
        let code = value.get(at + 1..at + 3);
        letter == 'x' && code.is_some_and(|code| code.bytes().all(|digit| digit.is_ascii_hexdigit()))
    });
    if link_escape {
        return Err(SelectorError::LinkEscape);
    }
    path::node_path(&plain(value)?).map_err(|fault| SelectorError::Path { kind, fault })
}

/// The first character after a backslash that was probably meant for the pattern and not for the
/// request.
fn escape_of_the_pattern(value: &str) -> Option<String> {
    let is_ours =
        |letter: char| letter.is_whitespace() || matches!(letter, ',' | ';' | '&' | '\\' | '!' | '=' | ':');
    let (_, letter) = escapes(value).find(|(_, letter)| !is_ours(*letter))?;
    Some(shown(&letter.to_string(), SHOWN_WORD))
}

/// A glob without its backslashes. `\*` would become `*` and match more than intended, so it is
/// refused.
fn plain_glob(value: &str) -> Result<Glob, SelectorError> {
    if let Some(letter) = escape_of_the_pattern(value) {
        return Err(SelectorError::GlobEscape { letter });
    }
    Glob::new(&plain(value)?)
}

fn parse_path_glob(value: &str) -> Result<Selector, SelectorError> {
    if value.is_empty() {
        return Err(SelectorError::EmptyValue {
            kind: "glob",
            example: "glob:ttyUSB*",
        });
    }
    let pattern = plain_glob(value)?;
    let first = pattern
        .as_str()
        .strip_prefix('/')
        .map(|rest| rest.split('/').next().unwrap_or_default());
    if first.is_some_and(|first| first != "dev" && !first.contains(['*', '?', '['])) {
        return Err(SelectorError::GlobOutsideDev);
    }
    Ok(Selector::Glob(pattern))
}

/// `\d` would become `d`, and `\.` would match any character, so they are refused.
fn parse_regex(value: &str) -> Result<Selector, SelectorError> {
    if value.is_empty() {
        return Err(SelectorError::EmptyValue {
            kind: "regex",
            example: "regex:^ttyUSB[0-9]+$",
        });
    }
    if let Some(letter) = escape_of_the_pattern(value) {
        return Err(SelectorError::RegexEscape { letter });
    }
    PathRegex::new(&plain(value)?).map(Selector::Regex)
}

fn parse_property(value: &str) -> Result<Selector, SelectorError> {
    let (key, pattern) = key_and_glob(value, "property", "KEY=GLOB", "property:ID_BUS=usb")?;
    if key.contains('=') {
        return Err(SelectorError::KeyWithEquals);
    }
    Ok(Selector::Property { key, pattern })
}

fn parse_attr(value: &str) -> Result<Selector, SelectorError> {
    let (name, pattern) = key_and_glob(value, "attr", "NAME=GLOB", "attr:idVendor=0403")?;
    let stays = name.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if !stays || name.contains(['\0', '=']) {
        return Err(SelectorError::AttributeName);
    }
    Ok(Selector::Attr { name, pattern })
}

fn key_and_glob(
    value: &str,
    kind: &'static str,
    form: &'static str,
    example: &'static str,
) -> Result<(String, Glob), SelectorError> {
    let fault = SelectorError::NoPattern { kind, form, example };
    let (key, pattern) = split_once_unescaped(value, '=').ok_or(fault.clone())?;
    let key = plain(key)?;
    if key.is_empty() {
        return Err(fault);
    }
    Ok((key, plain_glob(pattern)?))
}

/// The kernel's names of USB devices: `BUS-PORT.PORT…` (usb_alloc_dev, drivers/usb/core/usb.c),
/// `usbBUS` for root hubs.
fn parse_port(port: String) -> Result<Selector, SelectorError> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
    let is_port = match port.strip_prefix("usb") {
        Some(bus) => is_number(bus),
        None => port
            .split_once('-')
            .is_some_and(|(bus, ports)| is_number(bus) && ports.split('.').all(is_number)),
    };
    if !is_port {
        return Err(SelectorError::Port);
    }
    Ok(Selector::Port(port))
}

/// Parses `HOST[:PORT][/WHICH]`. A serial number may contain a `/`, a host may not.
fn parse_remote(text: &str) -> Result<Selector, SelectorError> {
    let (server, device) = match text.split_once('/') {
        Some((server, device)) => (server, Some(device.parse()?)),
        None => (text, None),
    };
    Ok(Selector::Usbip {
        server: server.parse()?,
        device,
    })
}

/// The kernel's names of PCI functions: `%04x:%02x:%02x.%d` (pci_setup_device,
/// drivers/pci/probe.c).
fn parse_pci(address: &str) -> Result<Selector, SelectorError> {
    let (place, function) = address.split_once('.').ok_or(SelectorError::Pci)?;
    let parts: Vec<&str> = place.split(':').collect();
    let (domain, bus, slot) = match parts[..] {
        [bus, slot] => ("0000", bus, slot),
        [domain, bus, slot] if (4..=8).contains(&domain.len()) => (domain, bus, slot),
        _ => return Err(SelectorError::Pci),
    };
    let (domain, bus, slot) = (hex(domain)?, hex(bus)?, hex(slot)?);
    let fits = bus.len() == 2 && slot.len() == 2 && slot.as_str() < "20";
    if !fits || !matches!(function.as_bytes(), [b'0'..=b'7']) {
        return Err(SelectorError::Pci);
    }
    // The kernel writes a domain with at least four digits and without further leading zeros.
    let domain = format!("{:0>4}", domain.trim_start_matches('0'));
    Ok(Selector::Pci(format!("{domain}:{bus}:{slot}.{function}")))
}

fn hex(text: &str) -> Result<String, SelectorError> {
    if text.is_empty() || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(SelectorError::Pci);
    }
    Ok(text.to_ascii_lowercase())
}

/// Parses one device of the annotation `org.lowrisc.hotplug.devices`, whose grammar has no escapes
/// and does not trim.
pub(in crate::model) fn lowrisc_selector(text: &str) -> Result<DeviceSelector, SelectorError> {
    let (parents, rest) = strip_parents(text)?;
    let (kind, value) = rest.split_once(':').unwrap_or((rest, ""));
    let selector = match kind {
        "usb" => parse_usb(value, check_lowrisc_serial)?,
        // That grammar allows paths with `.` and `..`; here each path has only one spelling.
        "devnode" if value.starts_with('/') && !value.ends_with('/') => {
            Selector::DevNode(path::node_path(&path::normalised(value)).map_err(devnode_fault)?)
        }
        "devnode" => Selector::DevNode(path::node_path(value).map_err(devnode_fault)?),
        "syspath" => Selector::SysPath(path::sys_path(value).map_err(|fault| SelectorError::Path {
            kind: "syspath",
            fault,
        })?),
        _ => {
            return Err(SelectorError::LowriscKind {
                kind: shown(kind, SHOWN_WORD),
            });
        }
    };
    let terms = vec![Term {
        negated: false,
        selector,
    }];
    Ok(DeviceSelector { parents, terms })
}

fn devnode_fault(fault: PathFault) -> SelectorError {
    SelectorError::Path {
        kind: "devnode",
        fault,
    }
}

fn check_lowrisc_serial(serial: &str) -> Result<(), SelectorError> {
    if serial.is_empty() || !serial.chars().all(|letter| letter.is_ascii_alphanumeric()) {
        return Err(SelectorError::LowriscSerial);
    }
    Ok(())
}
