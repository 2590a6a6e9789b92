# Sourced by tests/run.sh and packaging/try.sh: installs on a bare Debian or Ubuntu machine what is
# needed to build and try oci-hotplug.

export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin:$HOME/.cargo/bin"

say() { printf '\n== %s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

apt_updated=no

# Installs packages by apt, and names them. Fails with their names where that is impossible.
install_packages() {
    command -v apt-get >/dev/null || fail "missing: $* (Debian's names; this machine has no apt-get, so install them by hand)"
    [ "$(id -u)" = 0 ] || fail "missing: $* (run as root once, or: apt-get install $*)"
    say "installing $*"
    if [ "$apt_updated" = no ]; then
        apt-get update -qq || fail "apt-get update failed: is there a network?"
        apt_updated=yes
    fi
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null \
        || fail "apt-get install $* failed"
}

# need PACKAGE TEST...: installs PACKAGE unless the command TEST succeeds.
need() {
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || missing+=("$package")
}

# Installs what the preceding `need`s found missing, all at once.
install_missing() {
    [ ${#missing[@]} = 0 ] || install_packages "${missing[@]}"
    missing=()
}
missing=()

one_of() { local path; for path in "$@"; do [ -e "$path" ] && return 0; done; return 1; }

required_rust() { sed -n 's/^rust-version *= *"\(.*\)"/\1/p' Cargo.toml; }

at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }

rust_is_new_enough() {
    command -v cargo >/dev/null && command -v rustc >/dev/null || return 1
    local version
    version=$(rustc --version 2>/dev/null | awk '{ print $2 }')
    [ -n "$version" ] && at_least "$(required_rust)" "$version"
}

# The version that apt would install of a package; empty where there is none.
candidate() { LC_ALL=C apt-cache policy "$1" 2>/dev/null | sed -n 's/^ *Candidate: \([0-9][0-9.]*\).*/\1/p'; }

# A Rust toolchain: the installed one, if it is new enough; else the distribution's; else the
# distribution's newer one beside it (Debian 12: rustc-web; Ubuntu: rustc-1.NN); else rustup from
# the distribution.
need_rust() {
    rust_is_new_enough && return 0
    local wanted
    wanted=$(required_rust)
    if command -v cargo >/dev/null && command -v rustup >/dev/null; then
        fail "rustc $(rustc --version 2>/dev/null | awk '{ print $2 }') is too old, $wanted is needed: rustup update stable"
    fi
    command -v apt-get >/dev/null || fail "cargo and rustc $wanted or newer are needed: https://rustup.rs"
    [ "$(id -u)" = 0 ] || fail "cargo and rustc $wanted or newer are needed (as root this installs them)"
    [ "$apt_updated" = yes ] || { apt-get update -qq || fail "apt-get update failed: is there a network?"; apt_updated=yes; }
    local newest
    newest=$(apt-cache search --names-only '^rustc-1\.[0-9]+$' | awk '{ print $1 }' | sort -V | tail -n 1)
    newest=${newest#rustc-}
    if at_least "$wanted" "$(candidate rustc || true)"; then
        install_packages cargo rustc rustfmt rust-clippy
    elif at_least "$wanted" "$(candidate rustc-web || true)"; then
        install_packages cargo-web rustc-web rustfmt-web rust-web-clippy
    elif [ -n "$newest" ] && at_least "$wanted" "$newest"; then
        install_packages "cargo-$newest" "rustc-$newest" "rustfmt-$newest" "rust-$newest-clippy"
        export PATH="/usr/lib/rust-$newest/bin:$PATH"
    elif [ -n "$(candidate rustup)" ]; then
        install_packages rustup ca-certificates
        rustup default stable || fail "rustup default stable failed: is there a network?"
    fi
    rust_is_new_enough || fail "no Rust toolchain of version $wanted or newer could be installed: https://rustup.rs"
}

# Installs what a build needs.
need_to_build() {
    need build-essential command -v cc
    need pkg-config command -v pkg-config
    need libudev-dev pkg-config --exists libudev
    need ca-certificates one_of /etc/ssl/certs/ca-certificates.crt
    install_missing
    need_rust
}

# Installs what containers with hot-plugged devices need.
need_to_run() {
    [ "$(id -u)" = 0 ] || fail "root is needed: it starts containers and plugs devices"
    need runc command -v runc
    need busybox-static one_of /bin/busybox /usr/bin/busybox
    need udev one_of /lib/systemd/systemd-udevd /usr/lib/systemd/systemd-udevd
    need util-linux command -v nsenter
    install_missing
    [ -e /dev/loop-control ] || modprobe loop 2>/dev/null || fail "no loop devices: this kernel lacks the loop driver"
}

# Installs what is needed to make packages and to test them in bare systems.
need_to_package() {
    need dpkg-dev command -v dpkg-shlibdeps
    need rpm command -v rpmbuild
    need mmdebstrap command -v mmdebstrap
    need lintian command -v lintian
    need buildah command -v buildah
    need golang-go command -v go
    need debian-archive-keyring one_of /usr/share/keyrings/debian-archive-keyring.gpg
    install_missing
}
