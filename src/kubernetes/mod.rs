//! The Kubernetes device plugin: a pod asks for a resource, and gets devices that come and go while it runs.
//!
//! The only asynchronous code, behind the feature `kubernetes`. Only advertises: what is put into a container is put
//! there by the hooks and the watcher, which a CDI spec brings in (`door`).
//!
//! ```text
//! resource.rs   names, units, health, which units belong together      ┐ pure
//! config/       what is to be advertised: own and compatible formats   │
//! catalogue.rs  configuration and what there is -> resources           │
//! remote.rs     the same for devices of USB/IP servers                 ┘
//! sight.rs      what there is: the host's devices and what is below /dev
//! servers.rs    what USB/IP servers have to give, asked again and again
//! door.rs       the way into a container: CDI specs, or device specs
//! engine.rs     whether the engine takes CDI devices        cri.rs        what it is asked
//! api.rs        kubelet's protocol: messages and calls      socket.rs     gRPC and HTTP over sockets
//! plugin.rs     what kubelet asks of one resource           kubelet.rs    registered, and kept so
//! pods.rs       who has what, from kubelet's pod-resources
//! events.rs     what happened to whose device, told to ...      api_server.rs  ... the cluster's API server
//! status.rs     /metrics, /healthz, /readyz                 directory.rs  inotify on a directory
//! run.rs        joins them                                  command.rs    arguments, logs; check.rs: --check
//! ```

pub mod api;
mod api_server;
mod catalogue;
mod check;
pub mod command;
pub mod config;
pub mod cri;
mod directory;
mod door;
mod engine;
mod events;
mod kubelet;
mod plugin;
mod pods;
mod remote;
pub mod resource;
mod run;
mod servers;
mod sight;
pub mod socket;
mod status;
