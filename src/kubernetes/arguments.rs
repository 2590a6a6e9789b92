//! The arguments of the plugin, and the settings that compatible plugins read from elsewhere.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, ValueEnum};

use super::config;
use super::resources::names::ResourceName;

pub(super) const NAME: &str = "oci-hotplug-device-plugin";

/// The default path of smarter-device-manager's file.
const SMARTER_DEFAULT: &str = "config/conf.yaml";

/// The default paths of usbip-device-plugin's file: the first that exists.
const USBIP_DEFAULTS: [&str; 2] = ["config.yaml", "/etc/usbip-device-plugin/config.yaml"];

/// The default address of generic-device-plugin's metrics: all addresses.
const GENERIC_LISTEN: &str = ":8080";

/// Advertises devices to Kubernetes, and lets them come and go in running pods.
///
/// The sources --devs, --smarter-config, --device, --usbip-config and --config add up.
#[derive(Debug, Parser)]
#[command(name = NAME, version, args_override_self = true)]
pub(super) struct Arguments {
    /// Devices in the hostdev plugin's format, such as /dev/mem:r,/dev/fuse:rwm.
    #[arg(long, value_name = "LIST", env = "OCI_HOTPLUG_PLUGIN_DEVS")]
    pub devs: Option<String>,
    /// smarter-device-manager's conf.yaml; watched. Without a value: config/conf.yaml.
    #[arg(long, value_name = "FILE", env = "OCI_HOTPLUG_PLUGIN_SMARTER_CONFIG", num_args = 0..=1, default_missing_value = SMARTER_DEFAULT)]
    pub smarter_config: Option<PathBuf>,
    /// usbip-device-plugin's config.yaml: devices of USB/IP servers; watched. Without a value:
    /// config.yaml, or else /etc/usbip-device-plugin/config.yaml.
    #[arg(long, value_name = "FILE", env = "OCI_HOTPLUG_PLUGIN_USBIP_CONFIG", num_args = 0..=1, default_missing_value = USBIP_DEFAULTS[0])]
    pub usbip_config: Option<PathBuf>,
    /// A device in generic-device-plugin's format, YAML or JSON, such as {"name": "fuse", "groups":
    /// [{"count": 10, "paths": [{"path": "/dev/fuse"}]}]}. Can be repeated; the devices in its file
    /// are ignored then, as by generic-device-plugin.
    #[arg(long, value_name = "DEVICE")]
    pub device: Vec<String>,
    /// The domain of resource names without one; wins over `domain` in the files. The default
    /// depends on the format: devic.es for generic-device-plugin's, usbip.dev.mvalvekens.be for
    /// usbip-device-plugin's, otherwise oci-hotplug.dev.
    #[arg(long, value_name = "DOMAIN", env = "OCI_HOTPLUG_PLUGIN_DOMAIN", value_parser = domain)]
    pub domain: Option<String>,
    /// Our own file, or generic-device-plugin's, or usbip-device-plugin's; watched. If no source is
    /// given, the default is /etc/generic-device-plugin/config.yaml if it exists.
    #[arg(long, value_name = "FILE", env = "OCI_HOTPLUG_PLUGIN_CONFIG")]
    pub config: Option<PathBuf>,
    /// kubelet's directory of device plugins.
    #[arg(
        long,
        alias = "plugin-directory",
        value_name = "DIR",
        env = "OCI_HOTPLUG_PLUGIN_KUBELET_DIR",
        default_value = "/var/lib/kubelet/device-plugins"
    )]
    pub kubelet_dir: PathBuf,
    /// kubelet's pod-resources socket, which lists the devices of each pod; "" for none: then
    /// allocated devices count as in use forever, and CDI specs stay.
    #[arg(
        long,
        alias = "pod-resources-socket",
        value_name = "SOCKET",
        env = "OCI_HOTPLUG_PLUGIN_POD_RESOURCES",
        default_value = "/var/lib/kubelet/pod-resources/kubelet.sock"
    )]
    pub pod_resources: String,
    /// How long no container must have had a device before it is free and the CDI specs of a
    /// resource that is not configured any more are removed, in seconds. kubelet lists neither a
    /// pod that was just admitted nor, while it starts, any pod.
    #[arg(long, value_name = "SECONDS", env = "OCI_HOTPLUG_PLUGIN_GRACE_PERIOD", default_value_t = 300)]
    pub grace_period: u64,
    /// The directory for CDI specs; the container engine must read it.
    #[arg(long, value_name = "DIR", env = "OCI_HOTPLUG_PLUGIN_CDI_DIR", default_value = "/var/run/cdi")]
    pub cdi_dir: PathBuf,
    /// Whether the container engine supports CDI devices. Without CDI there is no hotplug: a
    /// container has the devices that exist when it starts.
    #[arg(long, value_name = "WHEN", env = "OCI_HOTPLUG_PLUGIN_CDI", default_value = "auto")]
    pub cdi: Cdi,
    /// The container engine's socket, which --cdi auto and --check use first; several, separated by
    /// commas, are tried in turn. If none answers, containerd's configuration decides.
    #[arg(
        long,
        value_name = "FILE",
        env = "OCI_HOTPLUG_PLUGIN_ENGINE_SOCKET",
        value_delimiter = ',',
        default_value = "/run/containerd/containerd.sock,/run/crio/crio.sock"
    )]
    pub engine_socket: Vec<PathBuf>,
    /// containerd's configuration, which --cdi auto and --check read if no engine answers.
    #[arg(
        long,
        value_name = "FILE",
        env = "OCI_HOTPLUG_PLUGIN_CONTAINERD_CONFIG",
        default_value = "/etc/containerd/config.toml"
    )]
    pub containerd_config: PathBuf,
    /// The directory of the hooks on the host.
    #[arg(
        long,
        value_name = "DIR",
        env = "OCI_HOTPLUG_PLUGIN_HOOK_DIR",
        default_value = "/usr/libexec/oci/hooks.d"
    )]
    pub hook_dir: PathBuf,
    /// Send an event about the pod to the API server when a device in use is unplugged, and when it
    /// is back. Needs the right to create and patch events.
    #[arg(long, env = "OCI_HOTPLUG_PLUGIN_EVENTS")]
    pub events: bool,
    /// The directory of the token and the CA certificate (token, ca.crt) that --events uses at the
    /// API server.
    #[arg(
        long,
        value_name = "DIR",
        env = "OCI_HOTPLUG_PLUGIN_SERVICE_ACCOUNT_DIR",
        default_value = "/var/run/secrets/kubernetes.io/serviceaccount"
    )]
    pub service_account_dir: PathBuf,
    /// The address of /metrics, /healthz and /readyz; "" for none. With --device or
    /// generic-device-plugin's file the default is :8080.
    #[arg(long, value_name = "ADDR", env = "OCI_HOTPLUG_PLUGIN_LISTEN", default_value = "127.0.0.1:8080")]
    pub listen: String,
    /// The format of log lines.
    #[arg(long, value_name = "FORMAT", env = "OCI_HOTPLUG_PLUGIN_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// The lowest level that is logged.
    #[arg(long, value_name = "LEVEL", env = "OCI_HOTPLUG_PLUGIN_LOG_LEVEL", default_value = "info")]
    pub log_level: Level,
    /// Check the configuration and this node, print what would be advertised and what is missing,
    /// and exit.
    #[arg(long)]
    pub check: bool,
    /// Write the man page and the completions of this program into a directory, and exit.
    #[arg(long, value_name = "DIR", hide = true)]
    pub generate_docs: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Cdi {
    /// What the engine reports; if no engine answers, what containerd's configuration says;
    /// otherwise on.
    Auto,
    On,
    Off,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Level {
    None,
    Error,
    Warn,
    Info,
    #[value(alias = "all")]
    Debug,
}

impl Arguments {
    /// Reads the arguments of the process.
    pub(super) fn read() -> Result<Self, clap::Error> {
        let matches = Self::command().get_matches_from(with_two_dashes(std::env::args_os()));
        Self::from_arg_matches(&matches)?.with_compatible_settings(&matches)
    }

    /// Adds the settings that generic-device-plugin and usbip-device-plugin read from their
    /// environment and files, if their formats are used. Their variables have names that other
    /// programs may use, such as DOMAIN and LISTEN: with other formats they are ignored, and our
    /// own variables override them. As with these plugins, arguments override variables, and
    /// variables override files.
    fn with_compatible_settings(mut self, matches: &ArgMatches) -> Result<Self, clap::Error> {
        self.find_default_files();
        let read = |path: &PathBuf| fs::read_to_string(path).ok();
        let text = self.config.as_ref().and_then(read).unwrap_or_default();
        let is_usbip_used = config::is_usbip(&text) || has_source(&self.usbip_config);
        let is_generic_used = !self.device.is_empty() || config::is_generic(&text);
        if !is_usbip_used && !is_generic_used {
            return Ok(self);
        }
        let settings = match config::is_usbip(&text) {
            true => config::Settings::default(),
            false => config::settings(&text),
        };
        let setting = |ours: &str, name: &str, of_file: Option<String>| {
            let is_default = matches!(matches.value_source(ours), None | Some(ValueSource::DefaultValue));
            let of_environment = std::env::var(name).ok().filter(|value| !value.is_empty());
            of_environment.or(of_file).filter(|_| is_default)
        };
        // The file's own domain is read with its resources, again at each change.
        if let Some(value) = setting("domain", "DOMAIN", None) {
            let domain = domain(&value);
            let domain = domain.map_err(|reason| bad_value("the variable DOMAIN", &value, &reason))?;
            self.domain = Some(domain);
        }
        if let Some(value) = setting("kubelet_dir", "PLUGIN_DIRECTORY", settings.plugin_directory) {
            self.kubelet_dir = value.into();
        }
        if let Some(value) = setting("pod_resources", "POD_RESOURCES_SOCKET", None) {
            self.pod_resources = value;
        }
        let default_listen = is_generic_used.then(|| GENERIC_LISTEN.to_owned());
        if let Some(value) = setting("listen", "LISTEN", settings.listen.or(default_listen)) {
            self.listen = value;
        }
        if let Some(value) = setting("log_level", "LOG_LEVEL", settings.log_level) {
            let reason = "it must be all, debug, info, warn, error or none";
            self.log_level =
                Level::from_str(&value, true).map_err(|_| bad_value("the log level", &value, reason))?;
        }
        Ok(self)
    }

    /// Uses the default files of generic-device-plugin and usbip-device-plugin if no argument names
    /// one.
    fn find_default_files(&mut self) {
        let [near, far] = USBIP_DEFAULTS.map(PathBuf::from);
        let has_other = has_source(&self.config) || has_source(&self.smarter_config) || self.devs.is_some();
        let has_devices = !self.device.is_empty();
        let is_elsewhere = match &self.usbip_config {
            Some(path) => *path == near && !near.exists(),
            None => !has_other && !has_devices && far.exists(),
        };
        let is_nothing_given = !has_other && self.usbip_config.is_none();
        if is_elsewhere {
            self.usbip_config = Some(far);
        }
        if !is_nothing_given {
            return;
        }
        // With --device, the devices of its file are ignored, but not its flags.
        let [etc, here] = config::GENERIC_DEFAULTS.map(PathBuf::from);
        let is_generic =
            |path: &PathBuf| fs::read_to_string(path).is_ok_and(|text| config::is_generic(&text));
        if etc.exists() {
            self.config = Some(etc);
        } else if is_generic(&here) {
            self.config = Some(here);
        }
    }
}

/// Whether the argument names a file.
fn has_source(given: &Option<PathBuf>) -> bool {
    given.as_ref().is_some_and(|path| !path.as_os_str().is_empty())
}

/// A usage error about a value that is not an argument.
fn bad_value(name: &str, value: &str, reason: &str) -> clap::Error {
    let text = format!("{name} is {value:?}: {reason}");
    Arguments::command().error(clap::error::ErrorKind::ValueValidation, text)
}

/// Parses a domain by kubelet's rules for names of resources.
fn domain(text: &str) -> Result<String, String> {
    let name: Result<ResourceName, _> = format!("{text}/name").parse();
    name.map(|_| text.to_owned())
        .map_err(|_| "it must be a DNS name in lower case, such as example.com".to_owned())
}

/// hostdev is written in Go, which reads `-devs` as `--devs`.
fn with_two_dashes(arguments: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    arguments.map(|argument| match argument.to_str() {
        Some(text) if text == "-devs" || text.starts_with("-devs=") => format!("-{text}").into(),
        _ => argument,
    })
}
