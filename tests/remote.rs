//! What every remote has to do, and what else a directory must not be led to.

use std::io::{Cursor, Read};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use isolith::digest::{ActionKey, DefinitionKey};
use isolith::oci::Hasher;
use isolith::remote::{Blob, Directory, MOST_RECORD, RecordKey, Remote, Subject, WriterId, checked};

fn blob(bytes: &[u8]) -> Blob {
    let mut hasher = Hasher::sha256();
    hasher.update(bytes);
    Blob { digest: hasher.text().parse().unwrap(), size: bytes.len() as u64 }
}

fn key(subject: Subject, writer: u8) -> RecordKey {
    RecordKey { subject, writer: WriterId::of(&[writer; 32]) }
}

fn put(remote: &dyn Remote, name: &Blob, bytes: &[u8]) -> isolith::Result<()> {
    remote.put_blob(name, &mut || Ok(Box::new(Cursor::new(bytes.to_vec()))))
}

fn get(remote: &dyn Remote, blob: &Blob) -> isolith::Result<Option<Vec<u8>>> {
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
fn conforms(remote: &dyn Remote) {
    let definition = key(Subject::Definition(DefinitionKey::from_bytes([1; 32])), 1);
    let action = key(Subject::Action(ActionKey::from_bytes([1; 32])), 1);
    let plan = key(Subject::plan([DefinitionKey::from_bytes([1; 32])]), 1);
    let keys = [definition, action, plan];
    assert_eq!(remote.records(&keys).unwrap(), [None, None, None]);
    assert!(remote.records(&[]).unwrap().is_empty());
    assert!(remote.keys().unwrap().is_empty());

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

    // A blob is sent once, and never under a wrong name or in part.
    remote.put_blob(&large, &mut || panic!("it is there")).unwrap();
    for wrong in [&b"not therE"[..], b"not there and more", b"not"] {
        assert!(put(remote, &none, wrong).is_err());
        assert_eq!(remote.has_blobs(std::slice::from_ref(&none)).unwrap(), [false]);
    }

    // Records: in order, one of each writer, the last one counts.
    remote.put_record(&definition, b"old", &[]).unwrap();
    remote.put_record(&definition, b"definition", std::slice::from_ref(&large)).unwrap();
    remote.put_record(&plan, b"plan", &[]).unwrap();
    let found = remote.records(&keys).unwrap();
    assert_eq!(found, [Some(b"definition".to_vec()), None, Some(b"plan".to_vec())]);
    let other = RecordKey { writer: WriterId::of(&[2; 32]), ..definition };
    remote.put_record(&other, b"other", &[]).unwrap();
    let found = remote.records(&[other, definition]).unwrap();
    assert_eq!(found, [Some(b"other".to_vec()), Some(b"definition".to_vec())]);
    let mut all = vec![definition, plan, other];
    all.sort();
    assert_eq!(remote.keys().unwrap(), all);

    // What it refers to has to be there, and it must not be too long.
    assert!(remote.put_record(&action, b"dangling", std::slice::from_ref(&none)).is_err());
    assert!(remote.put_record(&action, &vec![b' '; MOST_RECORD + 1], &[]).is_err());
    assert_eq!(remote.records(&[action]).unwrap(), [None]);
    remote.put_record(&action, &vec![b' '; MOST_RECORD], &[]).unwrap();

    assert!(remote.remove(&definition).unwrap());
    assert!(!remote.remove(&definition).unwrap());
    assert_eq!(remote.records(&[definition, other]).unwrap(), [None, Some(b"other".to_vec())]);
    assert!(get(remote, &large).unwrap().is_some(), "the blob went with the record");

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

#[test]
fn a_directory_is_a_remote() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("shared/cache");
    assert!(Directory::open(&root).is_err());
    assert!(!root.exists());
    conforms(&Directory::create(&root).unwrap());
    Directory::create(&root).unwrap();
    let again = Directory::open(&root).unwrap();
    assert!(again.keys().unwrap().len() > 8);
    assert_eq!(std::fs::read_dir(root.join("tmp")).unwrap().count(), 0, "something is left over");
}

#[test]
fn a_directory_of_something_else_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("mine"), "x").unwrap();
    let error = Directory::create(dir.path()).unwrap_err();
    assert_eq!(error.class(), isolith::error::Class::Usage);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    std::fs::write(dir.path().join("isolith-remote"), "2\n").unwrap();
    assert!(Directory::open(dir.path()).unwrap_err().causes().join("").contains("version"));
}

fn record_file(root: &Path, key: &RecordKey) -> std::path::PathBuf {
    let name = key.to_string();
    root.join("records").join(&name[4..6]).join(name)
}

#[test]
fn what_others_put_into_a_directory_is_never_taken_for_bytes_of_ours() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("remote");
    let remote = Directory::create(&root).unwrap();
    let bytes = b"the bytes of a layer".to_vec();
    let name = blob(&bytes);
    put(&remote, &name, &bytes).unwrap();
    let hex = name.digest.as_ref().strip_prefix("sha256:").unwrap().to_string();
    let file = root.join("blobs").join(&hex[..2]).join(&hex);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o400, 0o400);

    // One changed bit, wherever it is, is an error that says which remote and which blob.
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        std::fs::write(&file, &changed).unwrap();
        let error = get(&remote, &name).unwrap_err().to_string();
        assert!(error.contains(&remote.name()) && error.contains(&hex), "{error}");
    }
    // One that was cut off or grew is not there, and is replaced.
    for wrong in [&bytes[1..], &[&bytes[..], b"!"].concat()] {
        std::fs::write(&file, wrong).unwrap();
        assert_eq!(get(&remote, &name).unwrap(), None);
        put(&remote, &name, &bytes).unwrap();
        assert_eq!(get(&remote, &name).unwrap().as_ref(), Some(&bytes));
    }

    // Links, pipes, sockets, directories and records without an end are not records.
    let key = key(Subject::Action(ActionKey::from_bytes([3; 32])), 1);
    let path = record_file(&root, &key);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "secret").unwrap();
    symlink(&secret, &path).unwrap();
    assert_eq!(remote.records(&[key]).unwrap(), [None]);
    std::fs::remove_file(&path).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
    assert_eq!(remote.records(&[key]).unwrap(), [None]);
    std::fs::remove_file(&path).unwrap();
    // Addresses of sockets are short.
    let short = dir.path().join("s");
    let socket = std::os::unix::net::UnixListener::bind(&short).unwrap();
    std::fs::rename(&short, &path).unwrap();
    assert_eq!(remote.records(&[key]).unwrap(), [None]);
    drop(socket);
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert_eq!(remote.records(&[key]).unwrap(), [None]);
    std::fs::remove_dir(&path).unwrap();
    std::fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
    assert_eq!(remote.records(&[key]).unwrap(), [None]);
    // A link is replaced, and what it leads to stays as it was.
    std::fs::remove_file(&path).unwrap();
    symlink(&secret, &path).unwrap();
    remote.put_record(&key, b"ours", &[]).unwrap();
    assert_eq!(remote.records(&[key]).unwrap(), [Some(b"ours".to_vec())]);
    assert_eq!(std::fs::read(&secret).unwrap(), b"secret");
    // Names that are no keys, and keys in the wrong place, are not listed.
    std::fs::write(path.with_file_name("act-junk"), "").unwrap();
    std::fs::create_dir_all(root.join("records/zz")).unwrap();
    std::fs::write(root.join("records/zz").join(key.to_string()), "").unwrap();
    assert_eq!(remote.keys().unwrap(), [key]);
}
