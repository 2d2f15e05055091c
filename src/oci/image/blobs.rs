//! The bytes of layers, as blobs of the store: what is packed here is made once, and what came out of another image is
//! got from there, as it is. Both are had anew when the bytes are gone.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::PathBuf;

use super::Part;
use super::config::Refers;
use crate::digest::ContentDigest;
use crate::error::{Error, Result};
use crate::layer::{Compression, Packed, packed};
use crate::oci::digest::Checked;
use crate::oci::source::FromImage;
use crate::store::{Scratch, Store};

/// The kind of the notes that say what a packed layer is.
const NOTES: &str = "packed";
/// The version of what is noted; it changes with the annotations.
const FORM: u32 = 2;

/// Tells how far the packing of a layer is: its name, bytes of the archive so far, and whether it is done.
pub type Tell<'a> = &'a (dyn Fn(&str, u64, bool) + Sync);

/// What reads the bytes of a layer of another image.
pub type Reader<'a> = &'a mut (dyn FnMut(&mut (dyn Read + Send)) -> Result<()> + Send);

/// Makes blobs of layers.
pub struct Packer<'a> {
    /// Where layers and blobs are.
    pub store: &'a Store,
    /// How layers are packed that did not come out of another image.
    pub compression: Compression,
    /// Gives the bytes of a layer of another image, as they are there.
    pub original: &'a (dyn Fn(&FromImage, Reader) -> Result<()> + Sync),
    /// Who is told.
    pub tell: Tell<'a>,
    /// Whether to go on.
    pub wanted: &'a (dyn Fn() -> bool + Sync),
}

/// A layer as it goes out.
#[derive(Debug, Clone)]
pub struct Blob {
    /// SHA-256 of the plain archive, `sha256:<hex>`.
    pub diff_id: String,
    /// What a manifest says of the bytes.
    pub refers: Refers,
    /// What was packed here; none for bytes that others packed.
    packed: Option<Packed>,
}

