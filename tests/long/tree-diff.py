#!/usr/bin/env python3
"""Compares two file trees in tar archives entry by entry: kind, mode, owner, link, content; not times.

Usage: tree-diff.py OURS.tar THEIRS.tar  - one line a difference, `-` only ours, `+` only theirs, `~` different.
"""
import hashlib
import sys
import tarfile


def entries(path):
    found = {}
    with tarfile.open(path) as archive:
        for member in archive:
            name = "/" + member.name.removeprefix("./").strip("/")
            owner = f"{member.uid}:{member.gid}"
            if member.isdir():
                entry = ("dir", f"{member.mode:04o}", owner, "")
            elif member.issym():
                entry = ("symlink", "", owner, member.linkname)
            elif member.islnk():
                entry = found.get("/" + member.linkname.removeprefix("./"), ("link", "", "", ""))
            elif member.isfile():
                data = archive.extractfile(member).read()
                entry = ("file", f"{member.mode:04o}", owner, hashlib.sha256(data).hexdigest()[:16])
            else:
                entry = ("special", f"{member.mode:04o}", owner, f"{member.devmajor}:{member.devminor}")
            found[name] = entry
    return found


def main():
    ours, theirs = entries(sys.argv[1]), entries(sys.argv[2])
    for name in sorted(ours.keys() | theirs.keys()):
        mine, other = ours.get(name), theirs.get(name)
        if other is None:
            print("-", name, *mine)
        elif mine is None:
            print("+", name, *other)
        elif mine != other:
            print("~", name, *(f"{a}|{b}" for a, b in zip(mine, other) if a != b))
    print(f"{len(ours.keys() & theirs.keys())} paths in both", file=sys.stderr)


main()
