//! kubelet's side: registration, its device plugin calls, and its pod-resources service.

pub mod api;
pub mod checkpoint;
pub mod grpc;
pub(super) mod plugin;
pub(super) mod pod_resources;
pub(super) mod registrar;
