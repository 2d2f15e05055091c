//! Recipes: every mistake has a place.
#![no_main]

use std::collections::BTreeMap;
use std::path::Path;

use isolith::recipe::parse;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Err(found) = parse(text, Path::new("/nowhere/a.toml"), &BTreeMap::new()) {
        assert!(!found.is_empty() && found.iter().all(|mistake| mistake.line > 0));
    }
});
