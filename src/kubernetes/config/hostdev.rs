//! The hostdev plugin's `--devs /dev/mem:r,/dev/fuse:rwm` (its server.go:111-157), and the count
//! that a fork adds.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::definition::Definition;
use super::error::{ConfigError, Fault, count, permissions};
use crate::model::device::Access;

/// The domain of its resources.
pub const HOSTDEV_DOMAIN: &str = "hostdev.k8s.io";

/// Parses the list. A path may contain colons: the last part is the permissions.
pub(super) fn parse(devs: &str) -> Result<Vec<Definition>, ConfigError> {
    let mut definitions = Vec::new();
    let mut paths = BTreeSet::new();
    for (element, number) in devs.split(',').zip(1..) {
        // That plugin also exits if a path is listed twice, because both sockets would have the
        // same name.
        let (path, access, count) = parse_one(element.trim())
            .and_then(|(path, access, count)| match paths.insert(path.clone()) {
                true => Ok((path, access, count)),
                false => Err(Fault::ListedTwice(path.display().to_string())),
            })
            .map_err(|fault| ConfigError::Element {
                place: format!("--devs, element {number} ({element:?})"),
                fault,
            })?;
        definitions.push(Definition::Path { path, access, count });
    }
    Ok(definitions)
}

fn parse_one(element: &str) -> Result<(PathBuf, Access, u32), Fault> {
    let (head, last) = element.rsplit_once(':').ok_or(Fault::NoPermissions)?;
    let is_number = !last.is_empty() && last.chars().all(|letter| letter.is_ascii_digit());
    let (path, access, units) = match head.rsplit_once(':') {
        Some((path, access)) if is_number => {
            let number = last.parse().map_err(|_| Fault::Count("the count"))?;
            (path, access, count("the count", number)?)
        }
        _ => (head, last, 1),
    };
    if !path.starts_with('/') || path.len() == 1 {
        return Err(Fault::Relative);
    }
    Ok((PathBuf::from(path), permissions(access)?, units))
}
