//! The operator's tool. See `oci_hotplug::cli`.

fn main() -> std::process::ExitCode {
    oci_hotplug::cli::main()
}
