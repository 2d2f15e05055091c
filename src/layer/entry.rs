//! One path of a layer.

use std::collections::BTreeMap;

use super::manifest::ManifestError;
use super::xattrs;
use crate::digest::ContentDigest;
use crate::path::GuestPath;

/// Extended attributes, sorted by name.
pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// One path of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it is; the root directory is an entry like any other.
    pub path: GuestPath,
    /// Permission bits with setuid, setgid and sticky: 12 bits. 0 for symlinks (which have none that
    /// count), hard links and whiteouts.
    pub mode: u16,
    /// Owner inside the sandbox; 0 for hard links and whiteouts.
    pub uid: u32,
    /// Group inside the sandbox; 0 for hard links and whiteouts.
    pub gid: u32,
    /// Modification time in whole seconds since 1970; 0 for hard links and whiteouts.
    pub mtime: i64,
    /// Extended attributes in the normal form of [`xattrs`], of files, directories and (without `user.*`)
    /// fifos. Empty for all other kinds.
    pub xattrs: Xattrs,
    /// What it is.
    pub kind: Kind,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File {
        /// Length in bytes.
        size: u64,
        /// Plain BLAKE3 of the content.
        digest: ContentDigest,
    },
    /// A directory. An opaque one hides everything that lower layers have below it; the root never is.
    Dir {
        /// Whether lower layers end here.
        opaque: bool,
    },
    /// A symbolic link.
    Symlink {
        /// Its target, any bytes.
        target: Vec<u8>,
    },
    /// A named pipe.
    Fifo,
    /// Another name of a file, symlink, fifo or device that the same layer has at an earlier path.
    HardLink {
        /// The earlier path; itself never a hard link.
        target: GuestPath,
    },
    /// The path is gone: what lower layers have there, and below it, is hidden.
    Whiteout,
    /// A character device, only in imported layers; never 0:0, which on disk is a whiteout.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device, only in imported layers.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

impl Entry {
    /// The root directory where no layer has one: 0755, owner 0:0.
    pub(super) fn plain_root(mtime: i64) -> Entry {
        let (path, kind) = (GuestPath::root(), Kind::Dir { opaque: false });
        Entry { path, mode: 0o755, uid: 0, gid: 0, mtime, xattrs: Xattrs::new(), kind }
    }

    /// Checks what can be seen from this entry alone.
    pub(super) fn check(&self) -> Result<(), ManifestError> {
        let wrong = |field| Err(ManifestError::Field(self.path.clone(), field));
        if self.path.name().len() > 255 {
            return Err(ManifestError::Path(self.path.to_string()));
        }
        let bare = matches!(self.kind, Kind::HardLink { .. } | Kind::Whiteout);
        if self.mode > 0o7777 || (self.mode != 0 && (bare || matches!(self.kind, Kind::Symlink { .. }))) {
            return wrong("mode");
        }
        if bare && (self.uid, self.gid, self.mtime) != (0, 0, 0) {
            return wrong("owner or time");
        }
        if bare && !self.xattrs.is_empty() {
            return wrong("extended attribute");
        }
        let canonical = |(name, value): (&Vec<u8>, &Vec<u8>)| {
            let sizes = name.len() <= 255 && !name.contains(&0) && value.len() <= 65536;
            sizes
                && self.kind.carries(name)
                && xattrs::from_guest(name, value).is_some_and(|(_, form)| form == *value)
        };
        if !self.xattrs.iter().all(canonical) {
            return wrong("extended attribute");
        }
        match &self.kind {
            Kind::Symlink { target } if target.is_empty() || target.len() > 4095 || target.contains(&0) => {
                wrong("link target")
            }
            Kind::CharDevice { major: 0, minor: 0 } => wrong("device number"),
            _ => Ok(()),
        }
    }
}

impl Kind {
    /// What it is, in a word or two.
    pub fn word(&self) -> &'static str {
        match self {
            Kind::File { .. } => "file",
            Kind::Dir { .. } => "directory",
            Kind::Symlink { .. } => "symlink",
            Kind::Fifo => "fifo",
            Kind::HardLink { .. } => "hard link",
            Kind::Whiteout => "whiteout",
            Kind::CharDevice { .. } => "character device",
            Kind::BlockDevice { .. } => "block device",
        }
    }

    /// Whether the kernel lets an entry of this kind have the extended attribute (xattr(7)).
    pub(super) fn carries(&self, name: &[u8]) -> bool {
        match self {
            Kind::File { .. } => name != b"system.posix_acl_default",
            Kind::Dir { .. } => true,
            Kind::Fifo => !name.starts_with(b"user.") && name != b"system.posix_acl_default",
            _ => false,
        }
    }
}
