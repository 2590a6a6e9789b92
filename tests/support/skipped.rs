//! What a test could not do on this machine. A skip is never silent: the runner counts the lines.

use std::fs::OpenOptions;
use std::io::Write;

/// Says so on standard error, and in the file that OCI_HOTPLUG_SKIPPED_LOG names: `test-skipped:
/// NAME: REASON`, where NAME is the test that calls this.
pub fn skipped(reason: &str) {
    let thread = std::thread::current();
    let line = format!("test-skipped: {}: {reason}\n", thread.name().unwrap_or("a test"));
    // One write each, past the capture of tests: lines of tests that run side by side stay whole.
    std::io::stderr()
        .write_all(line.as_bytes())
        .expect("write to standard error");
    if let Some(path) = std::env::var_os("OCI_HOTPLUG_SKIPPED_LOG") {
        OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .and_then(|mut log| log.write_all(line.as_bytes()))
            .expect("append to OCI_HOTPLUG_SKIPPED_LOG");
    }
}
