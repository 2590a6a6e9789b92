# Programs that are built of Go modules, for the scripts that source this: tests/vm/engines.sh,
# tests/kubernetes/helm.sh. Before that: `say`, which tells a person something, and $scratch, an
# empty directory.
#
# shellcheck shell=sh

# The Go that builds them where the machine's is older than 1.21, which fetches by itself the
# version of a go.mod: Debian 12 has 1.19. It comes as a module, too.
TOOLCHAIN=v0.0.1-go1.26.8.linux-amd64
TOOLCHAIN_SUM=h1:ZOmGe1OnfREDMIdb1Qi4G9JSuDPBLGExZMQ4nis1RXM=

# Sets $go: the machine's Go, else Debian's, else a newer one that this fetches.
find_go() {
    [ -z "${go:-}" ] || return 0
    if ! command -v go > /dev/null; then
        say "installing golang-go"
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends golang-go > /dev/null
    fi
    go=$(command -v go)
    minor=$("$go" env GOVERSION | sed 's/^go1\.\([0-9]*\).*/\1/')
    if [ "$minor" -lt 21 ]; then
        say "fetching a newer Go than $("$go" env GOVERSION)"
        sources golang.org/toolchain "$TOOLCHAIN" "$TOOLCHAIN_SUM" "$scratch/go"
        # An archive of a module has no modes.
        chmod +x "$scratch"/go/bin/* "$scratch"/go/pkg/tool/*/*
        go=$scratch/go/bin/go
    fi
}

# The sources of module $1 at version $2 with sum $3, writable, in directory $4: go.mod's
# replacements count only there. The sums are those that Go's checksum database has for the modules;
# a mirror need not carry that database.
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
