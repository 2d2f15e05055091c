//! Cuts a layer's archive into pieces, and hands them out in handfuls.

use super::super::pack::{Member, Sink};
use crate::error::Result;

/// The most bytes that one piece has. A file larger than this is in several.
pub(super) const PIECE: usize = 4 << 20;
/// The bytes of each piece but the last when files do not matter.
const EVEN: usize = 1 << 20;
/// Small pieces are handed out together until they have so many bytes.
const HANDFUL: usize = 1 << 20;

/// Where an archive is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// At the beginning and the end of each file, and after each [`PIECE`] of one.
    AtFiles,
    /// Into pieces of one size.
    Evenly,
}

/// What a piece has in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Headers, padding, and the end of the archive.
    Between,
    /// A part of a file: the first or a later one, and whether it is all of it.
    File { first: bool, whole: bool },
}

/// A run of bytes of the archive.
pub(super) struct Piece {
    pub part: Part,
    pub bytes: Vec<u8>,
    /// The members whose headers end in it, and where; without their blocks.
    pub members: Vec<(usize, Member)>,
}

/// Takes pieces, in order.
pub(super) type Take<'a> = dyn FnMut(Vec<Piece>) -> Result<()> + 'a;

/// Cuts an archive.
pub(super) struct Cutter<'a> {
    cut: Cut,
    to: &'a mut Take<'a>,
    pieces: Vec<Piece>,
    held: usize,
    open: Vec<u8>,
    members: Vec<(usize, Member)>,
    part: Part,
    /// Bytes of the current file that have not come yet.
    left: u64,
}

impl<'a> Cutter<'a> {
    pub fn new(cut: Cut, to: &'a mut Take<'a>) -> Self {
        Self {
            cut,
            to,
            pieces: Vec::new(),
            held: 0,
            open: Vec::new(),
            members: Vec::new(),
            part: Part::Between,
            left: 0,
        }
    }

    /// Hands out what is left.
    pub fn finish(mut self) -> Result<()> {
        self.close()?;
        self.hand_out()
    }

    fn close(&mut self) -> Result<()> {
        if !self.open.is_empty() {
            let bytes = std::mem::take(&mut self.open);
            self.held += bytes.len();
            let members = std::mem::take(&mut self.members);
            self.pieces.push(Piece { part: self.part, bytes, members });
            if self.held >= HANDFUL {
                self.hand_out()?;
            }
        }
        Ok(())
    }

    fn hand_out(&mut self) -> Result<()> {
        self.held = 0;
        match std::mem::take(&mut self.pieces) {
            pieces if pieces.is_empty() => Ok(()),
            pieces => (self.to)(pieces),
        }
    }

    fn put(&mut self, mut bytes: &[u8]) -> Result<()> {
        let full = if self.cut == Cut::Evenly { EVEN } else { PIECE };
        while !bytes.is_empty() {
            // A full piece is closed when more comes, so that what ends in it can still be noted.
            if self.open.len() == full {
                self.close()?;
                if let Part::File { first, .. } = &mut self.part {
                    *first = false;
                }
            }
            let (now, later) = bytes.split_at(bytes.len().min(full - self.open.len()));
            self.open.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }
}

impl Sink for Cutter<'_> {
    fn member(&mut self, mut member: Member) -> Result<()> {
        self.put(&std::mem::take(&mut member.blocks))?;
        self.left = member.size;
        if self.cut == Cut::AtFiles {
            self.members.push((self.open.len(), member));
        }
        if self.left > 0 && self.cut == Cut::AtFiles {
            self.close()?;
            self.part = Part::File { first: true, whole: self.left <= PIECE as u64 };
        }
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<()> {
        self.put(bytes)?;
        self.left -= bytes.len() as u64;
        if self.left == 0 && self.cut == Cut::AtFiles {
            self.close()?;
            self.part = Part::Between;
        }
        Ok(())
    }

    fn zeros(&mut self, bytes: &[u8]) -> Result<()> {
        self.put(bytes)
    }
}
