//! What a fetched input must hash to.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;

/// Which digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256, 64 hexadecimal digits.
    Sha256,
    /// SHA-512, 128 hexadecimal digits.
    Sha512,
    /// BLAKE3, 64 hexadecimal digits.
    Blake3,
}

impl Algorithm {
    /// All of them, in the order they are named in messages.
    pub const ALL: [Algorithm; 3] = [Algorithm::Sha256, Algorithm::Sha512, Algorithm::Blake3];

    /// As recipes and lock files call it.
    pub const fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
            Algorithm::Blake3 => "blake3",
        }
    }

    /// How many hexadecimal digits it has.
    pub const fn digits(self) -> usize {
        match self {
            Algorithm::Sha512 => 128,
            Algorithm::Sha256 | Algorithm::Blake3 => 64,
        }
    }
}

/// The digest that an input is pinned by. As text: `sha256:<hex>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pin {
    algorithm: Algorithm,
    hex: String,
}

impl Pin {
    /// The pin of these hexadecimal digits, in upper or lower case; none when they are no such digest.
    pub fn new(algorithm: Algorithm, hex: &str) -> Option<Pin> {
        let good = hex.len() == algorithm.digits() && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
        good.then(|| Pin { algorithm, hex: hex.to_ascii_lowercase() })
    }

    /// Which digest it is.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Lower-case hexadecimal digits.
    pub fn hex(&self) -> &str {
        &self.hex
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex)
    }
}

/// The text is not `sha256:<64 hexadecimal digits>` or its like.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a digest")]
pub struct ParsePinError(String);

impl FromStr for Pin {
    type Err = ParsePinError;
    fn from_str(text: &str) -> Result<Self, ParsePinError> {
        let wrong = || ParsePinError(text.to_string());
        let (name, hex) = text.split_once(':').ok_or_else(wrong)?;
        let algorithm = Algorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name);
        Pin::new(algorithm.ok_or_else(wrong)?, hex).ok_or_else(wrong)
    }
}

impl Serialize for Pin {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.to_string())
    }
}

impl<'de> Deserialize<'de> for Pin {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Hashes bytes as they pass: BLAKE3 names the blob, SHA-256 goes into lock files, and a SHA-512 is made only
/// when one is asked for.
#[derive(Clone)]
pub struct Sums {
    blake3: blake3::Hasher,
    sha256: sha2::Sha256,
    sha512: Option<sha2::Sha512>,
}

impl Sums {
    /// Nothing hashed yet.
    pub fn new(with_sha512: bool) -> Sums {
        Sums {
            blake3: blake3::Hasher::new(),
            sha256: sha2::Sha256::new(),
            sha512: with_sha512.then(sha2::Sha512::new),
        }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.blake3.update(bytes);
        self.sha256.update(bytes);
        if let Some(sha512) = &mut self.sha512 {
            sha512.update(bytes);
        }
    }

    /// The digests, BLAKE3 first.
    pub fn finish(self) -> Vec<Pin> {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let mut pins = vec![
            Pin { algorithm: Algorithm::Blake3, hex: self.blake3.finalize().to_hex().to_string() },
            Pin { algorithm: Algorithm::Sha256, hex: hex(&self.sha256.finalize()) },
        ];
        if let Some(sha512) = self.sha512 {
            pins.push(Pin { algorithm: Algorithm::Sha512, hex: hex(&sha512.finalize()) });
        }
        pins
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_print_and_parse() {
        for pin in [true, false].into_iter().flat_map(|long| Sums::new(long).finish()) {
            assert_eq!(pin.to_string().parse::<Pin>().unwrap(), pin);
            assert_eq!(Pin::new(pin.algorithm(), &pin.hex().to_uppercase()), Some(pin.clone()));
        }
        for wrong in ["", "sha256", "sha256:", "md5:d41d8cd98f00b204e9800998ecf8427e", "sha256:zz"] {
            assert!(wrong.parse::<Pin>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn sums_are_those_of_the_standards() {
        let mut sums = Sums::new(true);
        sums.update(b"a");
        sums.update(b"bc");
        let [blake3, sha256, sha512] = &sums.finish()[..] else { panic!("three digests") };
        assert!(blake3.hex().starts_with("6437b3ac38465133ffb63b75273a8db5"));
        assert!(sha256.hex().starts_with("ba7816bf8f01cfea414140de5dae2223"));
        assert!(sha512.hex().starts_with("ddaf35a193617abacc417349ae204131"));
    }
}
