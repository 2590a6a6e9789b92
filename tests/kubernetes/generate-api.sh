#!/bin/sh
# Generates the messages of kubelet's device plugin and pod-resources protocols and of the container
# runtime interface from the .proto files that Kubernetes publishes. Run it by hand when the
# versions below change, and commit what it writes.
set -eu
cd "$(dirname "$0")/../.."

KUBELET=v0.36.0
KUBELET_SUM=h1:zWeevZeGl80DInNU6WUo13yWmgbEajkRaBFqeKqkweA=
CRI=v0.36.0
CRI_SUM=h1:DSuUPB3HjUPIFBXmXIWbooJlr1euKXzPSdhpeCRgLFA=

say() { echo "$*" >&2; }
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
. tests/go-module.sh

sources k8s.io/kubelet $KUBELET $KUBELET_SUM "$scratch/kubelet"
sources k8s.io/cri-api $CRI $CRI_SUM "$scratch/cri-api"
cargo run --quiet --locked --manifest-path tests/kubernetes/generate-api/Cargo.toml --target-dir target/generate-api -- \
    "$scratch/kubelet" "$scratch/cri-api" "$PWD"
rustfmt --edition 2024 src/kubernetes/kubelet/api/device_plugin.rs src/kubernetes/kubelet/api/pod_resources.rs \
    src/kubernetes/engine/cri.rs
