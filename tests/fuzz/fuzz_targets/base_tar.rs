//! Tar archives as bases and layers.
#![no_main]

use isolith::layer::{IdShift, unpack};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let dest = tempfile::tempdir().unwrap();
    let _ = unpack(bytes, dest.path(), IdShift::by(rustix::process::geteuid().as_raw()));
});
