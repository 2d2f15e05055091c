//! Packages as layers: unpacked, as dpkg would leave them before it configures them.

use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};

use super::Package;
use crate::digest::LayerId;
use crate::error::{Error, Result};
use crate::layer::{IdShift, Limits, Manifest, deb};
use crate::store::{Scratch, Store};

/// How many packages are fetched at a time.
const FETCHES: usize = 6;

/// Opens the file of a package, fetched if need be, its digest checked.
pub type Open<'a> = &'a (dyn Fn(&Package) -> Result<File> + Sync);

/// One package as a layer of its own.
pub fn lay_one(
    store: &Store,
    package: &Package,
    file: File,
    limits: Limits,
    ids: IdShift,
) -> Result<LayerId> {
    let scratch = store.scratch()?;
    let tree = scratch.tree()?;
    let (control, manifest) = deb::unpack(file, &tree, ids, limits).map_err(|why| of(package, why))?;
    check(package, &control)?;
    store.add_layer(&tree, &manifest)
}

/// All of the packages as one layer. They are fetched and unpacked side by side, the largest first.
pub fn lay_all(
    store: &Store,
    packages: &[Package],
    open: Open,
    limits: Limits,
    ids: IdShift,
) -> Result<LayerId> {
    let scratch = store.scratch()?;
    let mut order: Vec<usize> = (0..packages.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse(packages[*at].size));
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let first: Mutex<Option<Error>> = Mutex::new(None);
    let fail = |why: Error| {
        failed.store(true, Ordering::Relaxed);
        first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
    };
    let unpacked = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(packages.len()).max(1);
    // What is fetched waits here until somebody has time to unpack it.
    let (sender, receiver) = mpsc::sync_channel::<(usize, File)>(threads);
    let receiver = Mutex::new(receiver);
    let fetch = |sender: mpsc::SyncSender<(usize, File)>| {
        while let Some(at) = order.get(next.fetch_add(1, Ordering::Relaxed)).copied() {
            if failed.load(Ordering::Relaxed) {
                return;
            }
            match open(&packages[at]) {
                Ok(file) => {
                    if sender.send((at, file)).is_err() {
                        return;
                    }
                }
                Err(why) => return fail(why),
            }
        }
    };
    let unpack = || {
        loop {
            let got = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok((at, file)) = got else { return };
            if failed.load(Ordering::Relaxed) {
                continue; // Those who fetch must not wait for us.
            }
            match unpack_into(&scratch, at, &packages[at], file, limits, ids) {
                Ok(done) => unpacked.lock().unwrap_or_else(PoisonError::into_inner).push((at, done)),
                Err(why) => fail(why),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..FETCHES.min(packages.len()) {
            let sender = sender.clone();
            scope.spawn(|| fetch(sender));
        }
        drop(sender);
        for _ in 0..threads {
            scope.spawn(unpack);
        }
    });
    if let Some(why) = first.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(why);
    }
    let mut unpacked = unpacked.into_inner().unwrap_or_else(PoisonError::into_inner);
    unpacked.sort_by_key(|(at, _)| *at);
    let parts: Vec<_> = unpacked
        .iter()
        .map(|(at, (tree, manifest))| (deb::Package { name: &packages[*at].name, manifest }, tree.as_path()))
        .collect();
    let tree = scratch.tree()?;
    let manifest = deb::join(&parts, &tree, ids)?;
    store.add_layer(&tree, &manifest)
}

fn unpack_into(
    scratch: &Scratch,
    at: usize,
    package: &Package,
    file: File,
    limits: Limits,
    ids: IdShift,
) -> Result<(PathBuf, Manifest)> {
    let tree = scratch.path().join(at.to_string());
    std::fs::create_dir(&tree).map_err(|why| Error::io("create", &tree, why))?;
    let (control, manifest) = deb::unpack(file, &tree, ids, limits).map_err(|why| of(package, why))?;
    check(package, &control)?;
    Ok((tree, manifest))
}

/// The package says the same of itself as the index did.
fn check(package: &Package, control: &deb::Control) -> Result<()> {
    let found = (&control.name, &control.version, &control.arch);
    if found == (&package.name, &package.version, &package.arch) {
        return Ok(());
    }
    let wanted = format!("{} {} ({})", package.name, package.version, package.arch);
    let why = format!("it says it is {} {} ({})", found.0, found.1, found.2);
    Err(Error::recipe(format!("the file pinned as the package {wanted} is another one"))
        .because(why)
        .hint("`isolith lock --update` pins the base anew"))
}

fn of(package: &Package, why: Error) -> Error {
    why.within(format!("cannot unpack the package `{}` ({})", package.name, package.path))
}
