//! Debian packages.
#![no_main]

use std::io::{Seek, Write};

use isolith::layer::{IdShift, Limits, deb};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    let dest = tempfile::tempdir().unwrap();
    let ids = IdShift::by(rustix::process::geteuid().as_raw());
    let _ = deb::unpack(file, dest.path(), ids, Limits { bytes: 1 << 20, entries: 200 });
});
