//! Bytes that are checked against a digest as they pass.

use std::io::{self, Read};

use oci_spec::image::{Digest, DigestAlgorithm};
use sha2::Digest as _;

/// Makes a digest of the bytes it is given: SHA-256, SHA-384 or SHA-512.
#[derive(Clone)]
pub enum Hasher {
    /// SHA-256, the usual one.
    Sha256(sha2::Sha256),
    /// SHA-384.
    Sha384(sha2::Sha384),
    /// SHA-512.
    Sha512(sha2::Sha512),
}

impl Hasher {
    /// SHA-256.
    pub fn sha256() -> Hasher {
        Hasher::Sha256(sha2::Sha256::new())
    }

    /// The algorithm of a digest; none when it is not known here.
    pub fn like(digest: &Digest) -> Option<Hasher> {
        Some(match digest.algorithm() {
            DigestAlgorithm::Sha256 => Hasher::sha256(),
            DigestAlgorithm::Sha384 => Hasher::Sha384(sha2::Sha384::new()),
            DigestAlgorithm::Sha512 => Hasher::Sha512(sha2::Sha512::new()),
            _ => return None,
        })
    }

    /// The algorithm of a digest that is written as text; none for what is no digest.
    pub fn like_text(digest: &str) -> Option<Hasher> {
        Hasher::like(&digest.parse().ok()?)
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::Sha384(hasher) => hasher.update(bytes),
            Hasher::Sha512(hasher) => hasher.update(bytes),
        }
    }

    /// The digest of all bytes so far, as text: `sha256:<hex>`.
    pub fn text(self) -> String {
        let (name, bytes) = match self {
            Hasher::Sha256(hasher) => ("sha256", hasher.finalize().to_vec()),
            Hasher::Sha384(hasher) => ("sha384", hasher.finalize().to_vec()),
            Hasher::Sha512(hasher) => ("sha512", hasher.finalize().to_vec()),
        };
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{name}:{hex}")
    }

    /// Whether the digest of these bytes is this one.
    pub fn check(bytes: &[u8], digest: &Digest) -> Result<(), String> {
        let mut hasher =
            Hasher::like(digest).ok_or_else(|| format!("the algorithm of `{digest}` is not known here"))?;
        hasher.update(bytes);
        let found = hasher.text();
        match found == digest.as_ref() {
            true => Ok(()),
            false => Err(format!("expected {digest}, got {found}")),
        }
    }
}

/// Passes bytes on and counts and hashes them. Where they end they must be those that the digest and the size say;
/// else the last read is an error of the kind `InvalidData`.
pub struct Checked<R> {
    from: R,
    hasher: Option<Hasher>,
    wanted: Digest,
    /// None when any number will do.
    left: Option<u64>,
}

impl<R: Read> Checked<R> {
    /// Bytes that should have this digest and, where one is given, this length.
    ///
    /// # Errors
    /// A digest of an unknown algorithm.
    pub fn new(from: R, wanted: Digest, size: Option<u64>) -> io::Result<Checked<R>> {
        let hasher = Hasher::like(&wanted)
            .ok_or_else(|| invalid(format!("the algorithm of `{wanted}` is not known here")))?;
        Ok(Checked { from, hasher: Some(hasher), wanted, left: size })
    }
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.from.read(buffer)?;
        if n > 0 {
            if let Some(left) = &mut self.left {
                *left = left
                    .checked_sub(n as u64)
                    .ok_or_else(|| invalid(format!("{} is longer than it is said to be", self.wanted)))?;
            }
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&buffer[..n]);
            }
        } else if !buffer.is_empty()
            && let Some(hasher) = self.hasher.take()
        {
            if let Some(left) = self.left.filter(|left| *left > 0) {
                return Err(invalid(format!(
                    "{} is {left} bytes shorter than it is said to be",
                    self.wanted
                )));
            }
            let found = hasher.text();
            if found != self.wanted.as_ref() {
                return Err(invalid(format!("the bytes are not those of {}, but of {found}", self.wanted)));
            }
        }
        Ok(n)
    }
}

fn invalid(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_bytes_end_well() {
        let mut hasher = Hasher::sha256();
        hasher.update(b"abc");
        let digest: Digest = hasher.text().parse().unwrap();
        assert!(digest.as_ref().starts_with("sha256:ba7816bf8f01cfea"));
        let read = |bytes: &[u8], size| {
            let mut out = Vec::new();
            let read = Checked::new(bytes, digest.clone(), size).unwrap().read_to_end(&mut out);
            read.map_err(|why| why.to_string())
        };
        assert_eq!(read(b"abc", Some(3)), Ok(3));
        assert_eq!(read(b"abc", None), Ok(3));
        assert!(read(b"abd", Some(3)).unwrap_err().contains("not those of"));
        assert!(read(b"ab", Some(3)).unwrap_err().contains("1 bytes shorter"));
        assert!(read(b"abcd", Some(3)).unwrap_err().contains("longer"));
        assert!(Hasher::check(b"abc", &digest).is_ok() && Hasher::check(b"", &digest).is_err());
        let other: Digest = "md5:d41d8cd98f00b204e9800998ecf8427e".parse().unwrap();
        assert!(Checked::new(&b""[..], other, None).is_err());
    }
}
