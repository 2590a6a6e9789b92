//! Files with JSON of a version, which a newer oci-hotplug may have written.

use std::io;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::host::regular_file;
use crate::host::state::error::RegistryError;

/// The version of record.json and attached.jsonl that this program writes. It reads all versions up
/// to this one.
pub(crate) const STATE_VERSION: u32 = 1;

/// Why JSON with a version cannot be read.
#[derive(Debug)]
pub(super) enum VersionError {
    /// It is not valid JSON of the expected form.
    Malformed(serde_json::Error),
    /// A newer version of oci-hotplug wrote it.
    TooNew { version: u32 },
}

/// Reads JSON that has a field `version`.
///
/// # Errors
/// When it is not of the expected form, or of a newer version.
pub(super) fn from_json<T: DeserializeOwned>(text: &[u8]) -> Result<T, VersionError> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let Versioned { version } = serde_json::from_slice(text).map_err(VersionError::Malformed)?;
    if version > STATE_VERSION {
        return Err(VersionError::TooNew { version });
    }
    serde_json::from_slice(text).map_err(VersionError::Malformed)
}

/// The content of a file; `None` if it is absent.
///
/// # Errors
/// When it cannot be read.
pub(super) fn content_of(path: &Path) -> Result<Option<Vec<u8>>, RegistryError> {
    match regular_file::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(RegistryError::io("read", path, source)),
    }
}
