//! What a directory must not be led to.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use isolith::digest::ActionKey;
use isolith::remote::{Directory, RecordKey, Remote, Settings, Subject, open};

use crate::suite::{blob, conforms, get, key, only_reads, put};

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
    let url = format!("file://{}", root.display());
    let settings = Settings { read_only: true, ..Settings::default() };
    #[cfg(feature = "net")]
    crate::big::passes_in_little_memory(&format!("{url}-big"));
    only_reads(&*open(&url, &settings).unwrap(), "is read-only");
    assert!(open(&format!("{url}/none"), &settings).is_err());
    assert!(!root.join("none").exists(), "it was made to be read");
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
