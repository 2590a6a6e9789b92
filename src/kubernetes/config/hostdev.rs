//! The hostdev plugin's `--devs /dev/mem:r,/dev/fuse:rwm` (its server.go:111-157), and the count that a fork adds.

use std::path::PathBuf;

use super::{ConfigError, Definition, Fault, count, permissions};

/// The domain of its resources.
pub const HOSTDEV_DOMAIN: &str = "hostdev.k8s.io";

/// Reads the list. A path may hold colons: the last part is the permissions.
pub(super) fn parse(devs: &str) -> Result<Vec<Definition>, ConfigError> {
    let mut definitions = Vec::new();
    for (element, number) in devs.split(',').zip(1..) {
        let definition = parse_one(element.trim()).map_err(|fault| ConfigError::Element {
            place: format!("--devs, element {number} ({element:?})"),
            fault,
        })?;
        definitions.push(definition);
    }
    Ok(definitions)
}

fn parse_one(element: &str) -> Result<Definition, Fault> {
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
    Ok(Definition::Path {
        path: PathBuf::from(path),
        access: permissions(access)?,
        count: units,
    })
}
