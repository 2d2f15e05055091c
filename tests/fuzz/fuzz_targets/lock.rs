//! Lock files: an error with a place, or a text that stays as it is.
#![no_main]

use std::path::Path;

use isolith::recipe::Lock;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Lock::parse(text, Path::new("a.lock")) {
        Ok(lock) => assert!(Lock::parse(&lock.to_string(), Path::new("a.lock")).is_ok()),
        Err(error) => assert!(error.what().contains("a.lock:"), "{error}"),
    }
});
