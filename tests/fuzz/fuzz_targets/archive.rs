//! Archives of sources, tar and zip: whatever comes, an error or a layer whose manifest reads back.
#![no_main]

use std::io::{Seek, SeekFrom, Write};

use isolith::layer::{Extract, IdShift, Limits, Manifest, extract};
use isolith::path::GuestPath;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut archive = tempfile::tempfile().unwrap();
    archive.write_all(bytes).unwrap();
    archive.seek(SeekFrom::Start(0)).unwrap();
    let dest = tempfile::tempdir().unwrap();
    let ids = IdShift::by(rustix::process::geteuid().as_raw());
    let limits = Limits { bytes: 1 << 20, entries: 200 };
    let at = GuestPath::parse("/src").unwrap();
    let mut tree = Extract::new(dest.path(), ids, &at, 1, limits).unwrap().strip(1);
    if extract(archive, &mut tree).is_ok() {
        let manifest = tree.finish().unwrap();
        assert_eq!(Manifest::decode(&manifest.encode()).unwrap(), manifest);
    }
});
