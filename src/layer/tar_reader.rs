//! Reads a tar archive member by member: ustar, pax and GNU long names.
//!
//! The `tar` crate's own iteration splits pax records at newlines, which binary attribute values and strange
//! names have in them; so only its header is used here.

use std::io::{self, Read};

use tar::{EntryType, Header};

use super::{Xattrs, pax};

const BLOCK: usize = 512;
/// The largest extended header or long name that makes sense: all attributes a file can have, twice.
const MAX_EXTENDED: u64 = 1024 * 1024;

/// The most that all extended headers in front of one member may have.
const MAX_BEFORE_MEMBER: u64 = 4 * MAX_EXTENDED;
/// The most that all global headers of an archive may have: each member starts from a copy of them.
const MAX_GLOBAL: u64 = 64 * 1024;

/// One member of an archive.
pub(super) struct Member {
    /// Its name, as it stands there.
    pub path: Vec<u8>,
    /// Where it links to; empty when it does not.
    pub link: Vec<u8>,
    /// What it is.
    pub kind: EntryType,
    /// Permission bits.
    pub mode: u16,
    /// Numeric owner.
    pub uid: u64,
    /// Numeric group.
    pub gid: u64,
    /// Modification time, rounded down to whole seconds since 1970.
    pub mtime: i64,
    /// Length of the data that follows.
    pub size: u64,
    /// Extended attributes as they stand there.
    pub xattrs: Xattrs,
    /// Device number.
    pub device: (u32, u32),
}

/// An archive that is being read. Reading from it gives the data of the current member.
pub(super) struct TarReader<R> {
    input: R,
    /// Of the current member: bytes of data left, and of padding after them.
    data: u64,
    padding: u64,
    global: Vec<(Vec<u8>, Vec<u8>)>,
    global_bytes: u64,
}

impl<R: Read> TarReader<R> {
    /// Starts at the first member.
    pub fn new(input: R) -> Self {
        Self { input, data: 0, padding: 0, global: Vec::new(), global_bytes: 0 }
    }

    /// Goes on to the next member; none at the end of the archive, where the input is read to its end so
    /// that a decompressor gets to check its sums.
    pub fn next(&mut self) -> io::Result<Option<Member>> {
        let mut records = self.global.clone();
        let (mut long_path, mut long_link) = (None, None);
        let mut before = 0;
        loop {
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            self.set_size(number(&header.as_old().size)?.try_into().map_err(|_| invalid("a negative size"))?);
            if header.entry_type() == EntryType::XGlobalHeader {
                self.global_bytes += self.data;
            }
            if is_extended(header.entry_type()) {
                before += self.data;
                if before > MAX_BEFORE_MEMBER || self.global_bytes > MAX_GLOBAL {
                    return Err(invalid("too many extended headers"));
                }
            }
            match header.entry_type() {
                EntryType::XGlobalHeader => {
                    let global = self.records()?;
                    records.extend_from_slice(&global);
                    self.global.extend(global);
                }
                EntryType::XHeader => records.extend(self.records()?),
                EntryType::GNULongName => long_path = Some(self.long_name()?),
                EntryType::GNULongLink => long_link = Some(self.long_name()?),
                _ => return self.member(&header, records, long_path, long_link).map(Some),
            }
        }
    }

    fn member(
        &mut self,
        header: &Header,
        records: Vec<(Vec<u8>, Vec<u8>)>,
        long_path: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> io::Result<Member> {
        let old = header.as_old();
        let id = |field| u64::try_from(number(field)?).map_err(|_| invalid("a negative owner"));
        let mut member = Member {
            path: long_path.unwrap_or_else(|| header.path_bytes().into_owned()),
            link: long_link
                .unwrap_or_else(|| header.link_name_bytes().map_or(Vec::new(), |link| link.into_owned())),
            kind: header.entry_type(),
            mode: (number(&old.mode)? & 0o7777) as u16,
            uid: id(&old.uid)?,
            gid: id(&old.gid)?,
            mtime: number(&old.mtime)?,
            size: self.data,
            xattrs: Xattrs::new(),
            device: (0, 0),
        };
        if matches!(member.kind, EntryType::Char | EntryType::Block) {
            // The same fields in ustar and GNU headers.
            let part = |at: usize| {
                let value = number(&header.as_bytes()[at..at + 8])?;
                u32::try_from(value).map_err(|_| invalid("a wrong device number"))
            };
            member.device = (part(329)?, part(337)?);
        }
        for (key, value) in records {
            member.apply(&key, value)?;
        }
        // Before pax, old archives told directories by a slash at the end.
        if member.kind == EntryType::Regular && member.path.ends_with(b"/") {
            member.kind = EntryType::Directory;
        }
        self.set_size(if has_no_data(member.kind) { 0 } else { member.size });
        Ok(member)
    }

    /// The next header that is not empty.
    fn header(&mut self) -> io::Result<Option<Header>> {
        let skip = self.data + self.padding;
        if io::copy(&mut (&mut self.input).take(skip), &mut io::sink())? != skip {
            return Err(cut_off());
        }
        let mut header = Header::new_old();
        let block = header.as_mut_bytes();
        self.input.read_exact(block).map_err(|why| match why.kind() {
            io::ErrorKind::UnexpectedEof => cut_off(),
            _ => why,
        })?;
        if block.iter().all(|b| *b == 0) {
            io::copy(&mut self.input, &mut io::sink())?;
            return Ok(None);
        }
        // The sum of all bytes, its own field taken as spaces. Some old archives add signed bytes.
        let sum = |byte: fn(u8) -> i64| -> i64 {
            let bytes = block.iter().enumerate();
            bytes.map(|(at, b)| if (148..156).contains(&at) { 32 } else { byte(*b) }).sum()
        };
        let sums = [sum(i64::from), sum(|b| i64::from(b as i8))];
        match number(&header.as_old().cksum) {
            Ok(stated) if sums.contains(&stated) => Ok(Some(header)),
            _ => Err(invalid("a block that is no tar header")),
        }
    }

    fn set_size(&mut self, size: u64) {
        self.data = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    fn extended(&mut self) -> io::Result<Vec<u8>> {
        if self.data > MAX_EXTENDED {
            return Err(invalid("an extended header of more than 1 MiB"));
        }
        let mut data = Vec::new();
        let size = self.data;
        self.read_to_end(&mut data)?;
        if data.len() as u64 == size { Ok(data) } else { Err(cut_off()) }
    }

    fn records(&mut self) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        pax::parse(&self.extended()?).ok_or_else(|| invalid("a malformed extended header"))
    }

    fn long_name(&mut self) -> io::Result<Vec<u8>> {
        let mut name = self.extended()?;
        name.truncate(name.iter().position(|b| *b == 0).unwrap_or(name.len()));
        Ok(name)
    }
}

impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = (&mut self.input).take(self.data).read(buffer)?;
        if n == 0 && self.data > 0 && !buffer.is_empty() {
            return Err(cut_off());
        }
        self.data -= n as u64;
        Ok(n)
    }
}

