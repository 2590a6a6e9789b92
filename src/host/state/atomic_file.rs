//! Files that others read at any moment: they see the old one or the new one, whole.
//!
//! Must not know what is in them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Writes a file of these bytes with this mode (less the umask) and puts it at `path` by rename, in place of what is there.
/// It is on the disk by then: after a power cut the name does not lead to an empty file. The directory must be there.
///
/// # Errors
/// What the system said. Nothing is left of the new file then.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // Hidden, and of another ending: whoever reads a whole directory passes it over.
    let temporary = dir.join(format!(".{name}.{}.tmp", std::process::id()));
    // Left by a process of this number that was killed, if it is there at all.
    let _ = fs::remove_file(&temporary);
    let place = || {
        let mut file: File = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    place().inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })
}
