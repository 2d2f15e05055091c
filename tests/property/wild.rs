//! Layers of every shape that a file system can hold, with the bytes of their files.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use isolith::digest::ContentDigest;
use isolith::error::{Error, Result};
use isolith::layer::{Entry, IdShift, Kind, Manifest, Owners, Xattrs, place};
use isolith::path::GuestPath;
use proptest::prelude::*;
use proptest::sample::select;

/// The contents that files have: sizes around those that formats and buffers know, and holes.
pub struct Contents {
    dir: PathBuf,
    pub all: Vec<(u64, ContentDigest)>,
}

/// Number of contents that are small.
pub const SMALL: usize = 5;

pub fn contents() -> &'static Contents {
    static CONTENTS: OnceLock<Contents> = OnceLock::new();
    CONTENTS.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("property");
        std::fs::create_dir_all(&dir).unwrap();
        let bytes = |len: usize| (0..len).map(|at| (at * 31 % 251) as u8).collect::<Vec<u8>>();
        let mut all = Vec::new();
        let mut add = |len: u64, write: &dyn Fn(&File)| {
            let new = tempfile::NamedTempFile::new_in(&dir).unwrap();
            write(new.as_file());
            new.as_file().set_len(len).unwrap();
            let digest = ContentDigest::of(&std::fs::read(new.path()).unwrap());
            new.persist(dir.join(digest.to_hex())).unwrap();
            all.push((len, digest));
        };
        for len in [0, 1, 511, 512, 513, 262_144, 300_001] {
            add(len, &|file| file.write_all_at(&bytes(len as usize), 0).unwrap());
        }
        add(1 << 20, &|_| ());
        add(3 << 20, &|file| file.write_all_at(b"end", (3 << 20) - 3).unwrap());
        Contents { dir, all }
    })
}

impl Contents {
    /// The file with the content of an entry.
    pub fn of(&self, entry: &Entry) -> Result<PathBuf> {
        match &entry.kind {
            Kind::File { digest, .. } => Ok(self.dir.join(digest.to_hex())),
            other => Err(Error::machine(format!("{other:?} has no content"))),
        }
    }

    pub fn bytes(&self, at: usize) -> Vec<u8> {
        std::fs::read(self.dir.join(self.all[at].1.to_hex())).unwrap()
    }
}

/// Lays a layer out in a new directory.
pub fn lay_out(manifest: &Manifest, dest: &Path, ids: IdShift) {
    std::fs::create_dir(dest).unwrap();
    place(manifest, dest, Owners::Guest(ids), &|entry| contents().of(entry)).unwrap();
}

/// What layers are made of.
#[derive(Clone)]
pub struct Shape {
    /// Names of directory entries.
    pub names: BoxedStrategy<Vec<u8>>,
    /// Components of a path, at most.
    pub depth: usize,
    /// Whether files may be large.
    pub large: bool,
    /// Whether there are devices, whiteouts and opaque directories.
    pub imported: bool,
}

impl Shape {
    /// Few plain names, so that layers meet often. They sort on both sides of the slash.
    pub fn meeting(imported: bool) -> Shape {
        Shape { names: select(NAMES).prop_map(<[u8]>::to_vec).boxed(), depth: 3, large: false, imported }
    }

    /// Names that break what quotes, splits, or counts.
    pub fn odd() -> Shape {
        let special = select(vec![
            b" ".to_vec(),
            b"\n".to_vec(),
            b"-rf".to_vec(),
            b"...".to_vec(),
            b"\\".to_vec(),
            b"17 path=y\n".to_vec(),
            b"\xff\xfe".to_vec(),
            b"a\tb".to_vec(),
            "é".into(),
            b"x.wh.".to_vec(),
            b"\x01".to_vec(),
            b"*".to_vec(),
            b"a".to_vec(),
            b"a-".to_vec(),
            b"b".to_vec(),
            b"GNUSparseFile.0".to_vec(),
            vec![b'n'; 255],
            vec![0xe9; 255],
        ]);
        let any = prop::collection::vec(any::<u8>(), 1..256).prop_map(|mut name| {
            name.iter_mut().filter(|b| matches!(**b, 0 | b'/' | b'.')).for_each(|b| *b = b'_');
            name
        });
        Shape { names: prop_oneof![3 => special, 1 => any].boxed(), depth: 9, large: true, imported: true }
    }

    /// A layer of at most `count` entries and the directories they are in.
    pub fn layer(self, count: usize) -> impl Strategy<Value = Manifest> {
        let path = prop::collection::vec(self.names.clone(), 0..=self.depth);
        let item = (path, 0u8..16, about(), any::<prop::sample::Index>());
        prop::collection::vec(item, 0..=count).prop_map(move |items| {
            let mut all: BTreeMap<GuestPath, Entry> = BTreeMap::new();
            for (path, kind, about, index) in items {
                self.insert(&mut all, path.join(&b'/'), kind, about, index);
            }
            Manifest::new(all.into_values().collect()).unwrap()
        })
    }

