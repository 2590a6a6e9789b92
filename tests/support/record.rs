//! A container's `record.json`, as the prestart hook writes it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// Writes the record of a container whose process has never been, as `change` leaves it, and
/// returns the container's directory.
pub fn write_record(state_dir: &Path, id: &str, change: impl FnOnce(&mut Value)) -> PathBuf {
    let dir = state_dir.join("containers").join(id);
    fs::create_dir_all(&dir).expect("a record's directory");
    let mut record = json!({
        "version": 1,
        "container": {
            "id": id, "pid": 1, "start_time": 1, "bundle": "/b", "rootfs": "/b/rootfs", "cgroups_path": null,
            "user": { "uid": 0, "gid": 0 },
        },
        "requests": [], "symlinks": [], "enrolled": 0,
    });
    change(&mut record);
    fs::write(dir.join("record.json"), record.to_string()).expect("a record");
    dir
}
