//! The hook of stage poststop. See `oci_hotplug::hook::poststop`.

fn main() -> std::process::ExitCode {
    oci_hotplug::hook::command::poststop()
}
