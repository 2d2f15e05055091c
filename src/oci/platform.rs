//! Which of several images of one name: operating system, architecture and variant, in Go's words.

use std::fmt;
use std::str::FromStr;

use oci_spec::image::{Arch, Descriptor, ImageIndex, Os};

/// `os/architecture[/variant]`, as in `linux/arm64` or `linux/arm/v7`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    os: Os,
    architecture: Arch,
    variant: Option<String>,
}

impl Platform {
    /// What this program was built for.
    pub fn of_machine() -> Platform {
        Platform { os: Os::Linux, architecture: Arch::default(), variant: None }
    }

    /// The image of an index for this platform: the first that fits, one with the very variant before one without
    /// any. What is no image (attestations and the like say `unknown`) never fits.
    pub fn choose<'i>(&self, index: &'i ImageIndex) -> Option<&'i Descriptor> {
        let of = |descriptor: &Descriptor| {
            descriptor.platform().as_ref().map(|p| {
                (p.os().clone(), p.architecture().clone(), p.variant().clone().filter(|v| !v.is_empty()))
            })
        };
        let fits = |found: &Option<String>, wanted: &Option<String>| {
            found == wanted || usual(&self.architecture, found) == usual(&self.architecture, wanted)
        };
        let all = index.manifests();
        let one = all.iter().find(|descriptor| match of(descriptor) {
            Some((os, architecture, variant)) => {
                os == self.os && architecture == self.architecture && fits(&variant, &self.variant)
            }
            None => false,
        });
        // An index of one image often does not say what it is for.
        one.or_else(|| all.first().filter(|only| all.len() == 1 && only.platform().is_none()))
    }

    /// Whether an image for `other` is one for this platform.
    pub fn takes(&self, other: &Platform) -> bool {
        let same = usual(&self.architecture, &other.variant) == usual(&self.architecture, &self.variant);
        (&self.os, &self.architecture) == (&other.os, &other.architecture) && (same || self.variant.is_none())
    }

    /// What an index has, for messages.
    pub fn listed(index: &ImageIndex) -> String {
        let all = index.manifests().iter().filter_map(|descriptor| {
            let p = descriptor.platform().as_ref()?;
            let variant = p.variant().as_ref().filter(|v| !v.is_empty());
            let text = format!("{}/{}", p.os(), p.architecture());
            (!text.contains("unknown")).then(|| match variant {
                Some(variant) => format!("{text}/{variant}"),
                None => text,
            })
        });
        let mut all: Vec<String> = all.take(20).collect();
        all.dedup();
        if all.is_empty() { "none".to_string() } else { all.join(", ") }
    }
}

/// The variant that is meant when none is given.
fn usual<'a>(architecture: &Arch, variant: &'a Option<String>) -> Option<&'a str> {
    match (architecture, variant.as_deref()) {
        (Arch::ARM64, None) => Some("v8"),
        (Arch::ARM, None) => Some("v7"),
        (Arch::Amd64, None) => Some("v1"),
        (_, variant) => variant,
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

impl FromStr for Platform {
    type Err = String;

    fn from_str(text: &str) -> Result<Platform, String> {
        let good = |part: &&str| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
        };
        let parts: Vec<&str> = text.split('/').collect();
        match parts[..] {
            [os, architecture] | [os, architecture, _] if parts.iter().all(good) => Ok(Platform {
                os: os.into(),
                architecture: architecture.into(),
                variant: parts.get(2).map(|variant| variant.to_string()),
            }),
            _ => Err(format!("`{text}` is not a platform: write it as `linux/amd64` or `linux/arm/v7`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(platforms: &[&str]) -> ImageIndex {
        let entry = |(at, text): (usize, &&str)| {
            let mut platform = serde_json::Map::new();
            for (key, part) in ["os", "architecture", "variant"].iter().zip(text.split('/')) {
                platform.insert(key.to_string(), part.into());
            }
            let kind = "application/vnd.oci.image.manifest.v1+json";
            let digest = format!("sha256:{}", at.to_string().repeat(64));
            let mut entry = serde_json::json!({ "mediaType": kind, "digest": digest, "size": 1 });
            if !text.is_empty() {
                entry["platform"] = platform.into();
            }
            entry
        };
        let manifests: Vec<_> = platforms.iter().enumerate().map(entry).collect();
        serde_json::from_value(serde_json::json!({ "schemaVersion": 2, "manifests": manifests })).unwrap()
    }

    #[test]
    fn the_image_that_fits_is_chosen() {
        let all = ["unknown/unknown", "linux/amd64", "linux/arm/v5", "linux/arm/v7", "linux/arm64/v8"];
        let index_of = |wanted: &str, all: &[&str]| {
            let index = index(all);
            let found = wanted.parse::<Platform>().unwrap().choose(&index).cloned();
            found.map(|found| index.manifests().iter().position(|d| *d == found).unwrap())
        };
        assert_eq!(index_of("linux/amd64", &all), Some(1));
        assert_eq!(index_of("linux/arm", &all), Some(3));
        assert_eq!(index_of("linux/arm/v5", &all), Some(2));
        assert_eq!(index_of("linux/arm64", &all), Some(4));
        assert_eq!(index_of("linux/arm64/v8", &["linux/arm64"]), Some(0));
        assert_eq!(index_of("linux/riscv64", &all), None);
        assert_eq!(index_of("linux/amd64", &[""]), Some(0));
        assert_eq!(index_of("linux/amd64", &["", ""]), None);
        assert_eq!(Platform::listed(&index(&all)), "linux/amd64, linux/arm/v5, linux/arm/v7, linux/arm64/v8");
        for bad in ["", "linux", "linux/", "a/b/c/d", "Linux/amd64", "linux/amd 64"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }
}
