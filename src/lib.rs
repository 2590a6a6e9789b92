//! oci-hotplug: hotplug for any OCI container, through OCI hooks.
//!
//! A device that matches what a container asked for appears in the *running* container when it is plugged in,
//! and is gone, access and all, when it is pulled out. No runtime is replaced or wrapped.
//!
//! # The house
//! ```text
//! bin/        mains of a few lines; exit.rs: their exit codes, how an error is told; command_line.rs: their arguments
//! hook/       what the runtime starts: prestart, poststop           ┐
//! watcher/    one process for each container: run, event_loop, then │ programs: join decisions and effects,
//!             mod.rs (Watcher: on, reconcile) and its owners world, │ never import each other
//!             inside, admission, remotes, retries, removals,        │ (but watcher::enroll)
//!             waiters, handover; transaction applies a plan         │
//! cli/        the operator's tool: one file a verb                  ┘
//! kubernetes/ the device plugin, feature `kubernetes`: the only asynchronous code
//! cdi/        specs that carry our hooks to engines without hooks.d; only cli and kubernetes use it
//! usbip/      USB devices of other hosts: attachments, attach, detach; protocol (pure), client, vhci, hubs, records; task, command: the
//!             program `oci-hotplug-usbip`; worker: how watcher, hooks and cli start it
//! host/       the Linux host as objects: monitor, container, container_dev, filter, announcer, process,
//!             registry, replaced_file, runtime_state, leases, leftovers, trust, control, config, host_use, engine_names, log; programs (where
//!             ours are), spawn, systemd, readiness
//! model/      facts and decisions, pure: device, event, inventory; selector, request, symlink, annotations,
//!             entry, class, policy; attachment, grants, named_node, plan; filter_program, device_rules;
//!             uevent; oci; engine, device_tree, readiness, counters; usbip (names of remote
//!             devices)
//! sys/        system calls without a safe wrapper; the only `unsafe`
//! ```
//! Direction: `bin -> {hook, cli, watcher, kubernetes} -> {cdi, usbip} -> host -> {model, sys}`. `model` and `sys` import nothing of
//! ours.
//!
//! # The two flows
//! ```text
//! prestart:  state JSON -> annotations::read -> Policy::authorise -> watcher::enroll (lock, record, launch) -> exit 0
//!            then, where systemd runs the host: watcher -> systemd_unit (its unit is started) -> handover (the unit's watcher takes over)
//! uevent:    kernel, udevd -> DeviceMonitor -> Wake -> Watcher::on -> DeviceEvent -> World (inventory)
//!              -> Watcher::reconcile: candidates -> admissions (policy, lease) -> plan -> report
//!              -> transaction::apply [Revoke, AnnounceRemove, RemoveLink, RemoveNode, SetGrants, AddNode, AddLink, Announce]
//!              -> DeviceFilter, ContainerDev, Announcer -> Attachments journalled, one log line
//! ```
//!
//! # Rules that hold everywhere
//! Only a container's watcher changes anything inside it. Every wake ends in the same `plan`; carrying a plan out
//! and planning again gives the empty plan. Grant before node, node before link, link before announcement; on
//! removal access is revoked first, then the reverse. What the engine or the image put there stays as it is. Nothing resolves a path inside a
//! container by name. A device node is never opened.

pub mod cdi;
pub mod cli;
mod command_line;
pub mod exit;
pub mod hook;
pub mod host;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
pub mod model;
pub mod sys;
pub mod usbip;
pub mod watcher;
