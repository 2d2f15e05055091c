//! Canonical JSON: the one byte string a document has.

use serde::Serialize;

/// A document as JSON with sorted keys and no white space, in UTF-8. Documents hold strings, integers,
/// lists and maps only, for which this form is unique (docs/format.md, "Canonical JSON").
///
/// # Panics
/// Never for the documents of this crate: their maps have string keys and their numbers are integers.
pub fn canonical_json<T: Serialize>(document: &T) -> Vec<u8> {
    // serde_json's own map is sorted by key; going through it sorts the fields of structs too.
    let value = serde_json::to_value(document).expect("documents are plain data");
    serde_json::to_vec(&value).expect("values are plain data")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sorted_at_every_depth() {
        #[derive(Serialize)]
        struct Doc {
            z: u32,
            a: Inner,
        }
        #[derive(Serialize)]
        struct Inner {
            y: &'static str,
            b: Vec<u32>,
        }
        let doc = Doc { z: 1, a: Inner { y: "é", b: vec![2, 1] } };
        assert_eq!(canonical_json(&doc), "{\"a\":{\"b\":[2,1],\"y\":\"é\"},\"z\":1}".as_bytes());
    }
}
