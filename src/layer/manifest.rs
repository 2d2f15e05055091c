//! The canonical manifest of a layer: a sorted list of entries (DESIGN section 3, docs/format.md).

use std::collections::BTreeMap;

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
    /// Extended attributes (empty for hard links and whiteouts).
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
    /// A directory. An opaque one hides everything that lower layers have below it.
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
    /// A character device, only in imported layers.
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

/// A layer's entries, sorted by path bytes, each path once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Manifest {
    entries: Vec<Entry>,
}
