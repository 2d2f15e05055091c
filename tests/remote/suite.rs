//! What every remote has to do.

use std::io::{Cursor, Read};

use isolith::digest::{ActionKey, DefinitionKey};
use isolith::oci::Hasher;
use isolith::remote::{Blob, MOST_RECORD, RecordKey, Remote, Subject, WriterId, checked};

pub fn blob(bytes: &[u8]) -> Blob {
    let mut hasher = Hasher::sha256();
    hasher.update(bytes);
    Blob { digest: hasher.text().parse().unwrap(), size: bytes.len() as u64 }
}

pub fn key(subject: Subject, writer: u8) -> RecordKey {
    RecordKey { subject, writer: WriterId::of(&[writer; 32]) }
}

pub fn put(remote: &dyn Remote, name: &Blob, bytes: &[u8]) -> isolith::Result<()> {
    remote.put_blob(name, &mut || Ok(Box::new(Cursor::new(bytes.to_vec()))))
}

pub fn get(remote: &dyn Remote, blob: &Blob) -> isolith::Result<Option<Vec<u8>>> {
    let mut out = Vec::new();
    let found = checked(remote, blob, &mut |bytes| {
        out.clear();
        // Whoever does not mind an error is not given wrong bytes for right ones.
        let _ = bytes.read_to_end(&mut out);
        Ok(())
    })?;
    Ok(found.then_some(out))
}

/// The conformance suite: `remote` is empty.
pub fn conforms(remote: &dyn Remote) {
    conforms_but(remote, &|keys| assert_eq!(remote.keys().unwrap(), keys), true);
}

/// The same for a remote that has no list of its records, and says so.
#[cfg(feature = "reapi")]
pub fn conforms_unlisted(remote: &dyn Remote) {
    conforms_but(remote, &|_| cannot_list(remote), true);
}

/// The same for one that besides never changes what it has, and says so.
#[cfg(feature = "object-store")]
pub fn conforms_frozen(remote: &dyn Remote) {
    conforms_but(remote, &|_| cannot_list(remote), false);
}

#[cfg(any(feature = "reapi", feature = "object-store"))]
fn cannot_list(remote: &dyn Remote) {
    let error = remote.keys().unwrap_err();
    assert_eq!(error.class(), isolith::error::Class::Usage);
    assert!(error.to_string().contains("cannot be listed"), "{error:?}");
}

