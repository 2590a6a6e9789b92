//! How long commands take: with OCI_HOTPLUG_VM_TIMES=FILE each command in a machine or a container
//! adds a line to that file.

use std::fs::File;
use std::io::Write;
use std::time::Duration;

/// Seconds, test and command, separated by tabs.
pub fn record(command: &str, took: Duration) {
    let Some(path) = std::env::var_os("OCI_HOTPLUG_VM_TIMES") else {
        return;
    };
    let thread = std::thread::current();
    let command: String = command.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = format!(
        "{:.2}\t{}\t{command}\n",
        took.as_secs_f64(),
        thread.name().unwrap_or_default()
    );
    File::options()
        .create(true)
        .append(true)
        .open(&path)
        .and_then(|mut file| file.write_all(line.as_bytes()))
        .unwrap_or_else(|error| panic!("cannot write to {path:?}: {error}"));
}
