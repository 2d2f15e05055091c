//! Debian packages (deb(5)) as file trees: what a package brings, at the places where dpkg would put it on a system
//! whose `/usr` is merged, and its part of dpkg's database for a package that is unpacked and not yet configured.
//!
//! What becomes of a package depends on its bytes alone. The form has a number, [`FORM`], which belongs into
//! every key: a change of what is written here takes a new one.

mod ar;
mod control;
mod data;
mod join;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use ar::{Archive, invalid};
pub use control::Control;
pub use join::{Package, directories, join};

use super::bounded::Bounded;
use super::extract::Limits;
use super::{IdShift, Manifest, decompress};
use crate::error::{Error, Result};

/// The version of the form in which packages are laid out.
pub const FORM: u32 = 1;

/// dpkg's database.
const DATABASE: &str = "var/lib/dpkg";

/// Unpacks a package into the empty directory `dest`.
///
/// Owners, modes and times are those of the package. Its control files are in `/var/lib/dpkg/info`, as dpkg names
/// them, with the list of its files; its entry for `status` is `/var/lib/dpkg/unpacked/NAME`, for whoever
/// configures it. Conffiles are in place under their own names.
///
/// # Errors
/// What is no package, is cut off, has more than `limits` allow, holds devices, or has names that lead elsewhere.
pub fn unpack(deb: File, dest: &Path, ids: IdShift, limits: Limits) -> Result<(Control, Manifest)> {
    let mut archive = Archive::new(deb).map_err(unreadable)?;
    let version = next(&mut archive)?;
    let mut text = String::new();
    let read = archive.open(&version).and_then(|member| member.take(32).read_to_string(&mut text));
    if version.name != "debian-binary" || read.is_err() || !text.starts_with("2.") {
        return Err(refuse("it does not begin with `debian-binary` of version 2"));
    }
    let member = next(&mut archive)?;
    let control = Control::read(part(&archive, &member, "control.tar")?)?;
    let member = next(&mut archive)?;
    let data = part(&archive, &member, "data.tar")?;
    let manifest = data::unpack(&control, data, dest, ids, limits)?;
    Ok((control, manifest))
}

/// The next member; those whose names begin with `_` are for others.
fn next(archive: &mut Archive) -> Result<ar::Member> {
    loop {
        match archive.next().map_err(unreadable)? {
            Some(member) if member.name.starts_with('_') => {}
            Some(member) => return Ok(member),
            None => return Err(unreadable(invalid("it is cut off"))),
        }
    }
}

/// The plain bytes of a member that has to be called `name`, with the ending of a compression or without.
fn part(archive: &Archive, member: &ar::Member, name: &str) -> Result<Box<dyn Read + Send>> {
    match member.name.strip_prefix(name) {
        Some("" | ".gz" | ".xz" | ".zst" | ".bz2") => {}
        Some(".lzma") => return Err(refuse("it is packed with lzma, which Debian gave up in 2012")),
        _ => return Err(refuse(format!("it has `{}` where `{name}` should be", member.name.escape_debug()))),
    }
    archive.open(member).map_err(unreadable).and_then(decompress)
}

/// The error of a part that is larger than it may be.
const TOO_MUCH: &str = "it unpacks to more than is allowed";

const HINT: &str =
    "it has the digest that is pinned, so it came like this: lock the base anew, from another mirror";

/// The bytes cannot be read as a package.
fn unreadable(why: io::Error) -> Error {
    Error::machine("cannot read the Debian package").because(why).hint(HINT)
}

/// It says something impossible.
fn refuse(why: impl Into<String>) -> Error {
    Error::machine("cannot unpack the Debian package").because(why.into()).hint(HINT)
}