fn conforms_but(remote: &dyn Remote, lists: &dyn Fn(&[RecordKey]), changes: bool) {
    let definition = key(Subject::Definition(DefinitionKey::from_bytes([1; 32])), 1);
    let action = key(Subject::Action(ActionKey::from_bytes([1; 32])), 1);
    let plan = key(Subject::plan([DefinitionKey::from_bytes([1; 32])]), 1);
    let keys = [definition, action, plan];
    assert_eq!(remote.records(&keys).unwrap(), [None, None, None]);
    assert!(remote.records(&[]).unwrap().is_empty());
    lists(&[]);

    // Blobs: whole, a range, absent.
    let bytes: Vec<u8> = (0..700_000u32).flat_map(u32::to_le_bytes).collect();
    let (large, none, empty) = (blob(&bytes), blob(b"not there"), blob(b""));
    assert_eq!(get(remote, &large).unwrap(), None);
    for (blob, bytes) in [(&large, &bytes[..]), (&empty, b"")] {
        put(remote, blob, bytes).unwrap();
        assert_eq!(get(remote, blob).unwrap().as_deref(), Some(bytes));
    }
    let has = [large.clone(), none.clone(), empty.clone()];
    assert_eq!(remote.has_blobs(&has).unwrap(), [true, false, true]);
    let mut part = Vec::new();
    let mut read = |from: &mut dyn Read| {
        part.clear();
        from.read_to_end(&mut part).unwrap();
        Ok(())
    };
    assert!(remote.blob(&large, Some(1_000_001..1_000_005), &mut read).unwrap());
    assert!(!remote.blob(&large, Some(0..large.size + 1), &mut |_| panic!("it is shorter")).unwrap());
    assert_eq!(part, bytes[1_000_001..1_000_005]);

    assert!(!remote.blob(&none, Some(0..1), &mut |_| panic!("it is not there")).unwrap());
    #[expect(clippy::reversed_empty_ranges, reason = "nobody should ask so")]
    let reversed = Some(5..4);
    assert!(!remote.blob(&large, reversed, &mut |_| panic!("it ends before it begins")).unwrap());
    for (at, length) in [(0, 1), (large.size - 1, 1), (17, 0), (0, large.size), (1 << 20, 1 << 20)] {
        let range = at..at + length;
        let mut read = |from: &mut dyn Read| {
            part.clear();
            from.read_to_end(&mut part).unwrap();
            Ok(())
        };
        assert!(remote.blob(&large, Some(range.clone()), &mut read).unwrap(), "{range:?}");
        assert_eq!(part, bytes[range.start as usize..range.end as usize], "{range:?}");
    }
    // Whoever stops early, or fails, is not told that the remote failed.
    let mut early = |from: &mut dyn Read| {
        from.read_exact(&mut [0; 10]).unwrap();
        Ok(())
    };
    assert!(remote.blob(&large, None, &mut early).unwrap());
    let own = remote.blob(&large, None, &mut |_| Err(isolith::Error::usage("of the reader"))).unwrap_err();
    assert!(own.to_string().contains("of the reader"), "{own}");
    let own = remote.put_blob(&none, &mut || Err(isolith::Error::usage("of the source"))).unwrap_err();
    assert!(own.to_string().contains("of the source"), "{own}");

    // A blob is sent once, and never under a wrong name or in part.
    remote.put_blob(&large, &mut || panic!("it is there")).unwrap();
    for wrong in [&b"not therE"[..], b"not there and more", b"not"] {
        assert!(put(remote, &none, wrong).is_err());
        assert_eq!(remote.has_blobs(std::slice::from_ref(&none)).unwrap(), [false]);
    }

    // Records: in order, one of each writer, the last one counts.
    if changes {
        remote.put_record(&definition, b"old", &[]).unwrap();
    }
    remote.put_record(&definition, b"definition", std::slice::from_ref(&large)).unwrap();
    if !changes {
        remote.put_record(&definition, b"definition", &[]).unwrap();
        let error = format!("{:?}", remote.put_record(&definition, b"new", &[]).unwrap_err());
        assert!(error.contains("replaces nothing"), "{error}");
    }
    remote.put_record(&plan, b"plan", &[]).unwrap();
    let found = remote.records(&keys).unwrap();
    assert_eq!(found, [Some(b"definition".to_vec()), None, Some(b"plan".to_vec())]);
    let other = RecordKey { writer: WriterId::of(&[2; 32]), ..definition };
    remote.put_record(&other, b"other", &[]).unwrap();
    let found = remote.records(&[other, definition]).unwrap();
    assert_eq!(found, [Some(b"other".to_vec()), Some(b"definition".to_vec())]);
    let mut all = vec![definition, plan, other];
    all.sort();
    lists(&all);

    // What it refers to has to be there, and it must not be too long.
    assert!(remote.put_record(&action, b"dangling", std::slice::from_ref(&none)).is_err());
    assert!(remote.put_record(&action, &vec![b' '; MOST_RECORD + 1], &[]).is_err());
    assert_eq!(remote.records(&[action]).unwrap(), [None]);
    remote.put_record(&action, &vec![b' '; MOST_RECORD], &[]).unwrap();

    // Every byte value, and none at all.
    let odd: Vec<u8> = (0..=255).collect();
    for (bytes, writer) in [(&odd[..], 3), (b"", 4)] {
        let key =
            if changes { other } else { RecordKey { writer: WriterId::of(&[writer; 32]), ..definition } };
        remote.put_record(&key, bytes, &[]).unwrap();
        assert_eq!(remote.records(&[key]).unwrap(), [Some(bytes.to_vec())]);
    }
    remote.put_record(&other, b"other", &[]).unwrap();
    // More keys than go out at a time.
    let many: Vec<RecordKey> = (0..40)
        .map(|n| key(Subject::Definition(DefinitionKey::from_bytes([n; 32])), 1 + n % 2))
        .chain([other, definition])
        .collect();
    let found = remote.records(&many).unwrap();
    assert_eq!(found.iter().flatten().count(), 3, "one of them twice");
    assert_eq!((found[1].as_deref(), &found[2]), (Some(&b"other"[..]), &None));
    assert_eq!(found[40].as_deref(), Some(&b"other"[..]));

    if changes {
        assert!(remote.remove(&definition).unwrap());
        assert!(!remote.remove(&definition).unwrap());
        assert_eq!(remote.records(&[definition, other]).unwrap(), [None, Some(b"other".to_vec())]);
    } else {
        let error = format!("{:?}", remote.remove(&definition).unwrap_err());
        assert!(error.contains("replaces nothing"), "{error}");
    }
    assert!(get(remote, &large).unwrap().is_some(), "the blob went with the record");

    sweeps(remote);

    // Many at once.
    std::thread::scope(|scope| {
        for n in 0..8u8 {
            let bytes = &bytes;
            scope.spawn(move || {
                let shared = &bytes[..100_000];
                put(remote, &blob(shared), shared).unwrap();
                let key = key(Subject::Action(ActionKey::from_bytes([9; 32])), 10 + n);
                remote.put_record(&key, &[n; 1000], &[blob(shared)]).unwrap();
                assert_eq!(remote.records(&[key]).unwrap(), [Some(vec![n; 1000])]);
                assert_eq!(get(remote, &blob(shared)).unwrap().as_deref(), Some(shared));
            });
        }
    });
}

