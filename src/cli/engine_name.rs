//! The engine of an enrolled container, and the name that the engine gives it.

use crate::host::engine_names;
use crate::host::state::record::Record;
use crate::model::oci::engine::{self, Engine};

/// The engine that started the container, as far as its bundle and annotations show.
pub(super) fn engine_of(record: &Record) -> Option<Engine> {
    engine::engine(&record.container.bundle, &record.traits.annotations)
}

/// The engine's name for the container; `None` if it has no name.
pub(super) fn name_of(record: &Record) -> Option<String> {
    engine::name(&record.traits.annotations)
        .or_else(|| engine_names::name(engine_of(record)?, &record.container))
}
