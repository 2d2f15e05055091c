//! A blob that is larger than memory may get.
//!
//! The peak of a process is what counts, so each transfer has one of its own: this test binary, run again.

use std::io::{self, Read};
use std::process::Command;

use isolith::oci::Hasher;
use isolith::remote::{Blob, Settings, checked, open};

/// Bytes of the blob.
const SIZE: u64 = 160 << 20;
/// What a process may need beside the libraries it is made of, in KiB.
const MOST: u64 = 96 << 10;
const URL: &str = "ISOLITH_TEST_BIG_BLOB";

/// Bytes without repetition, made as they are read.
struct Noise(u64);

impl Read for Noise {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = buffer.len().min((SIZE - self.0) as usize).min(1 << 16);
        for (at, byte) in buffer[..n].iter_mut().enumerate() {
            let at = self.0 + at as u64;
            *byte = (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u8;
        }
        self.0 += n as u64;
        Ok(n)
    }
}

/// Sends a big blob to the remote at `url` and gets it back, in little memory.
pub fn passes_in_little_memory(url: &str) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["big::transfers_a_big_blob", "--exact", "--ignored", "--nocapture"])
        .env(URL, url)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{url}: {output:?}");
}

#[test]
#[ignore = "run by others, in a process of its own"]
fn transfers_a_big_blob() {
    let url = std::env::var(URL).expect("the test that starts this one names a remote");
    let mut hasher = Hasher::sha256();
    let mut buffer = vec![0; 1 << 16];
    let mut noise = Noise(0);
    loop {
        match noise.read(&mut buffer).unwrap() {
            0 => break,
            n => hasher.update(&buffer[..n]),
        }
    }
    let blob = Blob { digest: hasher.text().parse().unwrap(), size: SIZE };
    let settings = crate::settings();
    let remote = open(&url, &Settings { read_only: false, ..settings }).unwrap();
    remote.put_blob(&blob, &mut || Ok(Box::new(Noise(0)))).unwrap();
    let mut count = 0;
    let found = checked(&*remote, &blob, &mut |bytes| {
        count = io::copy(bytes, &mut io::sink()).unwrap();
        Ok(())
    });
    assert!(found.unwrap());
    assert_eq!(count, SIZE);
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < MOST, "{url}: {peak} KiB");
}
