//! What containers leave in the state directory when nobody was there to clear away: their watchers and hooks were killed.

use super::leases;
use super::registry::{Record, Registry, RegistryError};

/// Removes leases that nobody holds, and the records of containers that are gone and whose watchers are gone. Logs each
/// record. Never waits.
///
/// # Errors
/// When the state directory can't be read; a single entry that can't be removed is passed over.
pub fn clear(registry: &Registry) -> Result<(), RegistryError> {
    leases::sweep(registry.root());
    for id in registry.sweep(Record::is_running)? {
        tracing::info!(container = %id, "removed the record of a container that is gone");
    }
    Ok(())
}
