//! What makes a layer, before anything has run.

use serde::{Deserialize, Serialize};

use super::{ActionDocument, canonical_json};
use crate::digest::{DefinitionKey, LayerId};
use crate::path::GuestPath;
use crate::source::{Lay, Pin};

/// The definition document of one layer. Its key is known for every node of a plan before anything runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "makes", rename_all = "lowercase", deny_unknown_fields)]
pub enum Definition {
    /// A layer whose id follows from its input alone (a local source, a `dir` base).
    Layer {
        /// The id.
        id: LayerId,
    },
    /// The import of a tar archive.
    Tar {
        /// BLAKE3 of the archive file.
        archive: crate::digest::ContentDigest,
    },
    /// The import of a tar archive that is fetched.
    FetchedTar {
        /// What the archive hashes to.
        archive: Pin,
    },
    /// A layer of an image.
    ImageLayer {
        /// Digest of its plain archive.
        diff_id: String,
    },
    /// What an image needs on top of its layers.
    ImageTop {
        /// Digests of their plain archives, lowest first.
        layers: Vec<String>,
        /// The version of how it is found out.
        form: u32,
    },
    /// Debian packages, unpacked together.
    Packages {
        /// What they hash to, in their order.
        archives: Vec<Pin>,
        /// The version of the form that packages are laid out in (`layer::deb::FORM`).
        form: u32,
    },
    /// A Debian package, unpacked on its own.
    Package {
        /// What it hashes to.
        archive: Pin,
        /// The version of the form.
        form: u32,
    },
    /// The directories of Debian packages that are stacked, as they have to look.
    Directories {
        /// Definition keys of the stack that they are stacked on, lowest first.
        stack: Vec<String>,
        /// Definition keys of the packages, lowest first.
        packages: Vec<String>,
        /// The version of the form.
        form: u32,
    },
    /// An archive that is fetched, unpacked as a source.
    Unpack {
        /// What the archive hashes to.
        archive: Pin,
        /// How many leading components its names lose.
        strip: usize,
        /// How it is laid in.
        lay: Lay,
    },
    /// A file that is fetched, laid in as it is.
    File {
        /// What it hashes to.
        file: Pin,
        /// Where it is laid in.
        lay: Lay,
    },
    /// The tree of a git commit.
    Git {
        /// Its id.
        commit: String,
        /// Whether its submodules are part of it.
        submodules: bool,
        /// How it is laid in.
        lay: Lay,
    },
    /// A source package of Debian, unpacked and patched.
    SourcePackage {
        /// What its files hash to, by name.
        files: std::collections::BTreeMap<String, Pin>,
        /// How it is laid in.
        lay: Lay,
    },
    /// A step. The document's `stack` holds definition keys.
    Step {
        /// The action document with definition keys for layer ids.
        document: Box<ActionDocument>,
    },
    /// A subtree of a finished stack.
    Output {
        /// What becomes its root.
        from: GuestPath,
        /// Definition keys of the stack, lowest first.
        stack: Vec<String>,
    },
}

impl Definition {
    /// The key: a digest of the document's canonical JSON.
    pub fn key(&self) -> DefinitionKey {
        DefinitionKey::of_document(&canonical_json(self))
    }
}
