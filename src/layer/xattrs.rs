//! Which extended attributes belong to a layer, and how they look in a manifest and on disk.
//!
//! Kept are `user.*`, file capabilities and POSIX access lists; everything else (labels of security modules,
//! `trusted.*`, overlayfs's own notes) describes the machine and not the layer. `user.overlay.*` is never part
//! of a layer, also not in the escaped form `user.overlay.overlay.*` in which newer kernels store what a step
//! calls `user.overlay.*`: older kernels do not escape, and such a name in a layer would change the meaning
//! of the directory it is on. Neither is `user.isolith.*`, where owners are recorded.
//!
//! In a manifest, capabilities have version 2 (without the root id that the kernel adds inside a user
//! namespace) and access lists have guest ids. Formats: `linux/capability.h` (`vfs_cap_data`,
//! `vfs_ns_cap_data`) and `linux/posix_acl_xattr.h`.

use super::IdShift;

/// Name of the attribute with a file's capabilities.
pub const CAPABILITY: &[u8] = b"security.capability";
/// Names of the attributes with POSIX access lists.
const ACLS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];

const CAP_REVISION: u32 = 0xFF00_0000;
const CAP_EFFECTIVE: u32 = 1;
const CAP_V1: u32 = 0x0100_0000;
const CAP_V2: u32 = 0x0200_0000;
const CAP_V3: u32 = 0x0300_0000;

const ACL_VERSION: u32 = 2;
const ACL_USER: u16 = 0x02;
const ACL_GROUP: u16 = 0x08;
/// The id of entries that need none.
const ACL_NO_ID: u32 = u32::MAX;

/// The form of an attribute in a manifest, from the one on disk. None when it is not part of a layer or has
/// a malformed value.
pub fn from_disk(name: &[u8], value: &[u8], ids: IdShift) -> Option<(Vec<u8>, Vec<u8>)> {
    let value = match name {
        CAPABILITY => capability_v2(value)?,
        name if ACLS.contains(&name) => shift_acl(value, |id| ids.to_guest(id))?,
        name if is_user(name) => value.to_vec(),
        _ => return None,
    };
    Some((name.to_vec(), value))
}

/// The value to write to disk for an attribute of a manifest. None when it cannot be part of a layer, or names
/// users or groups that have no ids on disk.
pub fn to_disk(name: &[u8], value: &[u8], ids: IdShift) -> Option<Vec<u8>> {
    match name {
        CAPABILITY => {
            let mut value = capability_v2(value)?;
            if ids.offset != 0 {
                let flags = u32_at(&value, 0)? & !CAP_REVISION;
                value[..4].copy_from_slice(&(CAP_V3 | flags).to_le_bytes());
                value.extend_from_slice(&ids.offset.to_le_bytes());
            }
            Some(value)
        }
        name if ACLS.contains(&name) => {
            shift_acl(value, |id| ids.to_disk(id).filter(|_| id == 0 || !ids.recorded))
        }
        name if is_user(name) => Some(value.to_vec()),
        _ => None,
    }
}

/// The form of an attribute in a manifest, from one that already speaks of guest ids (in an archive).
pub fn from_guest(name: &[u8], value: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    from_disk(name, value, IdShift::by(0))
}

fn is_user(name: &[u8]) -> bool {
    let own = name.starts_with(b"user.overlay.") || name.starts_with(super::owners::PREFIX);
    name.len() > b"user.".len() && name.starts_with(b"user.") && !own
}

/// Capabilities of any version as version 2: the 32-bit halves of version 1 get zero upper halves, the root
/// id of version 3 goes.
fn capability_v2(value: &[u8]) -> Option<Vec<u8>> {
    let magic = u32_at(value, 0)?;
    let sets = match (magic & CAP_REVISION, value.len()) {
        (CAP_V1, 12) => [&value[4..], &[0; 8]].concat(),
        (CAP_V2, 20) | (CAP_V3, 24) => value[4..20].to_vec(),
        _ => return None,
    };
    Some([&(CAP_V2 | (magic & CAP_EFFECTIVE)).to_le_bytes()[..], &sets].concat())
}

