//! Undoes the compression of an archive, told from its first bytes.

use std::io::{self, Cursor, Read};

use crate::error::{Error, Result};

/// Memory that the xz decoder may use; its largest preset needs 65 MiB.
const XZ_MEMORY: u64 = 256 << 20;

/// How an archive is compressed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Gzip,
    Xz,
    Zstd,
    Bzip2,
    Plain,
}

/// Told from the first six bytes.
fn form(start: &[u8]) -> Form {
    // A frame of zstd, or a skippable frame in front of one (RFC 8878).
    let skippable = start.len() >= 4 && start[0] & 0xf0 == 0x50 && start[1..4] == [0x2a, 0x4d, 0x18];
    match start {
        [0x1f, 0x8b, ..] => Form::Gzip,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Form::Xz,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Form::Zstd,
        _ if skippable => Form::Zstd,
        [b'B', b'Z', b'h', ..] => Form::Bzip2,
        _ => Form::Plain,
    }
}

/// Whether [`decompress`] has something to do with bytes that begin with these, six of them or all.
pub fn is_compressed(start: &[u8]) -> bool {
    form(start) != Form::Plain
}

/// The plain bytes of a gzip, xz, bzip2 or zstd stream (several in a row count as one), or of a plain one.
pub fn decompress<'a>(mut reader: impl Read + Send + 'a) -> Result<Box<dyn Read + Send + 'a>> {
    let failed = |why: io::Error| Error::machine("cannot decompress the archive").because(why);
    let mut magic = Vec::new();
    (&mut reader).take(6).read_to_end(&mut magic).map_err(failed)?;
    let form = form(&magic);
    let whole = Cursor::new(magic).chain(reader);
    Ok(match form {
        Form::Gzip => Box::new(flate2::read::MultiGzDecoder::new(whole)),
        Form::Xz => {
            let stream =
                liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED)
                    .map_err(|why| failed(why.into()))?;
            Box::new(liblzma::read::XzDecoder::new_stream(whole, stream))
        }
        Form::Zstd => Box::new(zstd::stream::read::Decoder::new(whole).map_err(failed)?),
        Form::Bzip2 => Box::new(bzip2::read::MultiBzDecoder::new(whole)),
        Form::Plain => Box::new(whole),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    fn xz(bytes: &[u8]) -> Vec<u8> {
        let mut out = liblzma::write::XzEncoder::new(Vec::new(), 1);
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    fn bzip2(bytes: &[u8]) -> Vec<u8> {
        let mut out = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    fn plain(bytes: Vec<u8>) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        decompress(Cursor::new(bytes)).unwrap().read_to_end(&mut out).map(|_| out)
    }

    #[test]
    fn every_format_also_in_several_parts() {
        let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
        let skippable = [b"\x50\x2a\x4d\x18\x03\0\0\0abc".to_vec(), zstd(b"one")].concat();
        assert_eq!(plain(skippable).unwrap(), b"one");
        for pack in [gzip as fn(&[u8]) -> Vec<u8>, xz, bzip2, zstd, <[u8]>::to_vec] {
            assert_eq!(plain([pack(b"one"), pack(b"two")].concat()).unwrap(), b"onetwo");
        }
        assert_eq!(plain(Vec::new()).unwrap(), b"");
        assert_eq!(plain(b"\x1f".to_vec()).unwrap(), b"\x1f");
    }

    #[test]
    fn what_is_cut_off_is_an_error() {
        let bytes: Vec<u8> =
            (0..100_000u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        for packed in [gzip(&bytes), xz(&bytes), bzip2(&bytes), zstd::encode_all(&bytes[..], 1).unwrap()] {
            for keep in [packed.len() / 2, packed.len() - 1] {
                assert!(plain(packed[..keep].to_vec()).is_err(), "{:x?} {keep}", &packed[..4]);
            }
        }
    }
}
