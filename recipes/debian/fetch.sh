#!/bin/sh
# Gets what the recipes here are built from through this machine's own package sources, into cache/ beside this
# file. Needs no root, leaves the machine's package lists alone, and does nothing where it is all there.
#
#   recipes/debian/fetch.sh             everything
#   recipes/debian/fetch.sh tree lz4    the toolchain and the sources of these
#
#   cache/toolchain.tar     the packages in `packages` and all they depend on, unpacked over one another
#   cache/toolchain.list    their names, versions and digests
#   cache/PACKAGE.tar       upstream's sources as Debian has them; the digests are in `sources`
#
# Exit code 3: the package sources do not answer, or have other versions than `sources`.

set -eu
export LC_ALL=C
umask 022

here=$(cd "$(dirname "$0")" && pwd)
cache=$here/cache
mkdir -p "$cache"

# One process at a time; tests may start several.
exec 9> "$cache/.lock"
flock 9

known=$(sed '/^#/d; s/[[:space:]].*//' "$here/sources")
wanted=${*:-$known}
missing=
for name in $wanted; do
    [ -f "$cache/$name.tar" ] || missing="$missing $name"
done
[ -n "$missing" ] || [ ! -f "$cache/toolchain.tar" ] || exit 0

work=$(mktemp -d "$cache/work.XXXXXX") # half a gigabyte, more than /tmp may have
trap 'chmod -R u+rwX "$work"; rm -rf "$work"' EXIT
mkdir -p "$work/etc" "$work/lists/partial" "$work/archives/partial" "$work/get"

# The machine's own sources, for binary and source packages.
for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
    [ -f "$file" ] || continue
    sed -n 's/^\(deb\|deb-src\)[[:space:]]/deb /p' "$file"
    sed -n 's/^\(deb\|deb-src\)[[:space:]]/deb-src /p' "$file"
done | sort -u > "$work/etc/machine.list"
for file in /etc/apt/sources.list.d/*.sources; do
    [ -f "$file" ] || continue
    sed 's/^Types:.*/Types: deb deb-src/' "$file" > "$work/etc/$(basename "$file")"
done

# As if nothing was installed: what is asked for comes with all it depends on.
: > "$work/status"
run() {
    tool=$1
    shift
    "$tool" -qq -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$work/etc" \
        -o Dir::State::Lists="$work/lists" -o Dir::State::Status="$work/status" -o Dir::Cache="$work" \
        -o APT::Sandbox::User=root -o APT::Install-Recommends=false -o Acquire::Retries=3 "$@"
}
cannot() {
    echo "fetch: $1" >&2
    exit 3
}
run apt-get update || cannot "the package lists cannot be fetched"
for list in "$work"/lists/*_Packages*; do
    [ -e "$list" ] || cannot "the package lists cannot be fetched"
done

# Every package is checked by apt against the signed index. They are unpacked in one directory, in the order
# of their names, into a tree whose /bin, /lib and /sbin lead to /usr; no maintainer script runs. Times and
# owners are the same for all; documentation is left out.
toolchain() {
    mkdir "$work/debs" "$work/root"
    for name in usr usr/bin usr/sbin usr/lib usr/lib32 usr/lib64 usr/libx32; do
        mkdir "$work/root/$name"
    done
    for name in bin sbin lib lib32 lib64 libx32; do
        ln -s "usr/$name" "$work/root/$name"
    done
    run apt-get install --print-uris -y $(sed '/^#/d' "$here/packages") > "$work/uris"
    (cd "$work/debs" && run apt-get download $(sed "s/^'[^']*' \([^_]*\)_.*/\1/" "$work/uris")) \
        || cannot "the packages of the toolchain cannot be fetched"
    for deb in "$work"/debs/*.deb; do
        echo "$(sha256sum < "$deb" | cut -d ' ' -f 1)  $(dpkg-deb -f "$deb" Package) $(dpkg-deb -f "$deb" Version)"
        dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$work/root" --keep-directory-symlink --no-same-owner -p \
            --exclude './usr/share/doc/*' --exclude './usr/share/man/*' --exclude './usr/share/info/*' \
            --exclude './usr/share/locale/*' --exclude './usr/share/lintian/*'
    done > "$work/toolchain.list"
    # What the maintainer scripts would have made.
    ln -s mawk "$work/root/usr/bin/awk"
    ln -s gcc "$work/root/usr/bin/cc"
    ln -s g++ "$work/root/usr/bin/c++"
    echo 'root:x:0:0:root:/root:/bin/bash' > "$work/root/etc/passwd"
    echo 'root:x:0:' > "$work/root/etc/group"
    tar -c -C "$work/root" --sort=name --format=gnu --mtime=@1 --owner=0 --group=0 --numeric-owner . \
        > "$cache/toolchain.tar.part"
    mv "$work/toolchain.list" "$cache/toolchain.list"
    mv "$cache/toolchain.tar.part" "$cache/toolchain.tar"
}

# Upstream's archive of a source package, as a plain tar.
sources() {
    mkdir "$work/get/$1"
    (cd "$work/get/$1" && run apt-get source --download-only --tar-only "$1") || cannot "the source of $1 cannot be fetched"
    archive=$(ls "$work/get/$1"/*.orig.tar.*z* | grep -v '\.asc$')
    version=$(basename "$archive" | sed 's/^[^_]*_\(.*\)\.orig\.tar\..*/\1/')
    digest=$(sha256sum < "$archive" | cut -d ' ' -f 1)
    grep -q "^$1 *$version " "$here/sources" || cannot "$1 has version $version here, which \`sources\` does not know"
    if ! grep -q "^$1 *$version *$digest\$" "$here/sources"; then
        echo "fetch: $(basename "$archive") has the digest $digest, which is not the one in \`sources\`" >&2
        exit 1
    fi
    case $archive in
    *.gz) gzip -dc "$archive" ;;
    *.bz2) bzip2 -dc "$archive" ;;
    *.xz) xz -dc "$archive" ;;
    esac > "$cache/$1.tar.part"
    mv "$cache/$1.tar.part" "$cache/$1.tar"
}

[ -f "$cache/toolchain.tar" ] || toolchain
for name in $missing; do
    sources "$name"
done