/// An access list with every named user and group replaced by `shift` of it.
fn shift_acl(value: &[u8], shift: impl Fn(u32) -> Option<u32>) -> Option<Vec<u8>> {
    let (version, entries) = value.split_at_checked(4)?;
    if u32_at(version, 0)? != ACL_VERSION || entries.is_empty() || entries.len() % 8 != 0 {
        return None;
    }
    let mut out = version.to_vec();
    for entry in entries.chunks_exact(8) {
        let tag = u16::from_le_bytes([entry[0], entry[1]]);
        let id = match tag {
            ACL_USER | ACL_GROUP => shift(u32_at(entry, 4)?)?,
            // owner, owning group, mask, others
            0x01 | 0x04 | 0x10 | 0x20 => ACL_NO_ID,
            _ => return None,
        };
        out.extend_from_slice(&entry[..4]);
        out.extend_from_slice(&id.to_le_bytes());
    }
    Some(out)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: IdShift = IdShift::by(100_000);

    fn cap(magic: u32, sets: &[u32]) -> Vec<u8> {
        [magic].iter().chain(sets).flat_map(|word| word.to_le_bytes()).collect()
    }

    fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut out = 2u32.to_le_bytes().to_vec();
        for (tag, perm, id) in entries {
            out.extend([tag.to_le_bytes(), perm.to_le_bytes()].concat());
            out.extend(id.to_le_bytes());
        }
        out
    }

    #[test]
    fn every_capability_version_becomes_version_2() {
        let v2 = cap(CAP_V2 | 1, &[0x400, 0, 0, 0]);
        for disk in [cap(CAP_V1 | 1, &[0x400, 0]), v2.clone(), cap(CAP_V3 | 1, &[0x400, 0, 0, 0, 100_000])] {
            assert_eq!(from_disk(CAPABILITY, &disk, IDS), Some((CAPABILITY.to_vec(), v2.clone())));
        }
        assert_eq!(to_disk(CAPABILITY, &v2, IDS), Some(cap(CAP_V3 | 1, &[0x400, 0, 0, 0, 100_000])));
        assert_eq!(to_disk(CAPABILITY, &v2, IdShift::by(0)), Some(v2.clone()));
        assert_eq!(from_disk(CAPABILITY, &v2[..19], IDS), None);
        assert_eq!(from_disk(CAPABILITY, &cap(0x0400_0000, &[0; 4]), IDS), None);
    }

    #[test]
    fn access_lists_carry_guest_ids_in_manifests() {
        let name = ACLS[0];
        let guest =
            acl(&[(1, 6, ACL_NO_ID), (2, 4, 7), (4, 4, ACL_NO_ID), (8, 5, 65535), (0x20, 0, ACL_NO_ID)]);
        let disk = acl(&[
            (1, 6, ACL_NO_ID),
            (2, 4, 100_007),
            (4, 4, ACL_NO_ID),
            (8, 5, 165_535),
            (0x20, 0, ACL_NO_ID),
        ]);
        assert_eq!(from_disk(name, &disk, IDS), Some((name.to_vec(), guest.clone())));
        assert_eq!(to_disk(name, &guest, IDS), Some(disk.clone()));
        for bad in [&disk[..disk.len() - 1], &disk[..4], b"", &acl(&[(2, 4, 7)]), &acl(&[(3, 4, 0)])] {
            assert_eq!(from_disk(name, bad, IDS), None, "{bad:?}");
        }
    }

    #[test]
    fn only_what_belongs_to_a_layer_is_kept() {
        assert_eq!(from_disk(b"user.a", b"\0x", IDS), Some((b"user.a".to_vec(), b"\0x".to_vec())));
        for name in [
            "user.",
            "user.overlay.opaque",
            "user.overlay.overlay.x",
            "user.isolith.owner",
            "trusted.a",
            "security.selinux",
        ] {
            assert_eq!(from_disk(name.as_bytes(), b"v", IDS), None, "{name}");
            assert_eq!(to_disk(name.as_bytes(), b"v", IDS), None, "{name}");
        }
    }
}
