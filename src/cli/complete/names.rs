//! The names that completions offer.

use super::super::cdi::directories;
use super::super::class::requests_of;
use super::super::engine_name::name_of;
use crate::cdi::directories::Specs;
use crate::host::config::Config;
use crate::host::state::registry::Registry;
use crate::model::oci::engine::short_id;

/// A name, and what it means.
pub(super) type Name = (String, String);

/// Names, which are read only when they are needed.
pub(in crate::cli) trait Names {
    /// Ids and names of enrolled containers.
    fn containers(&self) -> Vec<Name>;
    /// Classes of the configuration.
    fn classes(&self) -> Vec<Name>;
    /// Devices of CDI specs.
    fn cdi_devices(&self) -> Vec<Name>;
}

/// The names on this host. What cannot be read has none: a completion has no place for errors.
pub(in crate::cli) struct HostNames {
    pub(in crate::cli) config: Option<Config>,
}

impl Names for HostNames {
    fn containers(&self) -> Vec<Name> {
        let Some(config) = &self.config else {
            return Vec::new();
        };
        let registry = Registry::new(&config.state_dir);
        let mut all = Vec::new();
        for id in registry.ids().unwrap_or_default() {
            let short = short_id(id.as_str()).to_owned();
            let name = registry
                .record(&id)
                .ok()
                .flatten()
                .and_then(|record| name_of(&record));
            all.push((short.clone(), name.clone().unwrap_or_default()));
            all.extend(name.map(|name| (name, short)));
        }
        all
    }

    fn classes(&self) -> Vec<Name> {
        let Some(config) = &self.config else {
            return Vec::new();
        };
        let classes = config.usable_classes();
        let name = |(name, class): (&str, _)| (name.to_owned(), requests_of(class).join(", "));
        classes.iter().map(name).collect()
    }

    fn cdi_devices(&self) -> Vec<Name> {
        let specs = Specs::scan(&directories(&[]));
        let names = specs.devices().into_keys();
        names.map(|name| (name, String::new())).collect()
    }
}
