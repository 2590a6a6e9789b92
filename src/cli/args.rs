//! The command line: its verbs, options and help texts, from which clap also makes the man pages and completions.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use super::{allow, attach, cdi, check, class, events, install, metrics, tree, usbip};

/// Device hotplug for running OCI containers.
///
/// Containers ask for devices by the annotation io.oci-hotplug.devices; the hooks oci-hotplug-prestart and
/// oci-hotplug-poststop, started by the OCI runtime, give each of them a watcher. This tool shows what they do.
#[derive(Debug, Parser)]
#[command(name = "oci-hotplug", version, max_term_width = 110)]
pub struct Command {
    #[command(subcommand)]
    pub(super) verb: Verb,
    #[command(flatten)]
    pub(super) common: Common,
}

/// The options of all verbs.
#[derive(Debug, clap::Args)]
pub(super) struct Common {
    /// Print JSON, for programs.
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// The configuration [default: /etc/oci-hotplug/config.toml, or $OCI_HOTPLUG_CONFIG].
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Where the state lives [default: /run/oci-hotplug, or $OCI_HOTPLUG_STATE_DIR].
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) state_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// The containers that have a watcher, what they ask for, and what is inside.
    List,
    /// All that is known of one container.
    Inspect {
        /// The container's id, the beginning of it, or its name.
        #[arg(value_name = "ID")]
        id: String,
    },
    /// What a request would select now, and the nodes a container would get.
    ///
    /// Examples: oci-hotplug match usb:0403:6001; oci-hotplug match 'subsystem:tty&driver:ftdi_sio';
    /// oci-hotplug match 'glob:/dev/ttyUSB*'.
    Match {
        /// The request, as in the annotation io.oci-hotplug.devices, or a path such as /dev/ttyUSB0.
        #[arg(value_name = "REQUEST")]
        request: String,
        /// Go on, and tell what comes and goes, until interrupted.
        #[arg(long)]
        watch: bool,
    },
    /// The host's devices as a tree, and which container holds each.
    Tree(tree::Options),
    /// Start the watchers of running containers that have none, and clear away what is left of containers that are gone.
    ///
    /// Where systemd runs the host it starts them itself; elsewhere let cron or any supervisor run this, say each minute.
    /// The exit code is 1 when a container is left that could not be dealt with; the others are, all the same.
    Recover {
        /// Also replace the watchers that run, by the version that is installed now. No container notices.
        #[arg(long)]
        restart_watchers: bool,
    },
    /// Give a running container devices, at once and until it stops or restarts.
    ///
    /// The container's record keeps the request: devices come and go as if it had been made at the start. A restart of the
    /// container (podman restart) begins again with the requests of its annotations and hooks. A container that was started
    /// without oci-hotplug gets a watcher. For a rootless container, run this as root with --pid and the host's process id
    /// of a process in it.
    ///
    /// Examples: oci-hotplug attach lab usb:0403:6001; oci-hotplug attach 3f2a 'usb:0403:6001;link=/dev/board' class:probes;
    /// oci-hotplug attach lab vendor.com/gpu=0; oci-hotplug attach --pid 4711 devnode:/dev/ttyACM0.
    Attach(attach::Attach),
    /// Take requests back from a running container, and with them the devices that nothing else asks for.
    ///
    /// Nodes of the engine or the image stay. A selector is enough where it names one request only.
    ///
    /// Examples: oci-hotplug detach lab usb:0403:6001; oci-hotplug detach lab class:probes vendor.com/gpu=0.
    Detach(attach::Detach),
    /// Why a device is, or is not, in a container, rule by rule, with the hint.
    ///
    /// Examples: oci-hotplug explain lab /dev/ttyUSB0; oci-hotplug explain 3f2a /dev/serial/by-id/usb-FTDI_Board-if00;
    /// oci-hotplug explain lab /sys/bus/usb/devices/1-1.4.
    Explain {
        /// The container's id, the beginning of it, or its name.
        #[arg(value_name = "ID")]
        id: String,
        /// The device: its node or a link to it, as the container or the host has it, or its path in sysfs.
        #[arg(value_name = "DEVICE")]
        device: PathBuf,
    },
    /// Allow containers to request these devices: writes a rule of the policy and reloads the watchers.
    ///
    /// The rule becomes a file in config.d beside the configuration. It is checked together with the whole configuration
    /// before it takes effect. Running containers that already requested a device get it at once.
    ///
    /// Examples: oci-hotplug allow usb:0627:0001; oci-hotplug allow 'subsystem:tty&usb:0403' --access rw;
    /// oci-hotplug allow --list; oci-hotplug allow --remove usb:0627:0001.
    Allow(allow::Allow),
    /// Define classes: requests that root writes and that containers request by name (class:NAME).
    Class(class::Class),
    /// Make all watchers read the configuration again.
    ///
    /// A stricter policy detaches devices, a wider one attaches them. A configuration with an error changes nothing: the
    /// watcher keeps its policy. Exits with 1 if a watcher could not reload.
    Reload,
    /// What was attached, detached, refused and failed, per container, and which containers were not started.
    ///
    /// From the journal where there is one, where journalctl finds the same by the fields OCI_HOTPLUG_CONTAINER=,
    /// OCI_HOTPLUG_EVENT= (attached, detached, refused, waiting, shared, failed, restored, overrun, no-start), OCI_HOTPLUG_DEVICE= and
    /// OCI_HOTPLUG_NODE=; else from oci-hotplug.log in the state directory, whose lines end in container="…" event="…"
    /// device="…" node="…". With --json one object a line: time (UTC), container, event, device, node, message.
    ///
    /// Examples: oci-hotplug events --since 15m; oci-hotplug events --follow --container lab.
    Events(events::Options),
    /// Whether this host is ready: kernel, cgroups, udevd, configuration, hooks, CDI, engines, runtimes, leftovers.
    ///
    /// Each line says ok, warn or fail, what was seen, and in brackets what to do. Only what is installed is judged.
    /// Nothing is changed. The exit code is 0 when nothing failed, and 1 otherwise.
    ///
    /// Examples: oci-hotplug check; oci-hotplug check --json | jq '.findings[] | select(.verdict != "ok")'.
    Check(check::Options),
    /// What the watchers have counted, for Prometheus.
    ///
    /// Attachments, grants, refusals, failures, lost events, how long events took, watchers that began and died; for each
    /// container, under its id. To be scraped by node_exporter's textfile collector: the units
    /// oci-hotplug-metrics.timer and .service write the file each half minute, once they are enabled.
    ///
    /// Examples: oci-hotplug metrics; oci-hotplug metrics --textfile /var/lib/prometheus/node-exporter/oci-hotplug.prom.
    Metrics(metrics::Options),
    /// Devices of the Container Device Interface (CDI): write, list, validate, resolve.
    Cdi(cdi::Cdi),
    /// USB devices of other hosts (USB/IP): list, attach, detach; containers get them as any other device.
    Usbip(usbip::Usbip),
    /// Put the programs beside this one on a host: what packaging/install.sh does, for an image without a shell.
    ///
    /// Hooks, watcher and this tool; the CDI device "annotated"; the units of watchers; the hooks' JSON. What is there as
    /// it should be stays untouched, and what changes is put in place by rename: watchers that run go on with their
    /// version (`oci-hotplug recover --restart-watchers` moves them). That the programs run on this host is tried before
    /// any engine starts them.
    ///
    /// Example, in an init container: oci-hotplug install --to /host.
    Install(install::Options),
    /// Write the man pages and completions of this program into a directory.
    #[command(hide = true)]
    GenerateDocs {
        /// The directory.
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
    /// Show hotplug at work: a container under runc, and a disk partition that comes and goes.
    Demo,
}
