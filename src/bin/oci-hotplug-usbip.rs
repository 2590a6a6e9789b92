//! The USB/IP worker of watchers and hooks. See `oci_hotplug::usbip::command`.

fn main() -> std::process::ExitCode {
    oci_hotplug::usbip::command::main()
}
