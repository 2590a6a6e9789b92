//! smarter-device-manager: one resource for each path below /dev that matches, and for each of
//! Tegra's GPUs.
//!
//! Pure.

use std::path::Path;
use std::sync::Arc;

use super::names::{Names, unit_id};
use super::nodes::node_offer;
use super::resource::Resource;
use super::unit::{NodeSpec, Offer, Unit};
use crate::kubernetes::config::{DEV, GoRegex, SMARTER_DOMAIN};
use crate::kubernetes::snapshot::{PathKind, Snapshot};
use crate::model::device::Access;

/// A resource for each path below /dev that matches.
pub(super) fn resources(
    pattern: &GoRegex,
    count: u32,
    snapshot: &Snapshot,
    names: &mut Names,
) -> Vec<Resource> {
    let usable = snapshot
        .paths
        .iter()
        .filter(|(_, found)| **found != PathKind::Other);
    let resources = usable.filter_map(|(path, _)| {
        let below = path.strip_prefix(DEV).ok()?.to_str()?;
        let is_match = pattern.is_match(below);
        is_match.then(|| of_match(path, below, count, names)).flatten()
    });
    resources.collect()
}

/// Characters other than `A-Z a-z 0-9 _ -` become `_` (its main.go:95-112); the access is always
/// `rw`.
fn of_match(path: &Path, below: &str, count: u32, names: &mut Names) -> Option<Resource> {
    let plain: String = below
        .chars()
        .map(|letter| match letter {
            letter if letter.is_ascii_alphanumeric() || "-_".contains(letter) => letter,
            _ => '_',
        })
        .collect();
    let name = names.name(SMARTER_DOMAIN, &path.to_string_lossy(), &plain)?;
    let unit = Unit {
        healthy: true,
        attached: None,
        numa: None,
        place: path.to_string_lossy().into_owned(),
        offer: node_offer(vec![NodeSpec {
            host: path.to_owned(),
            container: path.to_owned(),
            access: Access::READ | Access::WRITE,
        }]),
    };
    let units = (0..count)
        .map(|number| (unit_id(&name, below, number), unit.clone()))
        .collect();
    Some(Resource::without_hooks(name.clone(), units))
}

/// A resource for a GPU. The container's NVIDIA runtime does the rest (its
/// nvidia-server.go:157-175).
pub(super) fn of_gpu(gpu: u32, count: u32, names: &mut Names) -> Option<Resource> {
    let what = format!("nvidia-gpu{gpu}");
    let name = names.name(SMARTER_DOMAIN, &what, &what)?;
    let unit = Unit {
        healthy: true,
        attached: None,
        numa: None,
        place: what.clone(),
        offer: Arc::new(Offer {
            env: [("NVIDIA_VISIBLE_DEVICES".to_owned(), gpu.to_string())].into(),
            ..Offer::default()
        }),
    };
    let units = (0..count)
        .map(|number| (unit_id(&name, &what, number), unit.clone()))
        .collect();
    Some(Resource::without_hooks(name.clone(), units))
}
