//! Commit: an upper directory becomes a layer's file tree, in place.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::AtomicBool;

use rayon::prelude::*;
use rustix::fs::AtFlags;

use super::below::Below;
use super::canonical::{self, Node};
use super::content::NEVER;
use super::owners::Recorded;
use super::walk::{Walk, failed};
use super::{Entry, IdShift, Kind, Manifest, View, disk};
use crate::error::{Error, Result};

/// Gives the empty upper directory of a step the attributes and time of the root directory below: overlayfs
/// shows the upper one's, so without this a step would see another root than the layers have, and
/// [`commit`] would find it changed. Where no layer has a root, it is plain and `epoch` is its time.
pub fn prepare_upper(upper: &Path, below: &View, epoch: i64, ids: IdShift) -> Result<()> {
    let plain = Entry::plain_root(epoch);
    let root = Below::root(below).node().unwrap_or(&plain);
    disk::open_root(upper)
        .and_then(|dir| disk::dress(dir.as_fd(), root, ids))
        .map_err(|why| Error::io("set owner, mode and time of", upper, why))
}

/// Brings the upper directory of a step that has ended into canonical form, in place, and describes it.
///
/// `below` are the layers the step ran on (the directory has come from [`prepare_upper`]); `epoch` is the time that everything gets, in seconds since 1970.
/// Afterwards the directory and the manifest describe the same tree: the smallest difference to `below`
/// that shows the step's result (docs/design/layers.md). Entries that equal what lies below are removed; opaque
/// directories are replaced by whiteouts of what they hid; all names of a hard-linked file stay if one does.
/// Whether a file shares its inode with another one is not compared with what lies below.
///
/// Sockets are removed: they end with the process that listened. A device is an error, and so is an owner
/// that is none of the sandbox's ids. After an error the directory is in between and of no further use.
pub fn commit(upper: &Path, below: &View, epoch: i64, ids: IdShift) -> Result<Manifest> {
    commit_unless(&NEVER, upper, below, epoch, ids)
}

/// [`commit`], which is an error soon after `stop` is set: hashing what a step wrote may take long.
pub fn commit_unless(
    stop: &AtomicBool,
    upper: &Path,
    below: &View,
    epoch: i64,
    ids: IdShift,
) -> Result<Manifest> {
    let open = || disk::open_root(upper).map_err(|why| Error::io("open", upper, why));
    let root = open()?;
    let recorded = match ids.recorded {
        true => Recorded::read(upper).map_err(|why| Error::io("read the owners beside", upper, why))?,
        false => Recorded::default(),
    };
    let walk = Walk { times: disk::times(epoch), ids, root: Below::root(below), recorded, stop };
    let mut nodes = walk.nodes(open()?)?;
    canonical::complete(&mut nodes);
    for node in nodes.iter().rev().filter(|node| !node.kept && !node.entry.path.is_root()) {
        remove(root.as_fd(), node).map_err(|why| failed("remove the unchanged", &node.entry.path, why))?;
    }
    nodes.retain(|node| node.kept);
    nodes.par_iter().filter(|node| matches!(node.entry.kind, Kind::Dir { .. })).try_for_each(|node| {
        let path = node.entry.path.as_relative();
        rustix::fs::utimensat(&root, path, &walk.times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|why| failed("set the time of", &node.entry.path, why.into()))
    })?;
    let time = rustix::fs::fstat(&root).map(|stat| stat.st_mtime);
    if !nodes.is_empty() && time != Ok(epoch) {
        return Err(Error::io("set the time of", upper, disk::wrong_time(epoch))
            .hint("choose another epoch, or put the store on another file system"));
    }
    canonical::manifest(nodes)
        .map_err(|why| Error::machine("what the step wrote cannot be a layer").because(why))
}

fn remove(root: BorrowedFd, node: &Node) -> io::Result<()> {
    let flags = match node.entry.kind {
        Kind::Dir { .. } => AtFlags::REMOVEDIR,
        _ => AtFlags::empty(),
    };
    Ok(rustix::fs::unlinkat(root, node.entry.path.as_relative(), flags)?)
}
