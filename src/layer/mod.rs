//! Layers: the manifest, its canonical form, and the ways in and out of a file tree.

mod archive;
mod below;
mod bounded;
mod canonical;
mod codec;
mod commit;
mod compare;
mod content;
pub mod deb;
mod decompress;
mod disk;
mod entry;
mod extract;
mod flatten;
mod grow;
mod manifest;
mod merge;
#[cfg(test)]
mod mounted;
pub mod owners;
mod pack;
mod packed;
mod pax;
mod place;
mod settle;
mod tar_reader;
#[cfg(test)]
mod testing;
pub mod time;
mod traverse;
mod unpack;
mod verify;
mod view;
mod walk;
mod xattrs;

pub use archive::extract;
pub use commit::{commit, commit_unless, prepare_upper};
pub use compare::{Aspects, Change, Difference, compare};
pub use decompress::{decompress, is_compressed};
pub use entry::{Entry, Kind, Xattrs};
pub use extract::{Extract, Limits};
pub use flatten::{Source, Sources, flatten};
pub use manifest::{Children, Manifest, ManifestError};
pub use merge::{Conflict, Part, merge};
pub use owners::StackOwners;
pub use pack::pack;
pub use packed::{Compression, Packed, Ranges, Rebuilt, Table, packed, rebuild};
pub use place::{Owners, place};
pub use settle::settle;
pub use unpack::{unpack, unpack_layer};
pub use verify::{Damage, verify};
pub use view::{Found, View};
pub use xattrs::CAPABILITY;

/// How ids inside a sandbox relate to the ids that files on disk have for this process:
/// `disk = guest + offset`. Guest ids run from 0 to [`IdShift::MAX_GUEST`]. A process that has one id only
/// owns everything on disk, and guest ids are recorded beside it (see [`owners`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdShift {
    /// What is added to a guest id to get the id on disk.
    pub offset: u32,
    /// There is one id on disk: the offset, which stands for all guest ids.
    pub recorded: bool,
}

impl IdShift {
    /// The highest id a sandbox knows.
    pub const MAX_GUEST: u32 = 65535;

    /// Every guest id has an id on disk of its own.
    pub const fn by(offset: u32) -> Self {
        Self { offset, recorded: false }
    }

    /// There is only `id` on disk.
    pub const fn recorded(id: u32) -> Self {
        Self { offset: id, recorded: true }
    }

    /// The id on disk of a guest id; none when the sandbox has no such id.
    pub fn to_disk(self, guest: u32) -> Option<u32> {
        (guest <= Self::MAX_GUEST).then(|| if self.recorded { self.offset } else { guest + self.offset })
    }

    /// The guest id of an id on disk; none when no guest id maps there. What is recorded goes before.
    pub fn to_guest(self, disk: u32) -> Option<u32> {
        let most = if self.recorded { 0 } else { Self::MAX_GUEST };
        disk.checked_sub(self.offset).filter(|guest| *guest <= most)
    }
}
