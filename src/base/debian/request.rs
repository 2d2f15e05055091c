//! What a recipe asks for.

/// The packages that a recipe wants as its base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Debian {
    /// Suites or codenames; the first is the one that the variant is taken from. Of a package that several
    /// have, the highest version counts.
    pub suites: Vec<String>,
    /// Parts of the archive: `main`, `contrib`, …
    pub components: Vec<String>,
    /// What is there without being named.
    pub variant: Variant,
    /// What is wanted beside that, sorted: `NAME`, or `NAME=VERSION`.
    pub include: Vec<String>,
    /// Names of packages that must not be there, sorted.
    pub exclude: Vec<String>,
}

/// What is there without being named; each with all that it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// Packages that are `Essential: yes`.
    Essential,
    /// These, and those of priority `required`.
    Minbase,
    /// Nothing.
    Custom,
}

impl Variant {
    /// All of them, in the order they are named in messages.
    pub const ALL: [Variant; 3] = [Variant::Essential, Variant::Minbase, Variant::Custom];

    /// As recipes and lock files call it.
    pub const fn name(self) -> &'static str {
        match self {
            Variant::Essential => "essential",
            Variant::Minbase => "minbase",
            Variant::Custom => "custom",
        }
    }

    /// The variant of that name.
    pub fn named(name: &str) -> Option<Variant> {
        Self::ALL.into_iter().find(|variant| variant.name() == name)
    }
}

impl Debian {
    /// Whether `suite` can be the name of a suite: a path below `dists/` that leads nowhere else.
    pub fn is_suite(suite: &str) -> bool {
        let good = |b: u8| b.is_ascii_alphanumeric() || b"/._+-~".contains(&b);
        suite.bytes().all(good)
            && suite.split('/').all(|part| part.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric()))
    }
}

/// What Debian calls the architecture of this machine; none for one that Debian does not have.
pub fn architecture() -> Option<&'static str> {
    Some(match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "i386",
        "arm" => "armhf",
        "riscv64" => "riscv64",
        "s390x" => "s390x",
        "loongarch64" => "loong64",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64el",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites() {
        for good in ["bookworm", "bookworm-security", "bookworm/updates", "13.1"] {
            assert!(Debian::is_suite(good), "{good}");
        }
        for bad in ["", "/x", "x/", "../x", "x/../y", "-x", "x y", "x?y"] {
            assert!(!Debian::is_suite(bad), "{bad}");
        }
    }
}
