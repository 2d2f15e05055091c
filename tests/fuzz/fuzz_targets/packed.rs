//! Packed layers: whatever comes, an error or the very layer.
#![no_main]

use isolith::digest::LayerId;
use isolith::layer::{IdShift, Ranges, Table, rebuild};
use libfuzzer_sys::fuzz_target;

struct Bytes<'a>(&'a [u8]);

impl Ranges for Bytes<'_> {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read(&self, at: u64, length: usize) -> isolith::Result<Vec<u8>> {
        Ok(self.0[at as usize..][..length].to_vec())
    }
}

// The first 32 bytes are the id that is asked for.
fuzz_target!(|bytes: &[u8]| {
    let Some((id, bytes)) = bytes.split_first_chunk::<32>() else { return };
    let Ok(table) = Table::read(&Bytes(bytes), &LayerId::from_bytes(*id)) else { return };
    let dir = tempfile::tempdir().unwrap();
    let (scratch, tree) = (dir.path().join("scratch"), dir.path().join("tree"));
    std::fs::create_dir(&scratch).unwrap();
    std::fs::create_dir(&tree).unwrap();
    let ids = IdShift::by(rustix::process::geteuid().as_raw());
    let _ = rebuild(&table, &Bytes(bytes), &|_| None, &scratch, &tree, ids, 1 << 20);
});
