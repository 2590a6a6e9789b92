#!/bin/sh
# Builds helm as a Go module into ~/.cache/oci-hotplug/bin, once for each version, and prints its path. Debian has no helm.
# Wants Go 1.21 or newer, which fetches by itself what the module asks for.
set -eu

# The sum is the one that Go's checksum database has; a mirror need not carry that database.
HELM=v3.21.4
HELM_SUM=h1:T/GcIEXU/gNjJnkITlIZ3e9xqkZjhFTmISuStTZ6+Qg=
bin=${XDG_CACHE_HOME:-$HOME/.cache}/oci-hotplug/bin
mkdir -p "$bin"
if [ ! -x "$bin/helm-$HELM" ]; then
    echo "kubernetes: building helm $HELM" >&2
    scratch=$(mktemp -d)
    trap 'chmod -R u+w "$scratch"; rm -rf "$scratch"' EXIT
    from=$(cd "$scratch" && GONOSUMDB=helm.sh/helm/v3 go mod download -json "helm.sh/helm/v3@$HELM" | python3 -c '
import json, sys
module = json.load(sys.stdin)
if module.get("Sum") != sys.argv[1]:
    sys.exit("sum of {Path} {Version} is {0}, not {1}".format(module.get("Sum"), sys.argv[1], **module))
print(module["Dir"])' "$HELM_SUM")
    cp -r "$from" "$scratch/helm"
    chmod -R u+w "$scratch/helm"
    (cd "$scratch/helm" && CGO_ENABLED=0 go build -mod=readonly -trimpath -ldflags '-s -w' -o "$scratch/built" ./cmd/helm)
    mv "$scratch/built" "$bin/helm-$HELM"
fi
echo "$bin/helm-$HELM"
