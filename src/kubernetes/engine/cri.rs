//! What is asked of a container engine: two calls of kubelet's container runtime interface, version v1.
//!
//! Written by hand from the published protocol (k8s.io/cri-api, pkg/apis/runtime/v1/api.proto), as `api`; fields that
//! nobody here reads are left out.

#![expect(missing_docs, reason = "the names are the protocol's")]

use std::collections::HashMap;

pub const VERSION: &str = "/runtime.v1.RuntimeService/Version";
pub const STATUS: &str = "/runtime.v1.RuntimeService/Status";

#[derive(Clone, PartialEq, prost::Message)]
pub struct VersionRequest {
    /// Of kubelet's own interface; engines don't look at it.
    #[prost(string, tag = "1")]
    pub version: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct VersionResponse {
    #[prost(string, tag = "2")]
    pub runtime_name: String,
    #[prost(string, tag = "3")]
    pub runtime_version: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct StatusRequest {
    #[prost(bool, tag = "1")]
    pub verbose: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct StatusResponse {
    /// With `verbose`: whatever the engine likes to tell, as JSON.
    #[prost(map = "string, string", tag = "2")]
    pub info: HashMap<String, String>,
}
