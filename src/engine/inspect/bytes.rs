//! The first difference between two byte strings, with its surroundings in hex.

use std::io::{self, BufRead, BufReader, Read};

use serde::Serialize;

/// Bytes in a row of hex.
const ROW: usize = 16;
/// Rows shown: one before the difference, the one with it, two after.
const ROWS: usize = 4;

/// Where two byte strings part, and what stands there in each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bytes {
    /// Offset of the first byte that differs.
    pub offset: u64,
    /// The rows around it in each: `offset  hex  text`.
    pub rows: [Vec<String>; 2],
    /// The printable text that the byte is part of in each; empty when it is part of none.
    pub strings: [String; 2],
}

/// Longest text around a difference on each side of it.
const STRING: usize = 120;

/// The first difference, if there is one.
pub fn first(a: &[u8], b: &[u8]) -> Option<Bytes> {
    if a == b {
        return None;
    }
    let common = a.len().min(b.len());
    let at = (0..common).find(|at| a[*at] != b[*at]).unwrap_or(common);
    Some(Bytes {
        offset: at as u64,
        rows: [rows(a, at, 0), rows(b, at, 0)],
        strings: [string(a, at), string(b, at)],
    })
}

/// The same for files too large for memory.
pub fn stream(a: &mut impl Read, b: &mut impl Read) -> io::Result<Option<Bytes>> {
    let (mut a, mut b) = (BufReader::with_capacity(1 << 20, a), BufReader::with_capacity(1 << 20, b));
    let mut offset = 0u64;
    let mut last: Vec<u8> = Vec::new();
    loop {
        let (one, other) = (a.fill_buf()?, b.fill_buf()?);
        let common = one.len().min(other.len());
        let differs = (0..common).find(|at| one[*at] != other[*at]);
        if differs.is_none() && common > 0 {
            last = one[common.saturating_sub(ROW * 2)..common].to_vec();
            offset += common as u64;
            a.consume(common);
            b.consume(common);
            continue;
        }
        if one.is_empty() && other.is_empty() {
            return Ok(None);
        }
        let at = differs.unwrap_or(0);
        // What comes before may lie in the chunk before.
        let before = offset - last.len() as u64;
        let at = last.len() + at;
        let show = |chunk: &[u8]| {
            let all = [&last[..], &chunk[..chunk.len().min(at + ROW * ROWS)]].concat();
            (rows(&all, at, before), string(&all, at))
        };
        let ((row, text), (other_row, other_text)) = (show(one), show(other));
        let (rows, strings) = ([row, other_row], [text, other_text]);
        return Ok(Some(Bytes { offset: before + at as u64, rows, strings }));
    }
}

/// The rows around `at`; the first byte of `bytes` is at offset `base` of the whole.
fn rows(bytes: &[u8], at: usize, base: u64) -> Vec<String> {
    let aligned = (base + at as u64) / ROW as u64 * ROW as u64;
    let start = aligned.saturating_sub(ROW as u64).max(base);
    let mut out = Vec::new();
    let mut from = (start - base) as usize;
    while out.len() < ROWS && from < bytes.len() {
        let to = (from + ROW - ((base as usize + from) % ROW)).min(bytes.len());
        out.push(row(base + from as u64, &bytes[from..to]));
        from = to;
    }
    out
}

fn string(bytes: &[u8], at: usize) -> String {
    let printable = |b: &u8| (0x20..0x7f).contains(b);
    let (before, after) = bytes.split_at(at.min(bytes.len()));
    let start = before.iter().rev().take(STRING).take_while(|b| printable(b)).count();
    let end = after.iter().take(STRING).take_while(|b| printable(b)).count();
    String::from_utf8_lossy(&bytes[before.len() - start..before.len() + end]).into_owned()
}

fn row(offset: u64, bytes: &[u8]) -> String {
    let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let text: String =
        bytes.iter().map(|b| if (0x20..0x7f).contains(b) { char::from(*b) } else { '.' }).collect();
    format!("{offset:08x}  {:<width$}  {text}", hex.join(" "), width = ROW * 3 - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_first_difference_and_shows_its_row() {
        let a: Vec<u8> = (0..100).collect();
        let mut b = a.clone();
        b[40] = 0xff;
        let found = first(&a, &b).unwrap();
        assert_eq!(found.offset, 40);
        assert_eq!(found.rows[0].len(), 4);
        assert!(found.rows[0][0].starts_with("00000010  10 11"), "{:?}", found.rows);
        assert!(found.rows[1][1].contains(" ff "), "{:?}", found.rows);
        assert_eq!(found.strings[0].len(), 68, "{:?}", found.strings);
        assert_eq!(first(b"\0one 1\0", b"\0one 2\0").unwrap().strings, ["one 1", "one 2"]);
        assert_eq!(first(&a, &a), None);
        assert_eq!(first(b"abc", b"abcd").unwrap().offset, 3);
        assert_eq!(first(b"", b"x").unwrap().rows, [vec![], vec![row(0, b"x")]]);
    }

    #[test]
    fn streams_agree_with_memory() {
        let a: Vec<u8> = (0..3_000_000u32).map(|n| (n / 7) as u8).collect();
        for at in [0, 15, 1 << 20, (1 << 20) + 5, 2_999_999] {
            let mut b = a.clone();
            b[at] ^= 1;
            let found = stream(&mut &a[..], &mut &b[..]).unwrap().unwrap();
            assert_eq!(found.offset, at as u64);
            assert!(found.rows[0].len() <= ROWS && found.rows[0] != found.rows[1], "{found:?}");
        }
        assert_eq!(stream(&mut &a[..], &mut &a[..]).unwrap(), None);
        assert_eq!(stream(&mut &a[..], &mut &a[..10]).unwrap().unwrap().offset, 10);
    }
}
