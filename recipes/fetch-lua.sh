#!/bin/sh
# Gets the Lua source that lua.toml builds from Debian, through this machine's own package sources, and
# checks it. Needs no root and leaves the machine's package lists alone.
#
#   recipes/fetch-lua.sh            writes recipes/lua/lua.tar.gz

set -eu

here=$(cd "$(dirname "$0")" && pwd)
to=$here/lua/lua.tar.gz

# Digests of the upstream archives in Debian 12 and 13.
known="
164c7849653b80ae67bec4b7473b884bf5cc8d2dca05653475ec2ed27b9ebf61  5.4.4
9fbf5e28ef86c69858f6d3d34eccc32e911c1a28b4120ff3e84aaa70cfbf1e30  5.4.7
"

check() {
    digest=$(sha256sum "$1" | cut -d ' ' -f 1)
    case $known in
    *"$digest"*) ;;
    *) echo "fetch-lua: $1 has the unknown digest $digest" >&2; return 1 ;;
    esac
}

if [ -f "$to" ] && check "$to"; then
    exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/etc" "$work/lists/partial" "$work/cache/archives/partial" "$work/get"

# The machine's own sources, with source packages instead of binary ones.
for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
    [ -f "$file" ] || continue
    sed -n 's/^deb[[:space:]]/deb-src /p' "$file" >> "$work/etc/sources.list"
done
for file in /etc/apt/sources.list.d/*.sources; do
    [ -f "$file" ] || continue
    sed 's/^Types:.*/Types: deb-src/' "$file" > "$work/etc/$(basename "$file")"
done

apt() {
    apt-get -qq -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$work/etc" \
        -o Dir::State::Lists="$work/lists" -o Dir::Cache="$work/cache" -o APT::Sandbox::User=root "$@"
}
[ ! -f "$work/etc/sources.list" ] || mv "$work/etc/sources.list" "$work/etc/machine.list"

apt update
(cd "$work/get" && apt source --download-only lua5.4)

archive=$(echo "$work"/get/lua5.4_*.orig.tar.gz)
check "$archive"
mkdir -p "$(dirname "$to")"
cp "$archive" "$to.part"
mv "$to.part" "$to"
