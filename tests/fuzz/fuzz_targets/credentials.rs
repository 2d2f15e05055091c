//! What a registry asks for in `WWW-Authenticate`, and files with credentials. Helper programs are not run: there are
//! none of the names that a corpus has.
#![no_main]

use std::io::Write;

use isolith::oci::registry::{Credentials, challenges};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(line) = std::str::from_utf8(bytes) {
        for challenge in challenges(line) {
            assert!(!challenge.scheme.is_empty());
        }
    }
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let credentials = Credentials { files: vec![file.path().to_path_buf()] };
    let _ = credentials.login("docker.io", "library/debian");
});
