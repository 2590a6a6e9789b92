//! The Kubernetes device plugin: a pod requests a resource, and gets devices that come and go while
//! it runs.
//!
//! The only asynchronous code, behind the feature `kubernetes`. The plugin only advertises: the
//! hooks and the watcher, which a CDI spec adds to a container (`cdi_specs`), attach the devices. A
//! new kind of resource needs a `Definition`, a file in `config` that reads it, and a file in
//! `resources` that makes units of it.
//!
//! ```text
//! config/        what is to be advertised: own and compatible formats   ┐ pure
//! resources/     configuration and snapshot -> resources and units      ┘
//! snapshot       the host at one moment: devices and paths below /dev
//! usbip_servers  what USB/IP servers export, asked periodically
//! cdi_specs      the CDI specs that bring devices into containers
//! engine/        whether the container engine supports CDI devices
//! kubelet/       registration, device plugin calls, pod-resources; gRPC over Unix sockets
//! api_server/    events about the devices of pods, sent to the cluster's API server
//! metrics        the metrics; status: /metrics, /healthz, /readyz
//! changes        waiting for changes, and until a burst of them is over
//! absences       units whose device is absent for a moment
//! sources        what wakes the daemon
//! publisher      what is advertised
//! daemon         the main loop
//! command        the program: arguments, options, log; check: --check
//! ```

mod absences;
pub mod api_server;
mod arguments;
mod cdi_specs;
mod changes;
mod check;
pub mod command;
pub mod config;
mod daemon;
pub mod engine;
pub mod kubelet;
mod metrics;
mod options;
mod publisher;
pub mod resources;
mod snapshot;
mod sources;
mod status;
mod usbip_servers;