impl Packer<'_> {
    /// What each layer is when it goes out, two at a time.
    pub fn all(&self, parts: &[Part]) -> Result<Vec<Blob>> {
        let next = std::sync::atomic::AtomicUsize::new(0);
        let work = || -> Result<Vec<(usize, Blob)>> {
            let mut done = Vec::new();
            loop {
                let at = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let Some(part) = parts.get(at) else { return Ok(done) };
                done.push((at, self.one(part)?));
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
        Ok(all.into_iter().map(|(_, blob)| blob).collect())
    }

    /// What a layer is when it goes out; looked up when it has been packed before.
    pub(super) fn one(&self, part: &Part) -> Result<Blob> {
        let original = part.original.as_ref().and_then(|original| Some((original, original.refers()?)));
        let (diff_id, mut refers, packed) = match original {
            Some((original, refers)) => (original.layer.diff_id.to_string(), refers, None),
            None => {
                let noted = self.store.get_note(NOTES, &self.key(part));
                let packed: Packed = noted.map_or_else(|| self.pack(part), Ok)?;
                let refers = Refers {
                    media_type: format!("application/vnd.oci.image.layer.v1.tar+{}", self.compression.name()),
                    digest: packed.digest.clone(),
                    size: packed.size,
                    annotations: packed.annotations.clone(),
                };
                (packed.diff_id.clone(), refers, Some(packed))
            }
        };
        refers.annotations.extend(part.annotations.clone());
        Ok(Blob { diff_id, refers, packed })
    }

    /// The bytes of a layer. They have just been hashed.
    pub fn open(&self, part: &Part, blob: &Blob) -> Result<File> {
        match (&blob.packed, &part.original) {
            (Some(known), _) => {
                if let Some(file) = self.store.open_blob(&known.blob)? {
                    return Ok(file);
                }
                if self.pack(part)? != *known {
                    return Err(Error::machine("a layer came out different when it was packed again")
                        .hint("run it once more; if that happens again, please report it as a bug"));
                }
                self.there(&known.blob)
            }
            (None, Some(original)) => {
                if let Some(id) = self.store.blob_named(&blob.refers.digest)
                    && let Some(file) = self.store.open_blob(&id)?
                {
                    return Ok(file);
                }
                let id = self.get(original, &blob.refers).map_err(|why| {
                    why.within(format!("cannot get {} as it is there", original.what)).hint(
                        "layers of a base go out with the bytes they have there, which are not kept: name the base where \
                         it is now, or pack everything anew with `--layers one`",
                    )
                })?;
                self.there(&id)
            }
            (None, None) => Err(Error::machine("a layer has no bytes")),
        }
    }

    fn there(&self, id: &ContentDigest) -> Result<File> {
        let file = self.store.open_blob(id)?;
        file.ok_or_else(|| Error::machine("the bytes of a layer vanished from the store"))
    }

    /// What a layer is when it is packed here, if that has been done before. Its bytes may be gone.
    pub fn known(&self, part: &Part) -> Option<Packed> {
        self.store.get_note(NOTES, &self.key(part))
    }

    /// A layer that is packed here, for one use: what of it is not in the store already is not kept there.
    pub fn lend(&self, part: &Part) -> Result<(Packed, File)> {
        if let Some(packed) = self.known(part)
            && let Some(file) = self.store.open_blob(&packed.blob)?
        {
            return Ok((packed, file));
        }
        let scratch = self.store.scratch()?;
        let (path, packed) = self.pack_into(&scratch, part)?;
        let file = File::open(&path).map_err(|why| Error::io("read", &path, why))?;
        self.store.put_note(NOTES, &self.key(part), &packed)?;
        Ok((packed, file))
    }

    fn pack(&self, part: &Part) -> Result<Packed> {
        let scratch = self.store.scratch()?;
        let (path, packed) = self.pack_into(&scratch, part)?;
        self.store.add_blob(&path, &packed.blob, [packed.digest.clone()])?;
        self.store.put_note(NOTES, &self.key(part), &packed)?;
        Ok(packed)
    }

    fn pack_into(&self, scratch: &Scratch, part: &Part) -> Result<(PathBuf, Packed)> {
        let path = scratch.path().join("blob");
        let file = File::create_new(&path).map_err(|why| Error::io("create", &path, why))?;
        let mut out =
            Told { out: BufWriter::with_capacity(1 << 20, file), part, packer: self, done: 0, told: 0 };
        let packed = packed(&part.manifest, &*part.content, self.compression, &mut out)
            .map_err(|why| if (self.wanted)() { why } else { interrupted() })?;
        out.out.flush().map_err(|why| Error::io("write", &path, why))?;
        drop(out);
        (self.tell)(&part.name, packed.size, true);
        Ok((path, packed))
    }

    /// Brings the bytes of a layer of another image into the store.
    fn get(&self, original: &FromImage, refers: &Refers) -> Result<ContentDigest> {
        let scratch = self.store.scratch()?;
        let path = scratch.path().join("blob");
        let mut file = File::create_new(&path).map_err(|why| Error::io("create", &path, why))?;
        let mut hasher = blake3::Hasher::new();
        (self.original)(original, &mut |bytes| {
            let wrong = |why: io::Error| Error::recipe("they are not those of the manifest").because(why);
            let digest = refers.digest.parse().map_err(|_| Error::recipe("its digest is none"))?;
            let mut bytes = Checked::new(bytes, digest, Some(refers.size)).map_err(wrong)?;
            let mut buffer = vec![0; 256 << 10];
            loop {
                let n = match bytes.read(&mut buffer) {
                    Ok(0) => return Ok(()),
                    Ok(n) => n,
                    Err(why) if why.kind() == io::ErrorKind::Interrupted => continue,
                    Err(why) if why.kind() == io::ErrorKind::InvalidData => return Err(wrong(why)),
                    Err(why) => return Err(Error::machine("cannot read them").because(why)),
                };
                hasher.update(&buffer[..n]);
                file.write_all(&buffer[..n]).map_err(|why| Error::io("write", &path, why))?;
            }
        })?;
        let id = ContentDigest::from_bytes(*hasher.finalize().as_bytes());
        self.store.add_blob(&path, &id, [refers.digest.clone()])?;
        Ok(id)
    }

    /// Under which a layer's packed form is noted. Another version may compress in another way.
    fn key(&self, part: &Part) -> String {
        let (id, form) = (part.manifest.id().to_hex(), self.compression.name());
        format!("{id} {form} {} {FORM}", env!("CARGO_PKG_VERSION"))
    }
}

fn interrupted() -> Error {
    Error::new(crate::error::Class::Interrupted, "interrupted")
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
