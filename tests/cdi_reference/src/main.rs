//! Reads CDI specs from standard input, one JSON document on each line, and prints for each line
//! the error of the library `container-device-interface` about it, or an empty line.

use std::path::PathBuf;

fn main() -> anyhow::Result<()> {
    // The library panics on versions that it does not know: the caller gives it none.
    let path = PathBuf::from("/etc/cdi/spec.json");
    for line in std::io::stdin().lines() {
        let checked = serde_json::from_str(&line?)
            .map_err(anyhow::Error::from)
            .and_then(|raw| container_device_interface::spec::new_spec(&raw, &path, 0));
        let error = checked.err().map(|error| format!("{error:#}"));
        println!("{}", error.unwrap_or_default().replace('\n', " "));
    }
    Ok(())
}
