#!/bin/sh
# Builds the engines that Debian does not have, into ~/.cache/oci-hotplug/bin, once for each version:
# CRI-O with pinns, crictl and kubelet, as Go modules; youki as a crate.
# Prints nothing when they are there. Wants: gcc, make, libseccomp-dev and the other packages of prepare.sh, cargo.
set -eu

# The sums are those that Go's checksum database has for the modules; a mirror need not carry that database.
CRIO=v1.36.3
CRIO_SUM=h1:7PaWWmxWct0eyl9GmCn/e7+iE/xPD4dTeY9m89nIS0Q=
CRICTL=v1.36.0
CRICTL_SUM=h1:Xt+LLvBVH1Fnp/AR2EyHApyWS/88y2KlWjlDc2HR+aw=
# Of the same minor as CRI-O, with which it shares most of what both are built of. The second sum is that of go.sum's
# lines for the modules of the k8s.io repositories, which Kubernetes' own go.sum has not.
KUBELET=v1.36.3
KUBELET_SUM=h1:qDQdoMiluAE2Eab6Fa52YV+WjiGz9mZFFoagEA6cI+o=
KUBELET_PARTS=18921be13b17a36c152ba27f8305baa65e5c1bfeab21168fe22f9b2c10be8aac
YOUKI=0.7.0
cache=${XDG_CACHE_HOME:-$HOME/.cache}/oci-hotplug
bin=$cache/bin
mkdir -p "$bin"
scratch=$(mktemp -d)
trap 'chmod -R u+w "$scratch"; rm -rf "$scratch"' EXIT

say() { echo "vm: $*" >&2; }

# The machine's Go, else Debian's. One of 1.21 or newer fetches by itself what a go.mod asks for.
find_go() {
    if ! command -v go > /dev/null; then
        say "installing golang-go"
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends golang-go > /dev/null
    fi
    go=$(command -v go)
    minor=$("$go" env GOVERSION | sed 's/^go1\.\([0-9]*\).*/\1/')
    if [ "$minor" -lt 21 ]; then
        say "$("$go" version) is too old to build CRI-O: put Go 1.21 or newer on PATH (Debian 12 has one in its backports)"
        exit 1
    fi
}

# The sources of module $1 at version $2 with sum $3, writable, in directory $4: go.mod's replacements count only there.
sources() {
    find_go
    from=$(cd "$scratch" && GONOSUMDB=$1 "$go" mod download -json "$1@$2" | python3 -c '
import json, sys
module = json.load(sys.stdin)
if module.get("Sum") != sys.argv[1]:
    sys.exit("sum of {Path} {Version} is {0}, not {1}".format(module.get("Sum"), sys.argv[1], **module))
print(module["Dir"])' "$3")
    cp -r "$from" "$4"
    chmod -R u+w "$4"
}

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

# Kubernetes takes the modules that it publishes from its own tree, which a module's archive does not hold: here they are
# taken as they were published with it (v0.36.3 with v1.36.3).
if [ ! -x "$bin/kubelet-$KUBELET" ]; then
    say "building kubelet $KUBELET"
    sources k8s.io/kubernetes $KUBELET $KUBELET_SUM "$scratch/kubernetes"
    (cd "$scratch/kubernetes" && sed -i "s#=> ./staging/src/\(k8s.io/.*\)#=> \1 v0.${KUBELET#v1.}#" go.mod \
        && GOWORK=off GONOSUMDB='k8s.io/*' CGO_ENABLED=0 "$go" build -mod=mod -trimpath \
            -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$KUBELET" -o "$scratch/kubelet" ./cmd/kubelet \
        && echo "$KUBELET_PARTS  -" > sum && grep '^k8s.io/.* v0\.[1-9]' go.sum | LC_ALL=C sort | sha256sum --check --quiet sum)
    mv "$scratch/kubelet" "$bin/kubelet-$KUBELET"
fi

if [ ! -x "$bin/youki-$YOUKI" ]; then
    say "building youki $YOUKI"
    CARGO_TARGET_DIR=$scratch/youki cargo install youki --quiet --locked --version $YOUKI --root "$scratch" \
        --features v1,v2,systemd,cgroupsv2_devices,seccomp
    mv "$scratch/bin/youki" "$bin/youki-$YOUKI"
fi

for pair in crictl=$CRICTL crio=$CRIO pinns=$CRIO kubelet=$KUBELET youki=$YOUKI; do
    ln -sfn "${pair%%=*}-${pair#*=}" "$bin/${pair%%=*}"
done
