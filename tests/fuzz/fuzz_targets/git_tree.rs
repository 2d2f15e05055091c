//! Tree objects of git: what is read is what was written there.
#![no_main]

use isolith::source::git::entries;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for length in [20, 32] {
        let mut rest = bytes;
        for entry in entries(bytes, length).flatten() {
            let from = rest.iter().position(|byte| *byte == b' ').unwrap() + 1;
            assert_eq!(&rest[from..from + entry.name.len()], entry.name);
            assert_eq!(entry.id.len(), 2 * length);
            rest = &rest[from + entry.name.len() + 1 + length..];
        }
    }
});
