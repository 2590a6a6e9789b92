//! One container's watcher. See `oci_hotplug::watcher`.

fn main() -> std::process::ExitCode {
    oci_hotplug::watcher::command::watcher()
}
