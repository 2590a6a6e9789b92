#!/bin/sh
# Builds the engines that Debian does not have, into ~/.cache/oci-hotplug/bin, once for each
# version: CRI-O with pinns, crictl, nerdctl, kubelet and the rest of Kubernetes, as Go modules;
# youki as a crate. Fetches node-serialport, with the modules that it needs, for programs.rs. Prints
# nothing when they are there. Needs gcc, make, libseccomp-dev and the other packages of prepare.sh,
# cargo.
set -eu

CRIO=v1.36.3
CRIO_SUM=h1:7PaWWmxWct0eyl9GmCn/e7+iE/xPD4dTeY9m89nIS0Q=
CRICTL=v1.36.0
CRICTL_SUM=h1:Xt+LLvBVH1Fnp/AR2EyHApyWS/88y2KlWjlDc2HR+aw=
NERDCTL=v2.2.2
NERDCTL_SUM=h1:wW+nrriM86rZkItsuhq0CtmS4re3eRSs7u8P2Cit4NM=
# Of the same minor as CRI-O, with which it shares most packages. The second sum is that of go.sum's
# lines for the modules of the k8s.io repositories, which Kubernetes' own go.sum does not have. What
# is beside kubelet is for the cluster, and costs 3 to 4 minutes of processor time, as most of it is
# the same packages.
KUBERNETES=v1.36.3
KUBERNETES_SUM=h1:qDQdoMiluAE2Eab6Fa52YV+WjiGz9mZFFoagEA6cI+o=
KUBERNETES_PARTS=4d29f05f62490cbdbf26448228bd09594b95d2ddfd238a70653001364957886e
KUBERNETES_PROGRAMS="kubelet kube-apiserver kube-scheduler kube-controller-manager"
YOUKI=0.7.0
node=$(dirname "$(realpath "$0")")/node
# The versions and sums of all modules are in its lock file.
NODE_MODULES=$(cat "$node"/*.json | sha256sum | cut -c 1-16)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/oci-hotplug
bin=$cache/bin
mkdir -p "$bin"
scratch=$(mktemp -d)
trap 'chmod -R u+w "$scratch"; rm -rf "$scratch"' EXIT
trap 'exit 1' HUP INT TERM

say() { echo "vm: $*" >&2; }

. "$(dirname "$(realpath "$0")")/../go-module.sh"

if [ ! -x "$bin/crictl-$CRICTL" ]; then
    say "building crictl $CRICTL"
    sources sigs.k8s.io/cri-tools $CRICTL $CRICTL_SUM "$scratch/cri-tools"
    (cd "$scratch/cri-tools" && CGO_ENABLED=0 "$go" build -mod=readonly -trimpath -ldflags '-s -w' -o "$scratch/crictl" ./cmd/crictl)
    mv "$scratch/crictl" "$bin/crictl-$CRICTL"
fi

if [ ! -x "$bin/crio-$CRIO" ]; then
    say "building CRI-O $CRIO"
    sources github.com/cri-o/cri-o $CRIO $CRIO_SUM "$scratch/cri-o"
    (cd "$scratch/cri-o" && "$go" build -mod=readonly -trimpath -ldflags '-s -w' \
        -tags 'containers_image_openpgp exclude_graphdriver_btrfs btrfs_noversion exclude_graphdriver_devicemapper' \
        -o "$scratch/crio" ./cmd/crio)
    gcc -O2 -static -D'VERSION="0"' -o "$bin/pinns-$CRIO" "$scratch"/cri-o/pinns/src/*.c
    mv "$scratch/crio" "$bin/crio-$CRIO"
fi

# With the script by which users start containerd for it. A module of nerdctl's own, which only its
# tests use, is not in the archive.
if [ ! -x "$bin/nerdctl-$NERDCTL" ]; then
    say "building nerdctl $NERDCTL"
    sources github.com/containerd/nerdctl/v2 $NERDCTL $NERDCTL_SUM "$scratch/nerdctl"
    (cd "$scratch/nerdctl" && rm cmd/nerdctl/helpers/testing*.go \
        && "$go" mod edit -droprequire=github.com/containerd/nerdctl/mod/tigron -dropreplace=github.com/containerd/nerdctl/mod/tigron \
        && CGO_ENABLED=0 "$go" build -mod=readonly -trimpath -tags no_ipfs \
            -ldflags "-s -w -X github.com/containerd/nerdctl/v2/pkg/version.Version=$NERDCTL" -o "$scratch/program" ./cmd/nerdctl)
    cp "$scratch/nerdctl/extras/rootless/containerd-rootless.sh" "$bin/containerd-rootless.sh-$NERDCTL"
    mv "$scratch/program" "$bin/nerdctl-$NERDCTL"
fi

# Kubernetes takes the modules that it publishes from its own tree, which a module's archive does
# not hold: here they are taken as they were published with it (v0.36.3 with v1.36.3).
missing=
for program in $KUBERNETES_PROGRAMS; do
    [ -x "$bin/$program-$KUBERNETES" ] || missing="$missing ./cmd/$program"
done
if [ -n "$missing" ]; then
    say "building of Kubernetes $KUBERNETES:$missing"
    sources k8s.io/kubernetes $KUBERNETES $KUBERNETES_SUM "$scratch/kubernetes"
    mkdir "$scratch/programs"
    # One go.sum, whatever is missing: that of all programs. One `go build`, as they share packages.
    # shellcheck disable=SC2086,SC2046 # lists of words
    (cd "$scratch/kubernetes" && sed -i "s#=> ./staging/src/\(k8s.io/.*\)#=> \1 v0.${KUBERNETES#v1.}#" go.mod \
        && export GOWORK=off GONOSUMDB='k8s.io/*' CGO_ENABLED=0 \
        && "$go" list -mod=mod -deps $(printf './cmd/%s ' $KUBERNETES_PROGRAMS) > /dev/null \
        && echo "$KUBERNETES_PARTS  -" > sum && grep '^k8s.io/.* v0\.[1-9]' go.sum | LC_ALL=C sort | sha256sum --check --quiet sum \
        && "$go" build -mod=mod -trimpath -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$KUBERNETES" \
            -o "$scratch/programs/" $missing)
    for program in "$scratch"/programs/*; do
        mv "$program" "$bin/${program##*/}-$KUBERNETES"
    done
