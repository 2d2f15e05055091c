//! Objects as `git cat-file --batch` hands them over, each with its id checked here: what a commit's id stands
//! for does not depend on git, on the mirror, or on who filled it.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout};

use sha2::Digest;

use crate::error::{Error, Result};

/// Trees and commits larger than this are not real.
const LARGEST: u64 = 64 << 20;

/// A running git that answers with objects.
pub(super) struct Objects {
    child: Child,
    out: BufReader<ChildStdout>,
}

/// An object that is being read.
pub(super) struct Object<'a> {
    /// Bytes of its content.
    pub size: u64,
    id: String,
    left: u64,
    hash: Hash,
    from: &'a mut BufReader<ChildStdout>,
}

#[derive(Clone)]
enum Hash {
    Sha1(sha1::Sha1),
    Sha256(sha2::Sha256),
}

/// Whether a text is an object id.
pub(super) fn is_id(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

impl Objects {
    pub fn open(mut child: Child) -> Result<Objects> {
        let out = child.stdout.take().ok_or_else(|| Error::machine("git has no output"))?;
        Ok(Objects { child, out: BufReader::with_capacity(64 << 10, out) })
    }

    /// Asks for an object of a kind.
    pub fn get(&mut self, id: &str, kind: &str) -> Result<Object<'_>> {
        let failed = |why: std::io::Error| Error::machine("cannot talk to git").because(why);
        let input = self.child.stdin.as_mut().ok_or_else(|| Error::machine("git has no input"))?;
        input.write_all(format!("{id}\n").as_bytes()).and_then(|()| input.flush()).map_err(failed)?;
        let mut header = Vec::new();
        (&mut self.out).take(256).read_until(b'\n', &mut header).map_err(failed)?;
        // "<id> <kind> <size>\n", or "<id> missing\n".
        let text = String::from_utf8_lossy(&header);
        let words: Vec<&str> = text.split_whitespace().collect();
        let size = match words[..] {
            [got, found, size] if got == id && found == kind => size.parse().ok(),
            _ => None,
        };
        let Some(size) = size else {
            let what = format!("the repository does not have the {kind} {id}: git says `{}`", text.trim());
            return Err(
                Error::machine(what).hint("the repository is not whole; fetch it from somewhere else")
            );
        };
        let head = format!("{kind} {size}\0");
        let mut hash = match id.len() {
            64 => Hash::Sha256(sha2::Sha256::new()),
            _ => Hash::Sha1(sha1::Sha1::new()),
        };
        hash.update(head.as_bytes());
        Ok(Object { size, id: id.to_string(), left: size, hash, from: &mut self.out })
    }

    /// A whole commit, tree or small blob.
    pub fn whole(&mut self, id: &str, kind: &str) -> Result<Vec<u8>> {
        let mut object = self.get(id, kind)?;
        if object.size > LARGEST {
            return Err(Error::machine(format!("the {kind} {id} has {} bytes", object.size)));
        }
        let mut bytes = Vec::new();
        object
            .read_to_end(&mut bytes)
            .map_err(|why| Error::machine(format!("cannot read {kind} {id}")).because(why))?;
        object.finish()?;
        Ok(bytes)
    }
}

impl Drop for Objects {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Object<'_> {
    /// Reads what is left of it, and compares its hash with its id.
    pub fn finish(mut self) -> Result<()> {
        let failed = |why: std::io::Error| Error::machine("cannot talk to git").because(why);
        std::io::copy(&mut self, &mut std::io::sink()).map_err(failed)?;
        self.from.read_exact(&mut [0; 1]).map_err(failed)?; // The newline behind it.
        let got = self.hash.hex();
        if got == self.id {
            return Ok(());
        }
        Err(Error::machine(format!("the object {} is damaged: its hash is {got}", self.id))
            .hint("remove the store's `git` directory, so that it is fetched again"))
    }
}

impl Read for Object<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = (&mut self.from).take(self.left).read(buffer)?;
        if n == 0 && self.left > 0 && !buffer.is_empty() {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        self.hash.update(&buffer[..n]);
        self.left -= n as u64;
        Ok(n)
    }
}

impl Hash {
    fn update(&mut self, bytes: &[u8]) {
        match self {
            Hash::Sha1(hash) => sha1::Digest::update(hash, bytes),
            Hash::Sha256(hash) => hash.update(bytes),
        }
    }

    fn hex(self) -> String {
        let bytes = match self {
            Hash::Sha1(hash) => sha1::Digest::finalize(hash).to_vec(),
            Hash::Sha256(hash) => hash.finalize().to_vec(),
        };
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
