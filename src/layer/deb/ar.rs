//! The outer container of a package: an `ar` archive (ar(5)) with members in a fixed order (deb(5)).

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Take};

const MAGIC: &[u8] = b"!<arch>\n";
const HEADER: usize = 60;

/// An archive that is read from its start to its end.
pub(super) struct Archive {
    file: File,
    /// Where the next header is.
    next: u64,
    /// Length of the file.
    len: u64,
}

/// One member.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Member {
    /// Its name, without padding.
    pub name: String,
    at: u64,
    size: u64,
}

impl Archive {
    /// Checks that `file` is an archive.
    pub fn new(mut file: File) -> io::Result<Archive> {
        let len = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(0))?;
        let mut magic = [0; MAGIC.len()];
        match file.read_exact(&mut magic) {
            Ok(()) if magic == MAGIC => Ok(Archive { file, next: MAGIC.len() as u64, len }),
            Err(why) if why.kind() != io::ErrorKind::UnexpectedEof => Err(why),
            _ => Err(invalid("it is not an ar archive")),
        }
    }

    /// The next member; none at the end.
    pub fn next(&mut self) -> io::Result<Option<Member>> {
        if self.next >= self.len {
            return Ok(None);
        }
        let mut header = [0; HEADER];
        self.file.seek(SeekFrom::Start(self.next))?;
        self.file.read_exact(&mut header).map_err(|why| match why.kind() {
            io::ErrorKind::UnexpectedEof => invalid("it is cut off"),
            _ => why,
        })?;
        let text =
            |from: usize, to: usize| std::str::from_utf8(&header[from..to]).unwrap_or("\u{fffd}").trim_end();
        let size = text(48, 58);
        let is_number = !size.is_empty() && size.bytes().all(|byte| byte.is_ascii_digit());
        let (size, true, b"`\n") = (size.parse::<u64>(), is_number, &header[58..60]) else {
            return Err(invalid("a member has a malformed header"));
        };
        let (at, size) = (self.next + HEADER as u64, size.map_err(io::Error::other)?);
        let end = at + size;
        if end > self.len {
            return Err(invalid("it is cut off"));
        }
        // Members begin at even places.
        self.next = end + end % 2;
        let name = text(0, 16);
        Ok(Some(Member { name: name.strip_suffix('/').unwrap_or(name).to_string(), at, size }))
    }

    /// The bytes of a member. It and the archive share one position: read one member at a time.
    pub fn open(&self, member: &Member) -> io::Result<Take<File>> {
        let mut file = self.file.try_clone()?;
        file.seek(SeekFrom::Start(member.at))?;
        Ok(file.take(member.size))
    }
}

/// The archive is not what it should be.
pub(super) fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
