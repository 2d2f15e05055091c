//! Manifests, indexes, references and platforms of images. The first byte says what the document is served as.
#![no_main]

use isolith::oci::{Document, MANIFEST_TYPES, Platform, parse_reference};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let said = MANIFEST_TYPES.get(usize::from(*kind)).copied();
    if let Ok(Document::Index(index)) = Document::parse(bytes, said) {
        let _ = (Platform::of_machine().choose(&index), Platform::listed(&index));
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(platform) = text.parse::<Platform>() {
        assert_eq!(platform.to_string().parse::<Platform>().as_ref(), Ok(&platform));
    }
    if let Ok(reference) = parse_reference(text) {
        assert_eq!(parse_reference(&reference.to_string()).unwrap(), reference);
    }
});
