//! The view of a stack against the kernel's: arbitrary layers are placed, mounted, and listed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use proptest::prelude::*;

use super::testing::*;
use super::{Entry, IdShift, Kind, Manifest, Owners, View, Xattrs, place};
use crate::path::GuestPath;

/// Type letter, mode and owner by path.
type Listing = BTreeMap<Vec<u8>, (u8, u32, u32)>;

/// The layer as every file system can hold it, without whiteouts that nothing below can make invisible: those
/// in a directory that took the place of something else. Commits do not make such whiteouts.
fn mountable(below: &[Arc<Manifest>], layer: Manifest) -> Manifest {
    let merges = |path: &GuestPath| {
        let lower = below.iter().filter_map(|layer| layer.get(path));
        lower.into_iter().all(|entry| entry.kind == Kind::Dir { opaque: false })
    };
    let view = View::new(below.to_vec());
    let fits = |entry: &Entry| {
        entry.kind != Kind::Whiteout
            || view.lookup(&entry.path).is_some()
            || entry.path.ancestors().all(|p| merges(&p))
    };
    let simpler = |entry: Entry| Entry {
        gid: 0,
        mtime: 1.min(entry.mtime.unsigned_abs() as i64),
        xattrs: Xattrs::new(),
        kind: match entry.kind {
            Kind::CharDevice { .. } | Kind::BlockDevice { .. } => Kind::Fifo,
            Kind::File { .. } => Kind::File { size: 0, digest: crate::digest::ContentDigest::of(b"") },
            kind => kind,
        },
        ..entry
    };
    Manifest::new(layer.into_entries().into_iter().filter(fits).map(simpler).collect()).unwrap()
}

fn expected(view: &View) -> Listing {
    let line = |(path, found): (GuestPath, super::Found)| {
        let letter = match found.node.kind {
            Kind::File { .. } => b'f',
            Kind::Dir { .. } => b'd',
            Kind::Symlink { .. } => b'l',
            Kind::Fifo => b'p',
            _ => b'?',
        };
        let mode = if letter == b'l' { 0o777 } else { found.node.mode.into() };
        (path.as_bytes().to_vec(), (letter, mode, found.node.uid))
    };
    view.walk(&GuestPath::root()).into_iter().map(line).collect()
}

/// Mounts the stack in a mount namespace that ends with the listing.
fn mounted(dir: &Path, view: &View) -> Listing {
    let skeleton = dir.join("skeleton");
    fs::create_dir(&skeleton).unwrap();
    for hidden in view.hidden_dirs() {
        fs::create_dir_all(skeleton.join(hidden.as_relative())).unwrap();
    }
    let empty = dir.join("empty");
    fs::write(&empty, "").unwrap();
    let mut names = vec!["skeleton".to_string()];
    for (at, layer) in view.layers().iter().enumerate().filter(|(_, layer)| !layer.is_empty()) {
        let name = at.to_string();
        fs::create_dir(dir.join(&name)).unwrap();
        let owners = Owners::Guest(IdShift::by(0));
        place(layer, &dir.join(&name), owners, &|_| Ok(empty.clone())).unwrap();
        names.insert(0, name);
    }
    // Overlayfs wants a second layer, or an upper one.
    fs::create_dir(dir.join("lowest")).unwrap();
    names.push("lowest".into());
    fs::create_dir(dir.join("at")).unwrap();
    let script = format!(
        "mount -t overlay overlay -o userxattr,lowerdir={} at && cd at && find . -printf '%y %m %U %P\\0'",
        names.join(":")
    );
    let out = Command::new("unshare").args(["-m", "sh", "-c", &script]).current_dir(dir).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let lines = out.stdout.split(|b| *b == 0).filter(|line| !line.is_empty());
    let parse = |line: &[u8]| {
        let fields: Vec<&[u8]> = line.splitn(4, |b| *b == b' ').collect();
        let text = |at: usize| std::str::from_utf8(fields[at]).unwrap();
        let mode = u32::from_str_radix(text(1), 8).unwrap();
        (fields[3].to_vec(), (fields[0][0], mode, text(2).parse().unwrap()))
    };
    lines.map(parse).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..Default::default() })]
    /// Only root can mount without help; the sandbox's own tests do it as an ordinary user.
    #[test]
    fn the_kernel_shows_what_the_view_says(layers in prop::collection::vec(any_layer(), 1..5)) {
        if rustix::process::geteuid().is_root() {
            let mut stack: Vec<Arc<Manifest>> = Vec::new();
            for layer in layers {
                stack.push(Arc::new(mountable(&stack, layer)));
            }
            let view = View::new(stack);
            let dir = tempfile::tempdir().unwrap();
            let mut expected = expected(&view);
            // With nothing but empty layers the root is the skeleton's.
            expected.entry(Vec::new()).or_insert((b'd', 0o755, 0));
            prop_assert_eq!(mounted(dir.path(), &view), expected);
        }
    }
}
