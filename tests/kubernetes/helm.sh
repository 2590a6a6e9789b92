#!/bin/sh
# Builds helm as a Go module into ~/.cache/oci-hotplug/bin, once for each version, and prints its
# path. Debian has no helm.
set -eu

HELM=v3.21.4
HELM_SUM=h1:T/GcIEXU/gNjJnkITlIZ3e9xqkZjhFTmISuStTZ6+Qg=
bin=${XDG_CACHE_HOME:-$HOME/.cache}/oci-hotplug/bin
mkdir -p "$bin"
if [ ! -x "$bin/helm-$HELM" ]; then
    say() { echo "kubernetes: $*" >&2; }
    say "building helm $HELM"
    scratch=$(mktemp -d)
    trap 'chmod -R u+w "$scratch"; rm -rf "$scratch"' EXIT
    . "$(dirname "$(realpath "$0")")/../go-module.sh"
    sources helm.sh/helm/v3 $HELM "$HELM_SUM" "$scratch/helm"
    (cd "$scratch/helm" && CGO_ENABLED=0 "$go" build -mod=readonly -trimpath -ldflags '-s -w' -o "$scratch/built" ./cmd/helm)
    mv "$scratch/built" "$bin/helm-$HELM"
fi
echo "$bin/helm-$HELM"
