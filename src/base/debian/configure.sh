# Configures the packages that have been unpacked on top of the stack, by their own maintainer scripts and dpkg.
# What each of them adds to the database is in /var/lib/dpkg/unpacked.
cd /var/lib/dpkg
fresh=
[ -e status ] || fresh=yes

# Nothing is started by a package.
policy=/usr/sbin/policy-rc.d
[ ! -e $policy ] || policy=
if [ -n "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' > $policy
    chmod 755 $policy
fi

# Files that packages which are there want to be told of.
told=
if [ -s triggers/File ]; then
    while read -r path name; do
        for package in unpacked/*; do
            package=${package#unpacked/}
            if grep -q "^$path\(/\|\$\)" "info/$package.list"; then
                told="$told $package=$path"
                break
            fi
        done
    done < triggers/File
fi

# The database as dpkg leaves it when it has unpacked a package.
mkdir -p alternatives info parts triggers updates
[ -e info/format ] || echo 1 > info/format
# Without this file dpkg takes the database for one from before there were triggers, and runs them all.
[ -e triggers/Unincorp ] || : > triggers/Unincorp
[ -e arch ] || dpkg --print-architecture > arch
cat unpacked/* >> status
for package in unpacked/*; do
    package=${package#unpacked/}
    [ -e "info/$package.triggers" ] || continue
    while read -r word name; do
        case $word in
            interest | interest-await) line=$package ;;
            interest-noawait) line=$package/noawait ;;
            *) continue ;;
        esac
        case $name in
            /*) echo "$name $line" >> triggers/File ;;
            *) echo "$line" >> "triggers/$name" ;;
        esac
    done < "info/$package.triggers"
done

cd /
version=$(dpkg-query --version | sed -n 's/.* \([0-9][0-9.]*\) .*/\1/p')
arch=$(cat /var/lib/dpkg/arch)
for package in /var/lib/dpkg/unpacked/*; do
    package=${package##*/}
    [ -x "/var/lib/dpkg/info/$package.preinst" ] || continue
    echo "Preparing $package"
    # debconf learns from here whose script it is, and finds its questions.
    mkdir /var/lib/dpkg/tmp.ci
    for file in "/var/lib/dpkg/info/$package."*; do
        cp "$file" "/var/lib/dpkg/tmp.ci/${file#"/var/lib/dpkg/info/$package."}"
    done
    cp "/var/lib/dpkg/unpacked/$package" /var/lib/dpkg/tmp.ci/control
    DPKG_MAINTSCRIPT_NAME=preinst DPKG_MAINTSCRIPT_PACKAGE=${package%:*} DPKG_MAINTSCRIPT_ARCH=$arch \
        DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT=1 DPKG_RUNNING_VERSION=$version DPKG_ADMINDIR=/var/lib/dpkg DPKG_ROOT= \
        DPKG_HOOK_ACTION=unpack /var/lib/dpkg/tmp.ci/preinst install
    rm -r /var/lib/dpkg/tmp.ci
done
for told in $told; do
    dpkg-trigger --by-package="${told%%=*}" --no-await "${told#*=}"
done

# Scripts of essential packages use each other without a dependency; users and the first files come first.
if [ -n "$fresh" ]; then
    for package in base-passwd base-files; do
        [ ! -e /var/lib/dpkg/unpacked/$package ] || dpkg --force-depends --configure $package
    done
fi
rm -r /var/lib/dpkg/unpacked
dpkg --configure --pending
left=$(dpkg --audit)
if [ -n "$left" ]; then
    echo "$left" >&2
    exit 1
fi

# What is of one moment and one machine.
[ -z "$policy" ] || rm -f $policy
rm -f /var/cache/apt/*.bin /var/cache/debconf/*-old /var/cache/ldconfig/aux-cache /var/lib/dpkg/*-old \
    /var/lib/dpkg/lock /var/lib/dpkg/lock-frontend /var/lib/dpkg/triggers/Lock  \
    /var/lib/systemd/random-seed /var/lib/systemd/catalog/database /var/lib/dbus/machine-id \
    /etc/.pwd.lock /etc/passwd- /etc/group- /etc/shadow- /etc/gshadow- /etc/subuid- /etc/subgid-
find /var/log /var/cache/man /var/cache/fontconfig -type f -size +0 -delete 2> /dev/null || true
[ ! -e /etc/machine-id ] || : > /etc/machine-id
