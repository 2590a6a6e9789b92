//! Files in sysfs.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// The longest attribute that is read, in bytes; sysfs has no longer ones.
const MAX_TEXT: usize = 4096;

/// An attribute without its trailing newline, safe to display.
pub(in crate::usbip) fn attribute(dir: &Path, name: &str) -> Option<String> {
    let bytes = fs::read(dir.join(name)).ok()?;
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_TEXT)]);
    Some(text.strip_suffix('\n').unwrap_or(&text).to_owned())
}

/// Writes in a single write(2), as a sysfs attribute requires.
pub(in crate::usbip) fn write_at_once(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .open(path)?
        .write_all(text.as_bytes())
}
