//! Compressed layers in the store: each is made once, and made again when its bytes are gone.

use std::fs::File;
use std::io::{self, BufWriter, Write};

use super::Part;
use crate::error::{Error, Result};
use crate::layer::{Compression, Packed, packed};
use crate::store::Store;

/// The kind of the notes that say what a packed layer is.
const NOTES: &str = "packed";

/// Tells how far the packing of a layer is: its name, bytes of the archive so far, and whether it is done.
pub type Tell<'a> = &'a (dyn Fn(&str, u64, bool) + Sync);

/// Packs layers into the store.
pub struct Packer<'a> {
    /// Where layers and blobs are.
    pub store: &'a Store,
    /// Who is told.
    pub tell: Tell<'a>,
    /// Whether to go on.
    pub wanted: &'a (dyn Fn() -> bool + Sync),
}

/// A packed layer whose bytes can be read.
pub struct BlobFile {
    /// The bytes; they have just been hashed.
    pub file: File,
    /// How many.
    pub size: u64,
}

impl Packer<'_> {
    /// What each layer is when it is packed, two at a time.
    pub fn all(&self, parts: &[Part], compression: Compression) -> Result<Vec<Packed>> {
        let next = std::sync::atomic::AtomicUsize::new(0);
        let work = || -> Result<Vec<(usize, Packed)>> {
            let mut done = Vec::new();
            loop {
                let at = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let Some(part) = parts.get(at) else { return Ok(done) };
                done.push((at, self.one(part, compression)?));
            }
        };
        // Each uses all processors; the second one fills the gaps between layers.
        let (first, second) = std::thread::scope(|scope| {
            let other = scope.spawn(work);
            let first = work();
            let lost = || Err(Error::machine("the packing of a layer panicked"));
            (first, other.join().unwrap_or_else(|_| lost()))
        });
        let mut all = [first?, second?].concat();
        all.sort_by_key(|(at, _)| *at);
        Ok(all.into_iter().map(|(_, packed)| packed).collect())
    }

    /// What a layer is when it is packed; looked up when that has been done before.
    pub fn one(&self, part: &Part, compression: Compression) -> Result<Packed> {
        match self.store.get_note(NOTES, &key(part, compression)) {
            Some(packed) => Ok(packed),
            None => self.pack(part, compression),
        }
    }

    /// The bytes of a layer that is known packed.
    pub fn open(&self, part: &Part, known: &Packed, compression: Compression) -> Result<BlobFile> {
        if let Some(file) = self.store.open_blob(&known.blob)? {
            return Ok(BlobFile { file, size: known.size });
        }
        let again = self.pack(part, compression)?;
        if again != *known {
            return Err(Error::machine("a layer came out different when it was packed again")
                .hint("run it once more; if that happens again, please report it as a bug"));
        }
        let file = self.store.open_blob(&known.blob)?;
        let file = file.ok_or_else(|| Error::machine("a packed layer vanished from the store"))?;
        Ok(BlobFile { file, size: known.size })
    }

    fn pack(&self, part: &Part, compression: Compression) -> Result<Packed> {
        let scratch = self.store.scratch()?;
        let path = scratch.path().join("blob");
        let file = File::create_new(&path).map_err(|why| Error::io("create", &path, why))?;
        let mut out =
            Told { out: BufWriter::with_capacity(1 << 20, file), part, packer: self, done: 0, told: 0 };
        let packed = packed(&part.manifest, &*part.content, compression, &mut out)
            .map_err(|why| if (self.wanted)() { why } else { interrupted() })?;
        out.out.flush().map_err(|why| Error::io("write", &path, why))?;
        drop(out);
        (self.tell)(&part.name, packed.size, true);
        self.store.add_blob(&path, &packed.blob, [packed.digest.clone()])?;
        self.store.put_note(NOTES, &key(part, compression), &packed)?;
        Ok(packed)
    }
}

fn interrupted() -> Error {
    Error::new(crate::error::Class::Interrupted, "interrupted")
}

/// Under which a layer's packed form is noted. Another version may compress in another way.
fn key(part: &Part, compression: Compression) -> String {
    format!("{} {} {}", part.manifest.id().to_hex(), compression.name(), env!("CARGO_PKG_VERSION"))
}

/// Tells of every few bytes, and stops when nobody wants any more of them.
struct Told<'a> {
    out: BufWriter<File>,
    part: &'a Part,
    packer: &'a Packer<'a>,
    done: u64,
    told: u64,
}

impl Write for Told<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !(self.packer.wanted)() {
            return Err(io::Error::other("interrupted"));
        }
        let n = self.out.write(bytes)?;
        self.done += n as u64;
        if self.done - self.told >= 4 << 20 {
            self.told = self.done;
            (self.packer.tell)(&self.part.name, self.done, false);
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
