//! The cluster's API server: a client for it, and the events that are sent to it, with their queue.

pub mod client;
pub(super) mod events;
pub(super) mod queue;
