//! Archives of sources: tar and zip, told apart by their first bytes.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

use tar::EntryType;

use super::bounded::Bounded;
use super::decompress;
use super::extract::{Extract, say};
use super::grow::{Problem, refused};
use super::tar_reader::TarReader;
use crate::error::{Error, Result};

/// Unpacks an archive into `tree`: tar, plain or packed with gzip, xz, bzip2 or zstd, or zip.
///
/// # Errors
/// Devices, fifos and sparse files; names that are absolute, have a `..` in them or are there twice; what is below a
/// symlink; more than the limits allow; archives that are cut off, changed, or not archives at all.
pub fn extract(mut archive: File, tree: &mut Extract) -> Result<()> {
    let mut magic = Vec::new();
    let read = (&mut archive).take(4).read_to_end(&mut magic);
    read.and_then(|_| archive.seek(SeekFrom::Start(0))).map_err(malformed)?;
    if magic == b"PK\x03\x04" || magic == b"PK\x05\x06" { zip(archive, tree) } else { tar(archive, tree) }
}

fn malformed(why: io::Error) -> Error {
    Error::machine("cannot read the archive").because(why).hint(
        "it has to be tar (plain, or packed with gzip, xz, bzip2 or zstd) or zip; a file that is no archive is laid \
         in with `file` in place of `unpack`",
    )
}

fn tar(archive: File, tree: &mut Extract) -> Result<()> {
    let stream = decompress(archive)?;
    let bounded =
        Bounded::new(stream, tree.limits.archive_bytes(), "it unpacks to more than `unpack-max-size` allows");
    let mut archive = TarReader::new(BufReader::with_capacity(64 * 1024, bounded));
    while let Some(member) = archive.next().map_err(malformed)? {
        let name = &member.path;
        match member.kind {
            EntryType::Directory => tree.directory(name)?,
            EntryType::Regular | EntryType::Continuous => {
                tree.file(name, member.mode & 0o100 != 0, member.size, &mut archive)?;
            }
            EntryType::Symlink => tree.symlink(name, &member.link)?,
            EntryType::Link => tree.copy(name, &member.link)?,
            other => {
                let (kind, hint) = match other {
                    EntryType::Char | EntryType::Block => ("a device", "sources have no devices"),
                    EntryType::Fifo => ("a fifo", "sources have no fifos"),
                    EntryType::GNUSparse => ("sparse", "make the archive without --sparse"),
                    _ => ("of an unknown kind", "make the archive anew"),
                };
                let problem = refused::<()>(format!("it is {kind}"), hint);
                problem.map_err(|problem| say(problem, name))?;
            }
        }
    }
    Ok(())
}

const TYPE: u32 = 0o170_000;

fn zip(mut archive: File, tree: &mut Extract) -> Result<()> {
    let stated = stated_entries(&mut archive).map_err(malformed)?;
    if stated > tree.limits.entries {
        let why = format!("there are {stated} names, and {} are allowed", tree.limits.entries);
        return Err(malformed(io::Error::new(io::ErrorKind::InvalidData, why))
            .hint("if that is meant, raise `unpack-max-entries` in the configuration"));
    }
    let bad = |why: zip::result::ZipError| malformed(io::Error::other(why));
    let mut archive = zip::ZipArchive::new(BufReader::new(archive)).map_err(bad)?;
    if archive.len() as u64 != stated {
        let why = format!("{stated} names are stated and {} different ones are there", archive.len());
        return Err(malformed(io::Error::new(io::ErrorKind::InvalidData, why)));
    }
    for at in 0..archive.len() {
        let mut member = archive.by_index(at).map_err(bad)?;
        let name = member.name_raw().to_vec();
        let mode = member.unix_mode().unwrap_or_default();
        let size = member.size();
        let kind = match mode & TYPE {
            _ if name.ends_with(b"/") => 0o040_000,
            0 => 0o100_000,
            kind => kind,
        };
        match kind {
            0o040_000 => tree.directory(&name)?,
            0o100_000 => {
                tree.file(&name, mode & 0o100 != 0, size, &mut member)?;
                at_end(&mut member, &name)?;
            }
            0o120_000 => {
                let mut target = Vec::new();
                (&mut member).take(8192).read_to_end(&mut target).map_err(malformed)?;
                tree.symlink(&name, &target)?;
            }
            _ => {
                let problem = refused::<()>("it is a device or a fifo", "sources have none");
                problem.map_err(|problem| say(problem, &name))?;
            }
        }
    }
    Ok(())
}

/// Reads on to the end, which must be here; the checksum is looked at there.
fn at_end(member: &mut impl Read, name: &[u8]) -> Result<()> {
    let problem = match member.read(&mut [0; 1]) {
        Ok(0) => return Ok(()),
        Ok(_) => refused::<()>("it is longer than it says", "get the archive again"),
        Err(why) => Err(Problem::Failed("read the data", why)),
    };
    problem.map_err(|problem| say(problem, name))
}

/// How many names the end of a zip archive says there are (APPNOTE.TXT, 4.3.14 and 4.3.16).
fn stated_entries(archive: &mut File) -> io::Result<u64> {
    let none = || io::Error::new(io::ErrorKind::InvalidData, "the end of the zip archive is missing");
    let len = archive.seek(SeekFrom::End(0))?;
    let start = len.saturating_sub(22 + 65_535 + 20);
    archive.seek(SeekFrom::Start(start))?;
    let mut tail = Vec::new();
    archive.read_to_end(&mut tail)?;
    archive.seek(SeekFrom::Start(0))?;
    let number = |at: usize, bytes: usize| -> Option<u64> {
        let field = tail.get(at..at + bytes)?;
        Some(field.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    };
    let end = tail.windows(4).rposition(|bytes| bytes == b"PK\x05\x06").ok_or_else(none)?;
    let count = number(end + 10, 2).ok_or_else(none)?;
    let locator = end.checked_sub(20).filter(|at| tail[*at..].starts_with(b"PK\x06\x07"));
    let Some(locator) = locator.filter(|_| count == 0xffff) else { return Ok(count) };
    let at =
        number(locator + 8, 8).and_then(|at| at.checked_sub(start)).and_then(|at| usize::try_from(at).ok());
    let at = at.filter(|at| tail.get(*at..).is_some_and(|rest| rest.starts_with(b"PK\x06\x06")));
    at.and_then(|at| number(at + 32, 8)).ok_or_else(none)
}
