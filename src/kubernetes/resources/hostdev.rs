//! hostdev: one resource for each path.
//!
//! Pure.

use std::path::Path;

use super::names::{MAX_ID, Names, unit_id};
use super::nodes::node_offer;
use super::resource::Resource;
use super::unit::{NodeSpec, Unit};
use crate::kubernetes::config::HOSTDEV_DOMAIN;
use crate::kubernetes::snapshot::{PathKind, Snapshot};
use crate::model::device::Access;

/// hostdev: `/dev/xx/yy` is `dev_xx_yy`, and its id the path (its server.go:185-201).
pub(super) fn resource(
    path: &Path,
    access: Access,
    count: u32,
    snapshot: &Snapshot,
    names: &mut Names,
) -> Option<Resource> {
    let text = path.to_str()?;
    let name = names.name(
        HOSTDEV_DOMAIN,
        text,
        &text.trim_start_matches('/').replace('/', "_"),
    )?;
    let found = snapshot.paths.get(path);
    if found == Some(&PathKind::Other) {
        names.note(format!(
            "{text} is neither a device nor a directory: {name} is unhealthy"
        ));
    }
    let healthy = matches!(found, Some(PathKind::Device | PathKind::Directory));
    let id = |number: u32| match count {
        1 if text.len() <= MAX_ID => text.to_owned(),
        _ => unit_id(&name, text, number),
    };
    let unit = Unit {
        healthy,
        attached: None,
        numa: None,
        place: text.to_owned(),
        offer: node_offer(vec![NodeSpec {
            host: path.to_owned(),
            container: path.to_owned(),
            access,
        }]),
    };
    let units = (0..count).map(|number| (id(number), unit.clone())).collect();
    Some(Resource::without_hooks(name.clone(), units))
}
