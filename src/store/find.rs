//! Layers by the beginning of their id, and layers of stores that this process has not opened.

use std::path::{Path, PathBuf};

use super::{Store, io};
use crate::digest::LayerId;
use crate::error::{Error, Result};
use crate::layer::Manifest;

/// So few digits are no name for a layer.
const SHORTEST: usize = 4;

impl Store {
    /// The ids of all layers that are there, in order; they may go at any moment.
    pub fn layer_ids(&self) -> Result<Vec<LayerId>> {
        let top = self.root().join("layers");
        let mut ids = Vec::new();
        for shard in io::names(&top)? {
            let names = io::names(&top.join(shard))?;
            ids.extend(names.iter().filter_map(|name| name.to_str()?.parse::<LayerId>().ok()));
        }
        Ok(ids)
    }

    /// The one layer whose id begins with these hex digits, at least 4 of them.
    ///
    /// # Errors
    /// No layer, or several, have such an id (class `Usage`).
    pub fn find_layer(&self, prefix: &str) -> Result<LayerId> {
        let hex = prefix.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if !hex || !(SHORTEST..=64).contains(&prefix.len()) {
            return Err(Error::usage(format!("`{prefix}` is not the beginning of a layer id"))
                .hint("4 to 64 lower-case hexadecimal digits are expected"));
        }
        let dir = self.root().join("layers").join(&prefix[..2]);
        let names = if dir.is_dir() { io::names(&dir)? } else { Vec::new() };
        let mut found: Vec<LayerId> = names
            .iter()
            .filter_map(|name| name.to_str())
            .filter(|name| name.starts_with(prefix))
            .filter_map(|name| name.parse().ok())
            .collect();
        found.sort();
        match found[..] {
            [one] => Ok(one),
            [] => Err(Error::usage(format!("the store has no layer `{prefix}`"))
                .hint("`isolith build --verbose` prints the ids of layers")),
            _ => {
                let ids: Vec<_> =
                    found.iter().map(|id| id.to_hex()[..(prefix.len() + 8).min(64)].to_string()).collect();
                Err(Error::usage(format!("`{prefix}` is the beginning of {} layer ids", found.len()))
                    .hint(format!("give more digits: {}", ids.join(", "))))
            }
        }
    }
}

/// A layer in the store at `root`, read without opening that store, which may be another user's: its manifest
/// and where its tree is. None when it is not there or its manifest is damaged; the tree is not looked at.
pub fn read_layer(root: &Path, id: &LayerId) -> Result<Option<(Manifest, PathBuf)>> {
    if *id == Manifest::empty_id() {
        return Ok(Some((Manifest::default(), PathBuf::new())));
    }
    let hex = id.to_hex();
    let dir = root.join("layers").join(&hex[..2]).join(&hex);
    if !dir.is_dir() {
        return Ok(None);
    }
    for name in io::names(&dir)?.iter().filter(|name| name.as_encoded_bytes().starts_with(b"manifest.")) {
        let bytes = io::read(&dir.join(name))?.filter(|bytes| LayerId::of_manifest(bytes) == *id);
        if let Some(manifest) = bytes.and_then(|bytes| Manifest::decode(&bytes).ok()) {
            return Ok(Some((manifest, dir.join("fs"))));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Class;

    #[test]
    fn a_layer_is_found_by_a_prefix_that_only_it_has() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let ids = ["ab12", "ab13"].map(|start| format!("{start}{}", "0".repeat(60)));
        for id in &ids {
            std::fs::create_dir_all(dir.path().join("layers/ab").join(id)).unwrap();
        }
        assert_eq!(store.find_layer("ab12").unwrap().to_hex(), ids[0]);
        assert_eq!(store.find_layer(&ids[1]).unwrap().to_hex(), ids[1]);
        for wrong in ["ab1", "ab14", "AB12", "", "xy12", &"0".repeat(65)] {
            assert_eq!(store.find_layer(wrong).unwrap_err().class(), Class::Usage, "{wrong}");
        }
        std::fs::create_dir_all(dir.path().join("layers/ab").join(format!("ab12f{}", "0".repeat(59))))
            .unwrap();
        let error = store.find_layer("ab12").unwrap_err();
        assert!(error.hint_text().unwrap().contains("ab12f"), "{error:?}");
    }
}
