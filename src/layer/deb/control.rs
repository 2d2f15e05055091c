//! What a package says of itself: `control`, and the files beside it that dpkg keeps in its database.

use std::io::Read;

use tar::EntryType;

use super::super::tar_reader::TarReader;
use super::{Bounded, TOO_MUCH, refuse, unreadable};
use crate::error::Result;

/// The most that the control files of one package may have together; the largest of Debian have 10 MiB.
const MAX_BYTES: u64 = 48 << 20;
/// How many control files there may be.
const MAX_FILES: usize = 1000;

/// What a package says of itself.
#[derive(Debug)]
pub struct Control {
    /// Its name.
    pub name: String,
    /// Its version, with the epoch.
    pub version: String,
    /// Its own architecture, or `all`.
    pub arch: String,
    /// What the names of its files in dpkg's database begin with: its name, and for a package that several
    /// architectures can have at once `NAME:ARCH`.
    pub prefix: String,
    /// The fields of `control` as they stand there, each line with its end.
    pub(super) fields: String,
    /// When `control` was made, in seconds since 1970.
    pub(super) mtime: i64,
    /// All others.
    pub(super) files: Vec<ControlFile>,
}

/// A maintainer script, or a list of something.
#[derive(Debug)]
pub(super) struct ControlFile {
    pub name: String,
    pub mode: u16,
    pub mtime: i64,
    pub bytes: Vec<u8>,
}

/// A file of a package that belongs to the administrator once it is installed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Conffile {
    /// Absolute, as dpkg's database has it.
    pub path: String,
    /// It is not shipped any more, and goes with an upgrade (dpkg 1.20).
    pub leaves: bool,
}

impl Control {
    /// Reads `control.tar`.
    pub(super) fn read(stream: impl Read) -> Result<Control> {
        let mut archive = TarReader::new(Bounded::new(stream, MAX_BYTES, TOO_MUCH));
        let mut files: Vec<ControlFile> = Vec::new();
        while let Some(member) = archive.next().map_err(unreadable)? {
            let name = String::from_utf8_lossy(&member.path).into_owned();
            let name = name.trim_start_matches("./");
            match member.kind {
                EntryType::Directory if matches!(name, "" | ".") => continue,
                EntryType::Regular | EntryType::Continuous => {}
                _ => return Err(refuse(format!("its control file `{name}` is not a regular file"))),
            }
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_+".contains(&b);
            if name.is_empty() || name.len() > 100 || !name.bytes().all(plain) {
                return Err(refuse(format!("`{name}` cannot be the name of a control file")));
            }
            if files.len() == MAX_FILES || files.iter().any(|file| file.name == name) {
                return Err(refuse(format!("its control file `{name}` is one too many")));
            }
            let mut bytes = Vec::new();
            archive.read_to_end(&mut bytes).map_err(unreadable)?;
            let mode = if member.mode & 0o100 == 0 { 0o644 } else { 0o755 };
            files.push(ControlFile { name: name.to_string(), mode, mtime: member.mtime, bytes });
        }
        let control = files.iter().position(|file| file.name == "control");
        let control = files.swap_remove(control.ok_or_else(|| refuse("it has no control file"))?);
        let text = String::from_utf8(control.bytes).map_err(|_| refuse("its control file is not UTF-8"))?;
        Control::parse(&text, control.mtime, files)
    }

    fn parse(text: &str, mtime: i64, files: Vec<ControlFile>) -> Result<Control> {
        let (mut name, mut version, mut arch, mut same) = (None, None, None, false);
        let mut fields = String::new();
        for line in text.trim_end().lines() {
            let malformed = || refuse(format!("its control file has the line `{}`", line.escape_debug()));
            if line.contains('\0') || line.trim().is_empty() {
                return Err(malformed());
            }
            fields.push_str(line);
            fields.push('\n');
            if line.starts_with([' ', '\t']) && fields.len() > line.len() + 1 {
                continue;
            }
            let (field, value) = line.split_once(':').ok_or_else(malformed)?;
            let value = value.trim();
            match field.to_ascii_lowercase().as_str() {
                "package" => name = Some(value.to_string()),
                "version" => version = Some(value.to_string()),
                "architecture" => arch = Some(value.to_string()),
                "multi-arch" => same = value == "same",
                // These are what dpkg adds in its database.
                "status" | "conffiles" | "config-version" => return Err(malformed()),
                _ if field.is_empty() || field.contains([' ', '\t']) => return Err(malformed()),
                _ => {}
            }
        }
        let named = |value: Option<String>, field: &str| {
            let good = |b: u8| b.is_ascii_alphanumeric() || b"+-.:~".contains(&b);
            let value =
                value.filter(|value| !value.is_empty() && value.bytes().all(good) && !value.starts_with('.'));
            value.ok_or_else(|| refuse(format!("its control file has no proper `{field}`")))
        };
        let (name, version) = (named(name, "Package")?, named(version, "Version")?);
        let arch = named(arch, "Architecture")?;
        let prefix = if same { format!("{name}:{arch}") } else { name.clone() };
        Ok(Control { name, version, arch, prefix, fields, mtime, files })
    }

    /// The conffiles, in the order of the list.
    pub(super) fn conffiles(&self) -> Result<Vec<Conffile>> {
        let Some(list) = self.files.iter().find(|file| file.name == "conffiles") else {
            return Ok(Vec::new());
        };
        let text =
            std::str::from_utf8(&list.bytes).map_err(|_| refuse("its list of conffiles is not UTF-8"))?;
        let read = |line: &str| match line.strip_prefix("remove-on-upgrade ") {
            Some(path) => (path.trim().to_string(), true),
            None => (line.trim().to_string(), false),
        };
        let lines = text.lines().filter(|line| !line.trim().is_empty()).map(read);
        lines
            .map(|(path, leaves)| match path.starts_with('/') {
                true => Ok(Conffile { path, leaves }),
                false => Err(refuse(format!("`{}` cannot be a conffile", path.escape_debug()))),
            })
            .collect()
    }

    /// The package in dpkg's database when it is unpacked and not configured (dpkg(1), "Package states").
    /// `hashes` are the MD5 sums of the conffiles that are there.
    pub(super) fn stanza(&self, conffiles: &[Conffile], hashes: impl Fn(&str) -> Option<String>) -> String {
        let mut stanza = format!("{}Status: install ok unpacked\n", self.fields);
        if !conffiles.is_empty() {
            stanza.push_str("Conffiles:\n");
        }
        for Conffile { path, leaves } in conffiles {
            let hash = hashes(path).unwrap_or_else(|| "newconffile".to_string());
            let flag = if *leaves { " remove-on-upgrade" } else { "" };
            stanza.push_str(&format!(" {path} {hash}{flag}\n"));
        }
        stanza.push('\n');
        stanza
    }
}
