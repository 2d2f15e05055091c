//! A blob that is larger than memory may get. `ISOLITH_BIG_MIB` says how large.
//!
//! The peak of a process is what counts, so each transfer has one of its own: this test binary, run again.

use std::io::{self, Read};

use isolith::oci::Hasher;
use isolith::remote::{Blob, Settings, checked, open};

/// Bytes of the blob.
fn size() -> u64 {
    std::env::var("ISOLITH_BIG_MIB").map_or(160, |mib| mib.parse().unwrap()) << 20
}

/// What a process may need beside the libraries it is made of, in KiB.
const MOST: u64 = 96 << 10;
const URL: &str = "ISOLITH_TEST_BIG_BLOB";

/// So many bytes without repetition, made as they are read.
struct Noise {
    at: u64,
    left: u64,
}

fn noise() -> Noise {
    Noise { at: 0, left: size() }
}

impl Read for Noise {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = (buffer.len() as u64).min(self.left) as usize;
        for piece in buffer[..n].chunks_mut(8) {
            let word = self.at.wrapping_add(0x5851_f42d).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            piece.copy_from_slice(&word.rotate_left(29).to_le_bytes()[..piece.len()]);
            self.at = word;
        }
        self.left -= n as u64;
        Ok(n)
    }
}

/// Sends a big blob to the remote at `url` and gets it back, in little memory.
pub fn passes_in_little_memory(url: &str) {
    let text = crate::alone("big::transfers_a_big_blob", &[(URL, url)]);
    text.lines().filter(|line| line.contains("resident")).for_each(|line| println!("{line}"));
}

#[test]
#[ignore = "run by others, in a process of its own"]
fn transfers_a_big_blob() {
    let url = std::env::var(URL).expect("the test that starts this one names a remote");
    let mut hasher = Hasher::sha256();
    let mut buffer = vec![0; 1 << 16];
    let mut bytes = noise();
    loop {
        match bytes.read(&mut buffer).unwrap() {
            0 => break,
            n => hasher.update(&buffer[..n]),
        }
    }
    let blob = Blob { digest: hasher.text().parse().unwrap(), size: size() };
    let settings = crate::settings();
    let remote = open(&url, &Settings { read_only: false, ..settings }).unwrap();
    remote.put_blob(&blob, &mut || Ok(Box::new(noise()))).unwrap();
    let mut count = 0;
    let found = checked(&*remote, &blob, &mut |bytes| {
        count = io::copy(bytes, &mut io::sink()).unwrap();
        Ok(())
    });
    assert!(found.unwrap());
    assert_eq!(count, size());
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    println!("{url}: {} MiB sent and fetched, {} MiB resident at most", size() >> 20, peak >> 10);
    assert!(peak < MOST, "{url}: {peak} KiB");
}
