//! Patches: an error, or changes of files with plain names.
#![no_main]

use std::collections::BTreeMap;

use isolith::base::debian::{Files, apply_patch};
use libfuzzer_sys::fuzz_target;

#[derive(Default)]
struct Memory(BTreeMap<String, Vec<u8>>);

impl Files for Memory {
    fn read(&mut self, name: &str) -> Result<Option<Vec<u8>>, String> {
        assert!(!name.starts_with('/') && name.split('/').all(|part| !matches!(part, "" | "." | "..")), "{name}");
        Ok(self.0.get(name).cloned())
    }
    fn write(&mut self, name: &str, content: Vec<u8>, _: Option<bool>) -> Result<(), String> {
        self.0.insert(name.to_string(), content);
        Ok(())
    }
    fn remove(&mut self, name: &str) -> Result<(), String> {
        self.0.remove(name);
        Ok(())
    }
}

fuzz_target!(|bytes: &[u8]| {
    // The text in front of the first NUL is the file `f`, the rest the patch.
    let cut = bytes.iter().position(|byte| *byte == 0).unwrap_or(0);
    let mut files = Memory::default();
    files.0.insert("f".to_string(), bytes[..cut].to_vec());
    let _ = apply_patch(bytes.get(cut + 1..).unwrap_or_default(), &mut files);
});
