#!/bin/sh
# Makes a package of what install.sh installs.
#
#   packaging/package.sh deb|rpm              build the executables; the package: target/package
#     --bin-dir DIR                           take the executables that are in DIR: nothing is built
#     --output DIR                            put the package there
#     --version VERSION                       another version than Cargo.toml's
#
# Variables: DEBFULLNAME, DEBEMAIL: the maintainer that the package names (default: the project).
# Prints the package's path. A .deb needs dpkg-dev, an .rpm rpmbuild (Debian's package rpm).
set -eu
umask 022

. "$(dirname -- "$0")/artifact.sh"

# The tree of the package: what install.sh installs, without its manifest, because the package
# manager has one.
make_tree() {
    DESTDIR=$tree PREFIX=/usr SYSCONFDIR=/etc "$here/packaging/install.sh" --bin-dir "$bins" >"$work/log" 2>&1 \
        || { cat "$work/log" >&2; fail "install.sh failed"; }
    rm "$tree/usr/share/oci-hotplug/installed"
    find "$tree/usr/share/man" -type f -exec gzip -9n {} +
    install -D -m 644 "$here/packaging/tmpfiles/oci-hotplug.conf" "$tree/usr/lib/tmpfiles.d/oci-hotplug.conf"
    install -D -m 644 "$here/README.md" "$tree/usr/share/doc/oci-hotplug/README.md"
    install -D -m 644 -t "$tree/usr/share/doc/oci-hotplug/docs" "$here"/docs/*.md
    for folder in pictures schema; do
        install -D -m 644 -t "$tree/usr/share/doc/oci-hotplug/docs/$folder" "$here/docs/$folder"/*
    done
    install -D -m 644 -t "$tree/usr/share/oci-hotplug/monitoring" "$here"/packaging/monitoring/*
    strip_programs "$tree"/usr/bin/* "$tree"/usr/libexec/oci/hooks.d/*
}

# The files that an administrator may change and that a removal leaves. The CDI device is none of
# them: it names the hooks, and an engine would continue to start hooks that do not exist.
configuration() { (cd "$tree" && find etc -path etc/cdi -prune -o -type f -print | LC_ALL=C sort | sed 's|^|/|'); }

deb() {
    for tool in dpkg-deb dpkg-shlibdeps; do
        command -v $tool >/dev/null || fail "$tool is missing: apt-get install dpkg-dev"
    done
    doc=$tree/usr/share/doc/oci-hotplug
    # Where Debian's zsh looks.
    mv "$tree/usr/share/zsh/site-functions" "$tree/usr/share/zsh/vendor-completions"
    sed 's/^$/./; s/^/ /' "$here/LICENSE-MIT" >"$work/mit"
    sed -e "/^@MIT@$/{r $work/mit" -e 'd}' "$here/packaging/debian/copyright" >"$doc/copyright"
    printf 'oci-hotplug (%s) unstable; urgency=medium\n\n  * This version.\n\n -- %s  %s\n' \
        "$version" "$maintainer" "$(date -R)" | gzip -9n >"$doc/changelog.gz"
    install -D -m 644 "$here/packaging/debian/lintian-overrides" "$tree/usr/share/lintian/overrides/oci-hotplug"
    mkdir "$tree/DEBIAN"
    size=$(du -sk --exclude=DEBIAN "$tree" | cut -f 1)
    sed -e "s|@VERSION@|$version|; s|@ARCHITECTURE@|$(dpkg --print-architecture)|; s|@SIZE@|$size|" \
        -e "s|@DEPENDS@|$(libraries)|; s|@MAINTAINER@|$maintainer|" "$here/packaging/debian/control" >"$tree/DEBIAN/control"
    configuration >"$tree/DEBIAN/conffiles"
    # shellcheck disable=SC2016 # the scripts' own variables
    {
        script postinst '[ "$1" = configure ] || exit 0' 'upgraded=$2' enable-deb installed
        script prerm '[ "$1" = remove ] || exit 0' '' removing
        script postrm 'case $1 in purge) purge=yes ;; remove) purge= ;; *) exit 0 ;; esac' '' removed forget-deb
    }
    (cd "$tree" && find . -path ./DEBIAN -prune -o -type f -printf '%P\n' | LC_ALL=C sort | xargs md5sum) >"$work/md5sums"
    mv "$work/md5sums" "$tree/DEBIAN/md5sums"
    package=$output/oci-hotplug_${version}_$(dpkg --print-architecture).deb
    dpkg-deb --root-owner-group --build "$tree" "$package" >/dev/null
}

# bodies NAME...: what maintainer scripts do.
bodies() { for body in "$@"; do cat "$here/packaging/scripts/$body.sh"; done; }

# script NAME CONDITION SETTING BODY...: a maintainer script.
script() {
    file=$tree/DEBIAN/$1
    printf '#!/bin/sh\nset -e\n%s\n%s\n' "$2" "$3" >"$file"
    shift 3
    bodies "$@" >>"$file"
    chmod 755 "$file"
}

# The libraries that the executables need, with the oldest versions that suffice.
libraries() {
    mkdir -p "$work/source/debian"
    printf 'Source: oci-hotplug\n\nPackage: oci-hotplug\nArchitecture: any\n' >"$work/source/debian/control"
    (cd "$work/source" && dpkg-shlibdeps -O "$tree"/usr/bin/* "$tree"/usr/libexec/oci/hooks.d/*) | sed -n 's/^shlibs:Depends=//p'
}

rpm() {
    command -v rpmbuild >/dev/null || fail "rpmbuild is missing: apt-get install rpm"
    install -D -m 644 -t "$tree/usr/share/licenses/oci-hotplug" "$here/LICENSE" "$here/LICENSE-APACHE" "$here/LICENSE-MIT"
    mkdir "$work/scripts"
    # $1 is how many versions will be there: rpm's scriptlets.
    # shellcheck disable=SC2016 # the scripts' own variables
    {
        { echo 'upgraded=; [ "$1" = 1 ] || upgraded=yes'; bodies enable-rpm installed; } >"$work/scripts/post"
        { echo '[ "$1" = 0 ] || exit 0'; bodies removing disable-rpm; } >"$work/scripts/preun"
        { echo '[ "$1" = 0 ] || exit 0; purge=yes'; bodies removed; } >"$work/scripts/postun"
    }
    {
        configuration | sed 's/^/%config(noreplace) /'
        (cd "$tree" && find etc/cdi usr -type f | LC_ALL=C sort | sed 's|^|/|')
        # And the directories that no bare system has: several packages may own the same.
        (cd "$tree" && find etc usr -mindepth 1 -type d | LC_ALL=C sort | sed 's|^|/|') \
            | grep -vxE '/usr/(bin|lib|libexec|share|share/doc|share/man(/man[1-8])?)' | sed 's/^/%dir /'
    } >"$work/scripts/files"
    rpmbuild -bb --quiet --define "_binary_payload w9.zstdio" --define "_topdir $work/rpm" --define "tree $tree" --define "scripts $work/scripts" \
        --define "tree_version $version" --define "packager $maintainer" "$here/packaging/rpm/oci-hotplug.spec" >"$work/log" 2>&1 \
        || { cat "$work/log" >&2; fail "rpmbuild failed"; }
    built=$(find "$work/rpm/RPMS" -name '*.rpm')
    package=$output/${built##*/}
    mv "$built" "$package"
}

maintainer="${DEBFULLNAME:-oci-hotplug maintainers} <${DEBEMAIL:-maintainers@oci-hotplug.dev}>"
format=
case ${1:-} in
    deb | rpm) format=$1; shift ;;
    -h | --help) ;;
    *) fail "name the format, deb or rpm (--help explains both)" ;;
esac
options "$@"
begin
# What both sort before the release that it leads to.
version=$(printf '%s' "$version" | tr - '~')
make_tree
$format
printf '%s\n' "$package"
