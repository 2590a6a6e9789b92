//! The inside of a container on the real kernel: nodes, links and announcements, in every
//! placement.
//!
//! The "containers" are processes in separate namespaces, made with util-linux and busybox; no
//! runtime is needed. Run as root with `--ignored --test-threads=1`.

mod announcer;
mod container_dev;
mod fixture;
mod hostile;
mod namespaces;
mod process;
#[path = "../support/silent_server.rs"]
mod silent_server;
#[path = "../support/skipped.rs"]
mod skipped;