/// A record that the suite leaves behind.
#[cfg(any(feature = "reapi", feature = "object-store"))]
pub fn left_behind() -> RecordKey {
    key(Subject::Definition(DefinitionKey::from_bytes([1; 32])), 2)
}

/// Blobs that nobody wants are taken out when they are old enough, and others are not; where a remote can do that.
fn sweeps(remote: &dyn Remote) {
    let (stays, goes) = (blob(b"it stays"), blob(b"it goes, and it is longer"));
    put(remote, &stays, b"it stays").unwrap();
    put(remote, &goes, b"it goes, and it is longer").unwrap();
    let both = [stays.clone(), goes.clone()];
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    let Some(none) = remote.sweep(&|_| false, now - 86400).unwrap() else { return };
    assert_eq!((none.blobs, none.bytes), (0, 0), "what was put just now");
    assert_eq!(remote.has_blobs(&both).unwrap(), [true, true]);
    let none = remote.sweep(&|_| true, now + 86400).unwrap().unwrap();
    assert_eq!(none.blobs, 0, "what is wanted");
    let swept = remote.sweep(&|digest| *digest != goes.digest, now + 86400).unwrap().unwrap();
    assert_eq!((swept.blobs, swept.bytes), (1, goes.size));
    assert_eq!(remote.has_blobs(&both).unwrap(), [true, false]);
    // It can be put there again.
    put(remote, &goes, b"it goes, and it is longer").unwrap();
    assert_eq!(get(remote, &goes).unwrap().as_deref(), Some(&b"it goes, and it is longer"[..]));
}

/// What a remote that may only be read has to do: `remote` keeps something, and refuses to change it with a message that
/// has `says` in it.
pub fn only_reads(remote: &dyn Remote, says: &str) {
    let keys = remote.keys().unwrap();
    only_reads_known(remote, *keys.first().expect("it keeps nothing"), says);
    assert_eq!(remote.keys().unwrap(), keys);
}

/// The same for a remote that has no list of its records: `first` is one that it keeps.
pub fn only_reads_known(remote: &dyn Remote, first: RecordKey, says: &str) {
    let before = remote.records(&[first]).unwrap();
    assert!(before[0].is_some());
    let other = key(Subject::plan([DefinitionKey::from_bytes([77; 32])]), 9);
    let new = blob(b"new");
    let errors = [
        remote.put_record(&other, b"new", &[]).unwrap_err(),
        remote.put_record(&first, b"changed", &[]).unwrap_err(),
        remote.remove(&first).map(drop).unwrap_err(),
        put(remote, &new, b"new").unwrap_err(),
    ];
    for error in errors {
        let text = format!("{error:?}");
        assert!(text.contains(says), "{text}");
    }
    assert_eq!(remote.records(&[first, other]).unwrap(), [before[0].clone(), None]);
    assert_eq!(remote.has_blobs(&[new]).unwrap(), [false]);
}