impl Member {
    /// Lets a pax record override what the header says.
    fn apply(&mut self, key: &[u8], value: Vec<u8>) -> io::Result<()> {
        let text = || std::str::from_utf8(&value).map_err(|_| invalid("a malformed extended header"));
        let natural = || match text()?.parse() {
            Ok(number) if number <= i64::MAX as u64 => Ok(number),
            _ => Err(invalid("a malformed extended header")),
        };
        match key {
            pax::PATH => self.path = value,
            pax::LINKPATH => self.link = value,
            pax::SIZE => self.size = natural()?,
            b"uid" => self.uid = natural()?,
            b"gid" => self.gid = natural()?,
            pax::MTIME => self.mtime = floor(text()?).ok_or_else(|| invalid("a malformed time"))?,
            key => {
                if let Some(name) = key.strip_prefix(pax::XATTR) {
                    self.xattrs.insert(name.to_vec(), value);
                }
                if key.starts_with(b"GNU.sparse.") {
                    self.kind = EntryType::GNUSparse;
                }
            }
        }
        Ok(())
    }
}

fn is_extended(kind: EntryType) -> bool {
    use EntryType::{GNULongLink, GNULongName, XGlobalHeader, XHeader};
    matches!(kind, XGlobalHeader | XHeader | GNULongName | GNULongLink)
}

/// Members of these kinds have no data, whatever their size field says (as GNU tar and Go read them).
fn has_no_data(kind: EntryType) -> bool {
    use EntryType::{Block, Char, Directory, Fifo, Link, Symlink};
    matches!(kind, Block | Char | Directory | Fifo | Link | Symlink)
}

/// A decimal number with an optional sign and fraction, rounded down.
fn floor(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let down = whole.starts_with('-') && fraction.bytes().any(|b| b != b'0');
    whole.parse::<i64>().ok()?.checked_sub(i64::from(down))
}

/// A numeric field: octal digits between spaces and NULs, or (GNU) big-endian two's complement with the
/// first bit set. An empty field is 0.
fn number(field: &[u8]) -> io::Result<i64> {
    if field[0] & 0x80 != 0 {
        // Bit 6 is the sign; what does not fit 64 bits has to repeat it.
        let negative = field[0] & 0x40 != 0;
        let (mut value, fill) = if negative { (-1, 0xff) } else { (0, 0) };
        for (at, byte) in field.iter().enumerate() {
            let byte = if at == 0 && !negative { byte & 0x7f } else { *byte };
            if at + 8 < field.len() && byte != fill {
                return Err(invalid("a number that is too large"));
            }
            value = (value << 8) | i64::from(byte);
        }
        return Ok(value);
    }
    let digits = field.split(|b| *b == 0).next().unwrap_or(&[]).trim_ascii();
    let mut value: i64 = 0;
    for digit in digits {
        match digit {
            b'0'..=b'7' => value = value * 8 + i64::from(digit - b'0'),
            _ => return Err(invalid("a header with a malformed number")),
        }
    }
    Ok(value)
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("it has {what}"))
}

fn cut_off() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "it is cut off")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(number(b"0000644\0").unwrap(), 0o644);
        assert_eq!(number(b"   644 \0").unwrap(), 0o644);
        assert_eq!(number(b"\0\0\0\0\0\0\0\0").unwrap(), 0);
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 1, 0, 0]).unwrap(), 65536);
        assert_eq!(number(&[0xff; 12]).unwrap(), -1);
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0]).unwrap(), 8 << 30);
        assert!(number(&[0x80, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0]).is_err());
        assert!(number(b"00009\0").is_err());
    }

    #[test]
    fn times_round_down() {
        for (text, seconds) in
            [("1", 1), ("1.999", 1), ("-1", -1), ("-1.5", -2), ("-0.5", -1), ("-2.000", -2)]
        {
            assert_eq!(floor(text), Some(seconds), "{text}");
        }
        assert_eq!(floor("1.x"), None);
        assert_eq!(floor(""), None);
    }
}
