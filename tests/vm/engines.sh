#!/bin/sh
# Builds the engines that Debian does not have, into ~/.cache/oci-hotplug/bin, once for each version:
# CRI-O with pinns, and crictl, as Go modules; youki as a crate.
# Prints nothing when they are there. Wants: gcc, make, libseccomp-dev and the other packages of prepare.sh, cargo.
set -eu

# The sums are those that Go's checksum database has for the two modules; a mirror need not carry that database.
CRIO=v1.36.3
CRIO_SUM=h1:7PaWWmxWct0eyl9GmCn/e7+iE/xPD4dTeY9m89nIS0Q=
CRICTL=v1.36.0
CRICTL_SUM=h1:Xt+LLvBVH1Fnp/AR2EyHApyWS/88y2KlWjlDc2HR+aw=
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

if [ ! -x "$bin/youki-$YOUKI" ]; then
    say "building youki $YOUKI"
    CARGO_TARGET_DIR=$scratch/youki cargo install youki --quiet --locked --version $YOUKI --root "$scratch" \
        --features v1,v2,systemd,cgroupsv2_devices,seccomp
    mv "$scratch/bin/youki" "$bin/youki-$YOUKI"
fi

for pair in crictl=$CRICTL crio=$CRIO pinns=$CRIO youki=$YOUKI; do
    ln -sfn "${pair%%=*}-${pair#*=}" "$bin/${pair%%=*}"
done