    /// Adds an entry, unless what is there forbids it.
    fn insert(
        &self,
        all: &mut BTreeMap<GuestPath, Entry>,
        path: Vec<u8>,
        kind: u8,
        about: About,
        index: prop::sample::Index,
    ) {
        let path = GuestPath::from_relative(path).unwrap();
        let dir = |path: &GuestPath| all.get(path).map(|e| matches!(e.kind, Kind::Dir { .. }));
        if path.ancestors().any(|above| dir(&above) == Some(false)) || all.contains_key(&path) {
            return;
        }
        let opaque = |e: &Entry| e.kind == Kind::Dir { opaque: true };
        let below_opaque = path.ancestors().any(|above| all.get(&above).is_some_and(opaque));
        let linkable = |e: &&Entry| {
            e.path < path && !matches!(e.kind, Kind::Dir { .. } | Kind::Whiteout | Kind::HardLink { .. })
        };
        let linkable: Vec<&GuestPath> = all.values().filter(linkable).map(|e| &e.path).collect();
        let file = |at: usize| {
            let (size, digest) = contents().all[at];
            Kind::File { size, digest }
        };
        let large = if self.large { contents().all.len() } else { SMALL };
        let kind = match kind {
            _ if path.is_root() => Kind::Dir { opaque: false },
            0 | 1 => Kind::Symlink { target: index.get(TARGETS).to_vec() },
            2 => Kind::Fifo,
            3 if self.imported => Kind::CharDevice { major: 1, minor: 3 },
            4 if self.imported => Kind::BlockDevice { major: 7, minor: 300 },
            5..=7 if self.imported && !below_opaque => Kind::Whiteout,
            8 | 9 if self.imported => Kind::Dir {
                opaque: !all.values().any(|e| e.path.starts_with(&path) && e.kind == Kind::Whiteout),
            },
            10 => Kind::Dir { opaque: false },
            11 | 12 if !linkable.is_empty() => {
                Kind::HardLink { target: index.get(&linkable).to_owned().clone() }
            }
            _ => file(index.index(large)),
        };
        for above in path.ancestors() {
            let root = About { mode: 0o755, uid: 0, gid: 0, mtime: 1, user: Xattrs::new(), special: 0 };
            all.entry(above.clone()).or_insert_with(|| root.of(above, Kind::Dir { opaque: false }));
        }
        all.insert(path.clone(), about.of(path, kind));
    }
}

/// Names in layers that are to meet each other.
pub const NAMES: &[&[u8]] = &[b"a", b"a-", b"b", b"b0", b"\xff\n"];

/// Where symlinks lead: never out of the directory they are in, because tests write through them.
pub const TARGETS: &[&[u8]] = &[b"a", b"b", b"a/b", b"a-", &[b'l'; 101], &[0xff; 300], b" \n"];

#[derive(Clone, Debug)]
struct About {
    mode: u16,
    uid: u32,
    gid: u32,
    mtime: i64,
    user: Xattrs,
    special: u8,
}

fn about() -> impl Strategy<Value = About> {
    let name =
        select(vec![b"user.a".to_vec(), b"user.\xff \n".to_vec(), [b"user.", &[b'x'; 200][..]].concat()]);
    let user = prop::collection::btree_map(name, prop::collection::vec(any::<u8>(), 0..200), 0..3);
    let id = || prop_oneof![Just(0u32), Just(1000), Just(65535), 0u32..65536];
    let time = prop_oneof![Just(1i64), -(1i64 << 31)..(1 << 34)];
    (0u16..0o10000, id(), id(), time, user, 0u8..12)
        .prop_map(|(mode, uid, gid, mtime, user, special)| About { mode, uid, gid, mtime, user, special })
}

impl About {
    fn of(&self, path: GuestPath, kind: Kind) -> Entry {
        let About { mode, uid, gid, mtime, mut user, special } = self.clone();
        let (mode, uid, gid, mtime) = match kind {
            Kind::HardLink { .. } | Kind::Whiteout => (0, 0, 0, 0),
            Kind::Symlink { .. } => (0, uid, gid, mtime),
            _ => (mode, uid, gid, mtime),
        };
        match (&kind, special) {
            (Kind::File { .. }, 0) => _ = user.insert(b"security.capability".to_vec(), capability()),
            (Kind::File { .. } | Kind::Dir { .. }, 1) => {
                user.insert(b"system.posix_acl_access".to_vec(), access_list(mode));
            }
            (Kind::Dir { .. }, 2) => {
                _ = user.insert(b"system.posix_acl_default".to_vec(), access_list(0o750))
            }
            _ => {}
        }
        let xattrs = if matches!(kind, Kind::File { .. } | Kind::Dir { .. }) { user } else { Xattrs::new() };
        Entry { path, mode, uid, gid, mtime, xattrs, kind }
    }
}

/// `cap_net_bind_service+ep`, version 2.
pub fn capability() -> Vec<u8> {
    [&0x0200_0001u32.to_le_bytes()[..], &[0, 4, 0, 0], &[0; 12]].concat()
}

/// An access list that says of owner, group and others what `mode` says, and lets user 7 read.
pub fn access_list(mode: u16) -> Vec<u8> {
    let entry = |tag: u16, perm: u16, id: u32| {
        [&tag.to_le_bytes()[..], &perm.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let none = u32::MAX;
    let entries = [
        entry(1, mode >> 6 & 7, none),
        entry(2, 4, 7),
        entry(4, 5, none),
        entry(0x10, mode >> 3 & 7, none),
        entry(0x20, mode & 7, none),
    ];
    [2u32.to_le_bytes().to_vec(), entries.concat()].concat()
}
