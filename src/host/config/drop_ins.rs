//! The directory `config.d` beside the configuration file.

use std::path::{Path, PathBuf};

use super::error::ConfigError;

/// The directory beside the configuration file; its files `*.toml` are read after that file.
pub(super) const DROP_INS: &str = "config.d";

/// The files `*.toml` of that directory, sorted by name. Hidden files, which editors leave behind,
/// are ignored.
pub(super) fn drop_ins(config: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let directory = config.with_file_name(DROP_INS);
    let failed = |source| ConfigError::Io {
        path: directory.clone(),
        source,
    };
    let entries = match std::fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(failed(source)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        if name.ends_with(b".toml") && !name.starts_with(b".") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
