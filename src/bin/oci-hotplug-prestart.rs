//! The hook of stage createRuntime (or prestart). See `oci_hotplug::hook::prestart`.

fn main() -> std::process::ExitCode {
    oci_hotplug::hook::command::prestart()
}