fi

if [ ! -x "$bin/youki-$YOUKI" ]; then
    say "building youki $YOUKI"
    CARGO_TARGET_DIR=$scratch/youki cargo install youki --quiet --locked --version $YOUKI --root "$scratch" \
        --features v1,v2,systemd,cgroupsv2_devices,seccomp
    mv "$scratch/bin/youki" "$bin/youki-$YOUKI"
fi

if [ ! -e "$bin/node_modules.tar-$NODE_MODULES" ]; then
    say "fetching node-serialport"
    cp -r "$node" "$scratch/node"
    (cd "$scratch/node" && npm ci --ignore-scripts --no-audit --no-fund --silent)
    # It comes built for all systems; the machine is one of them.
    find "$scratch"/node/node_modules/*/*/prebuilds -mindepth 1 -maxdepth 1 ! -name linux-x64 -exec rm -r {} +
    tar -cf "$scratch/node_modules.tar" -C "$scratch/node" node_modules
    mv "$scratch/node_modules.tar" "$bin/node_modules.tar-$NODE_MODULES"
fi

for program in $KUBERNETES_PROGRAMS; do
    set -- "$@" "$program=$KUBERNETES"
done
for pair in crictl=$CRICTL crio=$CRIO pinns=$CRIO nerdctl=$NERDCTL containerd-rootless.sh=$NERDCTL youki=$YOUKI \
    node_modules.tar="$NODE_MODULES" "$@"; do
    ln -sfn "${pair%%=*}-${pair#*=}" "$bin/${pair%%=*}"
done
