//! Keys of ed25519 (RFC 8032), as text and as files (docs/format.md, "Keys").

use std::fmt;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};

use crate::error::{Error, Result};
use crate::remote::WriterId;

const PUBLIC: &str = "ed25519:";
const SECRET: &str = "ed25519-secret:";

/// A key file is one short line.
const MOST_FILE: u64 = 1024;

/// Whom a signature is of. Printed as `ed25519:` and the base64 of its 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey(VerifyingKey);

/// Why a string is no key.
#[derive(Debug, thiserror::Error)]
#[error("it is not a key: `{0}` and 44 characters of base64 are expected")]
pub struct NotAKey(&'static str);

impl PublicKey {
    /// The key with these bytes; none when they are no point of the curve, one of small order, or written in another
    /// way than the one there is: a key has one name.
    pub fn from_bytes(bytes: &[u8; 32]) -> Option<PublicKey> {
        let mut y = *bytes;
        y[31] &= 0x7f;
        // p = 2^255 - 19, little-endian.
        let reduced = y[0] < 0xed || y[31] != 0x7f || y[1..31].iter().any(|byte| *byte != 0xff);
        let key = VerifyingKey::from_bytes(bytes).ok().filter(|key| reduced && !key.is_weak())?;
        Some(PublicKey(key))
    }

    /// Its 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// What its records are named by.
    pub fn writer(&self) -> WriterId {
        WriterId::of(self.as_bytes())
    }

    /// Whether `signature` is of this key over `message` (RFC 8032, and no key or point of small order).
    pub fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        self.0.verify_strict(message, &Signature::from_bytes(signature)).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PUBLIC}{}", STANDARD.encode(self.as_bytes()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<PublicKey, NotAKey> {
        bytes(text, PUBLIC).and_then(|bytes| PublicKey::from_bytes(&bytes)).ok_or(NotAKey(PUBLIC))
    }
}

/// What signs. It is never printed but into its file.
#[derive(Clone)]
pub struct SecretKey(SigningKey);

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "secret key of {}", self.public())
    }
}

impl FromStr for SecretKey {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<SecretKey, NotAKey> {
        let seed = bytes(text, SECRET).ok_or(NotAKey(SECRET))?;
        Ok(SecretKey(SigningKey::from_bytes(&seed)))
    }
}

impl SecretKey {
    /// A new key, from the kernel's random numbers.
    pub fn generate() -> Result<SecretKey> {
        let source = Path::new("/dev/urandom");
        let mut seed = [0; 32];
        std::fs::File::open(source)
            .and_then(|mut file| file.read_exact(&mut seed))
            .map_err(|why| Error::io("read", source, why))?;
        Ok(SecretKey::from_seed(&seed))
    }

    /// The key with this seed (the "private key" of RFC 8032).
    pub fn from_seed(seed: &[u8; 32]) -> SecretKey {
        SecretKey(SigningKey::from_bytes(seed))
    }

    /// Its public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// A signature over `message`.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }

    /// Writes the key into a new file that only its owner can read. A file that is there is left as it is.
    ///
    /// # Errors
    /// Class `Usage` when something is there.
    pub fn write_new(&self, path: &Path) -> Result<()> {
        let failed = |why: std::io::Error| match why.kind() {
            ErrorKind::AlreadyExists => Error::usage(format!("`{}` is there already", path.display())).hint(
                "a key that is overwritten is lost: move it away first, or name another file with --file",
            ),
            _ => Error::io("write", path, why),
        };
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
        let text = format!("{SECRET}{}\n", STANDARD.encode(self.0.as_bytes()));
        file.write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(|why| Error::io("write", path, why))
    }

    /// Reads a key file; none when there is none.
    ///
    /// # Errors
    /// It is no key, or others than its owner can read or write it.
    pub fn read(path: &Path) -> Result<Option<SecretKey>> {
        let file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(why) if why.kind() == ErrorKind::NotFound => return Ok(None),
            Err(why) => return Err(Error::io("read", path, why)),
        };
        let meta = file.metadata().map_err(|why| Error::io("stat", path, why))?;
        let open_to = meta.mode() & 0o077;
        if open_to != 0 {
            let error = Error::usage(format!("others can use the key file `{}`", path.display()));
            return Err(error.because(format!("its mode is {:04o}", meta.mode() & 0o7777)).hint(format!(
                "chmod 600 {}   (and if somebody may have read it, make a new key)",
                path.display()
            )));
        }
        let mut text = String::new();
        file.take(MOST_FILE).read_to_string(&mut text).map_err(|why| Error::io("read", path, why))?;
        let key = text.strip_suffix('\n').unwrap_or(&text).parse();
        key.map(Some).map_err(|why: NotAKey| {
            Error::usage(format!("`{}` is no key file", path.display()))
                .because(why)
                .hint("`isolith key generate` makes one")
        })
    }
}

fn bytes(text: &str, prefix: &str) -> Option<[u8; 32]> {
    STANDARD.decode(text.strip_prefix(prefix)?).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_name() {
        let key = SecretKey::from_seed(&[1; 32]);
        let text = key.public().to_string();
        assert_eq!(text.parse::<PublicKey>().unwrap(), key.public());
        for bad in [
            "",
            "ed25519:",
            &text[1..],
            &text[..text.len() - 1],
            &format!("{text} "),
            &format!("{text}="),
            &text.replace("ed25519", "ED25519"),
            // Not on the curve, of small order, and y = p + 3, which is another way to write y = 3.
            &format!("ed25519:{}", STANDARD.encode([2; 32])),
            &format!("ed25519:{}", STANDARD.encode([0; 32])),
        ] {
            assert!(bad.parse::<PublicKey>().is_err(), "{bad}");
        }
        let mut p_plus = [0xff; 32];
        p_plus[31] = 0x7f;
        for low in 0xed..=0xffu8 {
            p_plus[0] = low;
            assert!(PublicKey::from_bytes(&p_plus).is_none(), "{low:x}");
        }
    }

    #[test]
    fn a_key_file_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        assert!(SecretKey::read(&path).unwrap().is_none());
        let key = SecretKey::generate().unwrap();
        assert_ne!(key.public(), SecretKey::generate().unwrap().public());
        key.write_new(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert!(key.write_new(&path).is_err(), "a key was overwritten");
        assert_eq!(SecretKey::read(&path).unwrap().unwrap().public(), key.public());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(SecretKey::read(&path).unwrap_err().hint_text().unwrap().starts_with("chmod 600"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, "ed25519-secret:AAAA\n").unwrap();
        assert!(SecretKey::read(&path).is_err());
        assert!(!format!("{key:?}").contains(&STANDARD.encode(key.0.as_bytes())));
    }
}
