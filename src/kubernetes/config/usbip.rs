//! usbip-device-plugin's config.yaml (its config.go:73-99): resources by name, each a list of
//! devices of USB/IP servers.
//!
//! ```yaml
//! domain: example.com       # as --domain
//! resources:
//!   sensor:
//!   - target: {host: lab, port: 3240}
//!     # A key that is left out matches any device.
//!     selector: {vendor: 0x0403, product: 0x6001, bus_id: "1-1.4", serial: FT001}
//!     extras: [{host_path: /dev/ttyUSB0, container_path: /dev/board, permissions: rw}]
//! ```
//! That plugin reads it with a library (viper) that ignores the case of keys and accepts numbers in
//! quotes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::definition::{DEV, Definition, Extra, RemoteEntry};
use super::error::{ConfigError, Fault, permissions};
use crate::kubernetes::resources::names::ResourceName;
use crate::model::device::Access;
use crate::model::remote::DEFAULT_PORT;
use crate::model::remote::address::{RemoteDevice, Server, ServerDevice, UsbIdPattern};
use crate::model::request::selector::{Glob, Selector};
use crate::model::request::{NodePath, Request};
use crate::model::yaml::{self, Dialect, Node, Value};

/// The domain of its resources if no other is given.
pub(crate) const USBIP_DOMAIN: &str = "usbip.dev.mvalvekens.be";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileText {
    domain: Option<String>,
    /// Parsed in the order of the file, which a serde map would not keep.
    #[serde(default, rename = "resources")]
    _resources: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryText {
    target: TargetText,
    #[serde(default)]
    selector: Option<SelectorText>,
    #[serde(default)]
    extras: Option<Vec<ExtraText>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetText {
    host: String,
    port: Option<Number>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SelectorText {
    vendor: Option<Number>,
    product: Option<Number>,
    bus_id: Option<String>,
    /// An extension of this plugin.
    serial: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExtraText {
    host_path: PathBuf,
    container_path: Option<PathBuf>,
    permissions: Option<String>,
}

/// A number, quoted or not.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a number, such as 0x0403")]
enum Number {
    Value(u64),
    Text(String),
}

impl Number {
    /// At most 16 bits. A quoted number is decimal, or hexadecimal with 0x. A leading 0 without x,
    /// which that plugin parses as octal, is rejected.
    fn value(&self, what: &'static str) -> Result<u16, Fault> {
        let value = match self {
            Self::Value(value) => Some(*value),
            Self::Text(text) => match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
                Some(digits) => u64::from_str_radix(digits, 16).ok(),
                None if text.len() > 1 && text.starts_with('0') => None,
                None => text.parse().ok(),
            },
        };
        let shown = || match self {
            Self::Value(value) => value.to_string(),
            Self::Text(text) => text.clone(),
        };
        value
            .and_then(|value| value.try_into().ok())
            .ok_or_else(|| Fault::Number { what, value: shown() })
    }
}

/// Whether a file has this format: its resources are a mapping by name.
pub fn is_usbip(text: &str) -> bool {
    read(text).is_ok_and(|root| matches!(value_of(&root, "resources"), Some(Value::Map(_))))
}

/// The tree with merge keys expanded and keys in lower case.
fn read(text: &str) -> Result<Node, yaml::Error> {
    Ok(lower_case(yaml::parse(text)?.merged()?, 0))
}

fn value_of<'n>(root: &'n Node, name: &str) -> Option<&'n Value> {
    let Value::Map(entries) = &root.value else {
        return None;
    };
    let found = entries.iter().find(|(key, _)| key.text() == Some(name));
    found.map(|(_, node)| &node.value)
}

/// Parses the file.
pub(super) fn parse(path: &Path, text: &str, domain: Option<&str>) -> Result<Vec<Definition>, ConfigError> {
    let malformed = |source| ConfigError::Malformed {
        path: path.to_owned(),
        source,
    };
    let root = read(text).map_err(malformed)?;
    let file: Option<FileText> = root.decode_strictly(Dialect::Core).map_err(malformed)?;
    let own_domain = file.and_then(|file| file.domain);
    let domain = domain.or(own_domain.as_deref()).unwrap_or(USBIP_DOMAIN);
    let resources = match value_of(&root, "resources") {
        Some(Value::Map(resources)) if !resources.is_empty() => resources,
        _ => {
            return Err(ConfigError::Element {
                place: path.display().to_string(),
                fault: Fault::NoResources,
            });
        }
    };
    let mut numbers = BTreeMap::new();
    let mut definitions = Vec::new();
    for (name, entries) in resources {
        let name = name.text().unwrap_or_default();
        let place = format!("{}, resource {name:?}", path.display());
        let at = |place: &str| {
            let place = place.to_owned();
            |fault| ConfigError::Element { place, fault }
        };
        let resource: ResourceName = format!("{domain}/{name}")
            .parse()
            .map_err(|error| at(&place)(Fault::Name(error)))?;
        let mut read = Vec::new();
        for (node, number) in elements(entries).map_err(at(&place))?.iter().zip(1..) {
            let text = node.decode_strictly(Dialect::Core).map_err(Fault::Entry);
            let entry = text.and_then(|text| entry(text, &mut numbers));
            read.push(entry.map_err(at(&format!("{place}, entry {number}")))?);
        }
        definitions.push(Definition::Remote {
            name: resource,
            entries: read,
        });
    }
    Ok(definitions)
}

/// The elements of a list; null is empty.
fn elements(node: &Node) -> Result<&[Node], Fault> {
    match &node.value {
        Value::List(list) => Ok(list),
        _ => {
            let absent: Result<Option<Vec<IgnoredAny>>, _> = node.decode_strictly(Dialect::Core);
            absent.map(|_| &[][..]).map_err(Fault::Entry)
        }
    }
}

/// The value with all keys in lower case, down to a depth that no such file reaches.
fn lower_case(mut node: Node, depth: usize) -> Node {
    const DEEPEST: usize = 16;
    if depth >= DEEPEST {
        return node;
    }
    node.value = match node.value {
        Value::Map(entries) => Value::Map(
            entries
                .into_iter()
                .map(|(key, value)| (key.map_text(str::to_lowercase), lower_case(value, depth + 1)))
                .collect(),
        ),
        Value::List(list) => Value::List(list.into_iter().map(|node| lower_case(node, depth + 1)).collect()),
        scalar => scalar,
    };
    node
}

/// Parses one entry. `numbers` counts the entries for each device so far.
fn entry(text: EntryText, numbers: &mut BTreeMap<RemoteDevice, u32>) -> Result<RemoteEntry, Fault> {
    let mut device = RemoteDevice {
        server: server(&text.target)?,
        device: server_device(&text.selector.unwrap_or_default())?,
    };
    let count = numbers.entry(device.clone()).or_default();
    *count += 1;
    if let ServerDevice::Ids { number, .. } = &mut device.device {
        *number = u8::try_from(*count).map_err(|_| Fault::TooManyEqual)?;
    }
    let extras = text.extras.unwrap_or_default().into_iter().map(extra);
    let extras: Vec<Extra> = extras.collect::<Result<_, _>>()?;
    let mut notes = Vec::new();
    let requests = requests(&device, &extras, &mut notes)?;
    Ok(RemoteEntry {
        device,
        requests,
        extras,
        notes,
    })
}

fn server(text: &TargetText) -> Result<Server, Fault> {
    let port = match &text.port {
        Some(port) => port.value("port")?,
        None => 0,
    };
    // That plugin has no default: an absent port is 0.
    let port = if port == 0 { DEFAULT_PORT } else { port };
    let host = text.host.trim();
    let server = match host.matches(':').count() {
        0 => format!("{host}:{port}"),
        1 => return Err(Fault::Keys("the host has a port: write it as port:")),
        _ if host.starts_with('[') => format!("{host}:{port}"),
        _ => format!("[{host}]:{port}"),
    };
    Ok(server.parse()?)
}

fn server_device(text: &SelectorText) -> Result<ServerDevice, Fault> {
    let id = |what, number: &Option<Number>| match number {
        None => Ok(None),
        Some(number) => number.value(what).map(|id| Some(id).filter(|id| *id != 0)),
    };
    let ids = UsbIdPattern {
        vendor: id("vendor", &text.vendor)?,
        product: id("product", &text.product)?,
    };
    let is_any = (ids.vendor, ids.product) == (None, None);
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    // Parse it from text, so that the rules for requests apply.
    let device = match given(&text.serial) {
        Some(serial) => Some(format!("{ids}:{serial}")),
        None if is_any => None,
        None => Some(ids.to_string()),
    };
    let device_text = match (given(&text.bus_id), device) {
        (Some(busid), Some(device)) => format!("busid:{busid}:{device}"),
        (Some(busid), None) => format!("busid:{busid}"),
        (None, Some(device)) => device,
        (None, None) => ids.to_string(),
    };
    Ok(device_text.parse()?)
}

fn extra(text: ExtraText) -> Result<Extra, Fault> {
    let is_absolute = |path: &Path| path.is_absolute() && path.components().count() > 1;
    let container = text.container_path.filter(|path| !path.as_os_str().is_empty());
    let container = container.unwrap_or_else(|| text.host_path.clone());
    for path in [&text.host_path, &container] {
        if !is_absolute(path) {
            return Err(Fault::Extra {
                path: path.display().to_string(),
            });
        }
    }
    let access = text.permissions.filter(|text| !text.is_empty());
    Ok(Extra {
        host: text.host_path,
        container,
        access: access.as_deref().map_or(Ok(Access::ALL), permissions)?,
    })
}

/// The request for the device, which is required, and one for each node with a different path in
/// the container.
fn requests(device: &RemoteDevice, extras: &[Extra], notes: &mut Vec<String>) -> Result<Vec<Request>, Fault> {
    let selector = Selector::Usbip {
        server: device.server.clone(),
        device: Some(device.device.clone()),
    };
    let read = |text: &str| {
        text.parse::<Request>()
            .map_err(|error| Fault::Device(error.to_string()))
    };
    let whole = read(&format!("{selector};required"))?;
    let mut requests = vec![whole];
    for extra in extras {
        let kind = kind(&extra.host);
        let is_alone = extras
            .iter()
            .filter(|other| self::kind(&other.host) == kind)
            .count()
            == 1;
        let only = match kind {
            Some(kind) if is_alone => Glob::new(&kind).ok().map(Selector::Glob),
            _ => None,
        };
        if only.is_none() && extra.container == extra.host {
            // The device's nodes keep the host's paths anyway.
            continue;
        }
        let only = only.unwrap_or_else(|| Selector::DevNode(extra.host.clone()));
        let mut request = read(&selector.to_string())?;
        request.options.only = vec![only];
        request.options.path = Some(NodePath::Node(extra.container.clone()));
        match read(&request.to_string()) {
            Ok(request) => requests.push(request),
            Err(_) => notes.push(format!(
                "the extra {host} of {device} cannot be at {container}, which must be a plain path below {DEV}: if it is a node of \
                 the device, the container has it at its path on the host; if it exists without the device, at \
                 {container}",
                host = extra.host.display(),
                container = extra.container.display()
            )),
        }
    }
    Ok(requests)
}

/// A pattern for the nodes of one driver: `/dev/ttyUSB[0-9]*` for /dev/ttyUSB0, which may be
/// ttyUSB1 the next time. `None` for names that udev creates: these identify a device.
fn kind(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let stem = name.trim_end_matches(|letter: char| letter.is_ascii_digit());
    let is_plain = !stem.is_empty() && stem.chars().all(|letter| letter.is_ascii_alphabetic());
    let is_numbered = is_plain && stem.len() < name.len() && path.starts_with(DEV);
    is_numbered.then(|| format!("{}[0-9]*", path.with_file_name(stem).display()))
}
