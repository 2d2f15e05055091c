//! Signed indexes: no change of a message makes another text count than the one that was signed; and keyrings.
#![no_main]

use isolith::base::debian::{Keys, Release};
use libfuzzer_sys::fuzz_target;

/// Of a key that was thrown away.
const KEYRING: &[u8] = include_bytes!("../keyring.asc");
/// What it has signed: `corpus/in_release/signed`.
const TEXT: &str = include_str!("../signed.txt");

fuzz_target!(|bytes: &[u8]| {
    let mut keys = Keys::default();
    keys.add(KEYRING).unwrap();
    let now = 1_767_312_000;
    if let Ok(message) = std::str::from_utf8(bytes)
        && let Ok(text) = keys.verified(message, now)
    {
        let lines = |text: &str| text.lines().map(|line| line.trim_end().to_string()).collect::<Vec<_>>();
        assert_eq!(lines(&text), lines(TEXT));
        Release::parse(&text).unwrap();
    }
    let mut strangers = Keys::default();
    if strangers.add(bytes).is_ok() {
        let _ = strangers.verified(include_str!("../corpus/in_release/signed"), now);
    }
});
