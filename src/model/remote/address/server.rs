//! A USB/IP server: a host and a port.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use super::error::{AddressError, SHOWN};
use crate::model::quoting::shown;
use crate::model::remote::DEFAULT_PORT;

/// The longest host name in the domain name system (RFC 1035), in bytes.
const MAX_HOST: usize = 253;

/// A USB/IP server. `FromStr` and `Display` are inverse; both omit the default port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Server {
    host: String,
    port: u16,
}

impl Server {
    /// A name or an address, in lower case, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for Server {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError::Host {
            host: shown(text, SHOWN),
        };
        let (host, port) = if let Some(inner) = text.strip_prefix('[') {
            let (host, rest) = inner.split_once(']').ok_or_else(wrong)?;
            let port = match rest.strip_prefix(':') {
                Some(port) => Some(port),
                None if rest.is_empty() => None,
                None => return Err(wrong()),
            };
            (ipv6(host).ok_or_else(wrong)?, port)
        } else {
            if ipv6(text).is_some() {
                return Err(AddressError::BareIpv6 {
                    host: shown(text, SHOWN),
                });
            }
            let (host, port) = match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            };
            (name(host).ok_or_else(wrong)?, port)
        };
        Ok(Self {
            host,
            port: port.map_or(Ok(DEFAULT_PORT), parse_port)?,
        })
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?;
        } else {
            f.write_str(&self.host)?;
        }
        if self.port != DEFAULT_PORT {
            write!(f, ":{}", self.port)?;
        }
        Ok(())
    }
}

/// The canonical form of an IPv6 address, with a zone (`fe80::1%eth0`) or without.
fn ipv6(text: &str) -> Option<String> {
    let (address, zone) = match text.split_once('%') {
        Some((address, zone)) => (address, Some(zone)),
        None => (text, None),
    };
    let address: Ipv6Addr = address.parse().ok()?;
    let is_plain = |zone: &str| {
        (1..=15).contains(&zone.len())
            && zone
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    match zone {
        None => Some(address.to_string()),
        Some(zone) => is_plain(zone).then(|| format!("{address}%{zone}")),
    }
}

/// A host name, or an IPv4 address, which has the form of one.
fn name(text: &str) -> Option<String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let is_name = (1..=MAX_HOST).contains(&text.len())
        && text.bytes().all(is_plain)
        && !text.starts_with(['-', '.'])
        && !text.contains("..");
    is_name.then(|| text.to_ascii_lowercase())
}

fn parse_port(text: &str) -> Result<u16, AddressError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port) if digits && port > 0 => Ok(port),
        _ => Err(AddressError::Port {
            port: shown(text, SHOWN),
        }),
    }
}
