//! Records of extended tar headers: `LENGTH KEY=VALUE\n`, where the length counts the whole record in
//! decimal (POSIX.1-2001, pax, "Extended Header"). Values are any bytes; the length alone ends them.

/// Key of a path that does not fit the header.
pub(super) const PATH: &[u8] = b"path";
/// Key of a link target that does not fit the header.
pub(super) const LINKPATH: &[u8] = b"linkpath";
/// Key of a size that does not fit the header.
pub(super) const SIZE: &[u8] = b"size";
/// Key of a time with a sign or a fraction.
pub(super) const MTIME: &[u8] = b"mtime";
/// What comes before the name of an extended attribute.
pub(super) const XATTR: &[u8] = b"SCHILY.xattr.";

/// Adds a record.
pub(super) fn push(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let body = 1 + key.len() + 1 + value.len() + 1;
    // The length counts its own digits: at most one more than the rest alone would have.
    let mut length = body + body.to_string().len();
    if length.to_string().len() > body.to_string().len() {
        length = body + length.to_string().len();
    }
    out.extend_from_slice(format!("{length} ").as_bytes());
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// The records of a header; none when it is malformed.
pub(super) fn parse(mut bytes: &[u8]) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let space = bytes.iter().take(20).position(|b| *b == b' ')?;
        let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
        let (record, rest) = bytes.split_at_checked(length)?;
        let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|b| *b == b'=')?;
        records.push((record[..equals].to_vec(), record[equals + 1..].to_vec()));
        bytes = rest;
    }
    Some(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_count_themselves() {
        for len in (0..1200).chain([9_980, 9_990, 9_991, 99_985, 99_986, 99_990]) {
            let value = vec![b'\n'; len];
            let mut out = Vec::new();
            push(&mut out, b"key", &value);
            push(&mut out, b"k", b"");
            assert_eq!(
                parse(&out).unwrap(),
                [(b"key".to_vec(), value), (b"k".to_vec(), Vec::new())],
                "{len}"
            );
        }
        let mut out = Vec::new();
        push(&mut out, b"path", b"a");
        assert_eq!(out, b"9 path=a\n");
    }

    #[test]
    fn malformed_records_are_refused() {
        for bad in ["8 path=a\n", "11 path=a\n", "9 path=a", "x path=a\n", "5 ab\n", "9path=ab\n", "0 a=b\n"]
        {
            assert_eq!(parse(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
