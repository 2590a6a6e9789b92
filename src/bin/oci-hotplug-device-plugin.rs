//! The Kubernetes device plugin. See `oci_hotplug::kubernetes`.

fn main() -> std::process::ExitCode {
    oci_hotplug::kubernetes::command::main()
}
