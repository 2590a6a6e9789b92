//! The command line: its verbs, options and help texts, from which clap also makes the man pages
//! and completions.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use super::{allow, attach, cdi, check, class, events, install, metrics, tree, usbip};

/// Device hotplug for running OCI containers.
///
/// Containers request devices by the annotation io.oci-hotplug.devices. The hooks
/// oci-hotplug-prestart and oci-hotplug-poststop, started by the OCI runtime, give each of them a
/// watcher. This tool shows what the watchers do.
#[derive(Debug, Parser)]
#[command(name = "oci-hotplug", version, max_term_width = 110)]
pub(super) struct Command {
    #[command(subcommand)]
    pub(super) verb: Verb,
    #[command(flatten)]
    pub(super) common: Common,
}

/// The options of all verbs.
#[derive(Debug, clap::Args)]
pub(super) struct Common {
    /// Print JSON, which docs/json.md describes.
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// The configuration [default: $OCI_HOTPLUG_CONFIG, or /etc/oci-hotplug/config.toml].
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// The state directory [default: $OCI_HOTPLUG_STATE_DIR, or /run/oci-hotplug; for an ordinary
    /// user /run/user/UID/oci-hotplug].
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) state_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List the containers that have a watcher, with their requests and attached nodes.
    ///
    /// Below the table are the reasons why a container waits or has problems, running containers
    /// that should have a watcher, and containers that were not started.
    List,
    /// Show everything about one container.
    Inspect {
        /// The container's id, the beginning of it, its name, or the name of its pod.
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Show what a request would select now, and the nodes that a container would get.
    ///
    /// Examples: oci-hotplug match usb:0403:6001; oci-hotplug match
    /// 'subsystem:tty&driver:ftdi_sio'; oci-hotplug match 'glob:/dev/ttyUSB*'.
    Match {
        /// The request, as in the annotation io.oci-hotplug.devices, or a path such as
        /// /dev/ttyUSB0.
        #[arg(value_name = "REQUEST")]
        request: String,
        /// Keep running and print changes, until interrupted.
        #[arg(long)]
        watch: bool,
    },
    /// Show the host's devices as a tree, and the containers that have them.
    Tree(tree::Options),
    /// Start missing watchers of running containers, and remove the records of ended containers.
    ///
    /// systemd restarts watchers itself; elsewhere let cron or a supervisor run this, for example
    /// every minute. Exits with 1 if a container could not be recovered; the remaining containers
    /// are still processed.
    Recover {
        /// Also replace running watchers by the installed version. Containers are not interrupted.
        #[arg(long)]
        restart_watchers: bool,
    },
    /// Add requests to a running container, until it stops or restarts.
    ///
    /// The devices are attached at once, and plugged and unplugged as for requests made at the
    /// start. A restart of the container (podman restart) keeps only the requests of its
    /// annotations and hooks. A container that was started without oci-hotplug gets a watcher. For
    /// a container of a rootless engine, run this as the user who runs the engine.
    ///
    /// Examples: oci-hotplug attach lab usb:0403:6001; oci-hotplug attach 3f2a
    /// 'usb:0403:6001;link=/dev/board' class:probes; oci-hotplug attach lab vendor.com/gpu=0;
    /// oci-hotplug attach --pid 4711 devnode:/dev/ttyACM0.
    Attach(attach::Attach),
    /// Remove requests from a running container, and detach the devices that no other request
    /// selects.
    ///
    /// Nodes of the engine or the image stay. A selector is enough if only one request has it.
    ///
    /// Examples: oci-hotplug detach lab usb:0403:6001; oci-hotplug detach lab class:probes
    /// vendor.com/gpu=0.
    Detach(attach::Detach),
    /// Show, rule by rule, why a device is or is not in a container, and how to change that.
    ///
    /// Examples: oci-hotplug explain lab /dev/ttyUSB0; oci-hotplug explain 3f2a
    /// /dev/serial/by-id/usb-FTDI_Board-if00; oci-hotplug explain lab /sys/bus/usb/devices/1-1.4.
    Explain {
        /// The container's id, the beginning of it, its name, or the name of its pod.
        #[arg(value_name = "ID")]
        id: String,
        /// The device: its node or a link to it, in the container or on the host, or its path in
        /// sysfs.
        #[arg(value_name = "DEVICE")]
        device: PathBuf,
    },
    /// Allow containers to request these devices: writes a rule of the policy and reloads the
    /// watchers.
    ///
    /// The rule becomes a file in config.d beside the configuration. It is checked together with
    /// the whole configuration before it takes effect. Running containers that already requested a
    /// device get it at once.
    ///
    /// Examples: oci-hotplug allow usb:0627:0001; oci-hotplug allow 'subsystem:tty&usb:0403'
    /// --access rw; oci-hotplug allow --list; oci-hotplug allow --remove usb:0627:0001.
    Allow(allow::Allow),
    /// Define classes: requests that root writes and that containers request by name (class:NAME).
    Class(class::Class),
    /// Make all watchers read the configuration again.
    ///
    /// A stricter policy detaches devices, a wider one attaches them, and what has failed is tried
    /// again at once. A configuration with an error changes nothing: the watcher keeps its policy.
    /// Exits with 1 if a watcher could not reload.
    Reload,
    /// Show what was attached, detached, denied and failed, and which containers were not started.
    ///
    /// Equal denials are shown once, with their number and the time of the first.
    ///
    /// Read from the journal if there is one, where journalctl finds the same events by the fields
    /// OCI_HOTPLUG_CONTAINER=, OCI_HOTPLUG_EVENT= (attached, detached, denied, waiting, shared,
    /// inaccessible, failed, restored, overrun, refused-start), OCI_HOTPLUG_DEVICE= and
    /// OCI_HOTPLUG_NODE=; otherwise from oci-hotplug.log in the state directory, where lines end in
    /// container="…" event="…" device="…" node="…". With --json one object per line: time (UTC),
    /// container, event, device, node, message.
    ///
    /// Examples: oci-hotplug events --since 15m; oci-hotplug events --follow --container lab.
    Events(events::Options),
    /// Check whether this host is ready: kernel, cgroups, udevd, configuration, hooks, CDI,
    /// engines, runtimes, leftovers.
    ///
    /// Each line says ok, warn or fail, what was found, and in brackets what to do, or which line
    /// has the cause. Only installed software is checked, and nothing is changed. Exits with 0 if
    /// nothing failed, and with 1 otherwise.
    ///
    /// Examples: oci-hotplug check; oci-hotplug check --json | jq '.findings[] | select(.verdict !=
    /// "ok")'.
    Check(check::Options),
    /// Print the counters of the watchers for Prometheus.
    ///
    /// Attachments, grants, denials, failures, lost events, durations, and starts and crashes of
    /// watchers, per container id. For node_exporter's textfile collector: if enabled, the units
    /// oci-hotplug-metrics.timer and .service write the file every 30 seconds.
    ///
    /// Examples: oci-hotplug metrics; oci-hotplug metrics --textfile
    /// /var/lib/prometheus/node-exporter/oci-hotplug.prom.
    Metrics(metrics::Options),
    /// Write, list, validate and resolve devices of the Container Device Interface (CDI).
    Cdi(cdi::Cdi),
    /// List, attach and detach USB devices of other hosts (USB/IP). Containers request them like
    /// other devices.
    Usbip(usbip::Usbip),
    /// Install the programs beside this one on a host.
    ///
    /// Installs hooks, watcher and this tool, the CDI device "annotated", the units of watchers,
    /// and the hooks' JSON. Files that are up to date are not touched, and others are replaced
    /// atomically: running watchers keep their version (`oci-hotplug recover --restart-watchers`
    /// replaces them). Before an engine can start the programs, this command checks that they run
    /// on this host.
    ///
    /// packaging/install.sh runs this command with --packaging, which also installs the
    /// configuration, man pages and completions, and records all files for --uninstall.
    ///
    /// With --user, no root is needed: it installs the programs, the units and the completions for
    /// the rootless podman of the user who runs it.
    ///
    /// Examples: oci-hotplug install --user; in an init container: oci-hotplug install --to /host.
    Install(install::Options),
    /// Write the man pages and completions of this program into a directory.
    #[command(hide = true)]
    GenerateDocs {
        /// The directory.
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
    /// What can follow these words, for the completions of shells.
    #[command(hide = true)]
    Complete {
        /// The words behind the program's name, up to the one that is begun.
        #[arg(value_name = "WORD", last = true)]
        words: Vec<String>,
    },
    /// Demonstrate hotplug: a container under runc, and a disk partition that is plugged and
    /// unplugged.
    Demo,
}
