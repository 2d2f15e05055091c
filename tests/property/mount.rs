//! Real overlay mounts, seen by the calling thread alone.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use isolith::layer::{IdShift, Manifest, View};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::wild;

/// Ids are as they are on disk: the tests run as the machine's root.
pub const IDS: IdShift = IdShift::by(0);

/// Puts the calling thread into a mount namespace of its own.
pub fn private_mounts() {
    // Threads that come later would share it.
    rayon::join(|| (), || ());
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
}

/// Layers laid out in a directory, lowest first.
pub struct Stack {
    pub dir: tempfile::TempDir,
    pub layers: Vec<Arc<Manifest>>,
}

impl Stack {
    pub fn new(layers: Vec<Manifest>) -> Stack {
        let mut stack = Stack { dir: super::scratch(), layers: Vec::new() };
        for layer in layers {
            wild::lay_out(&layer, &stack.fs(stack.layers.len()), IDS);
            stack.layers.push(Arc::new(layer));
        }
        stack
    }

    /// Where a layer's files are.
    pub fn fs(&self, layer: usize) -> PathBuf {
        self.dir.path().join(layer.to_string())
    }

    pub fn view(&self) -> View {
        View::new(self.layers.clone())
    }

    /// Calls `then` with the mounted stack: read-only, or with an upper directory.
    pub fn mounted<T>(&self, upper: Option<&Path>, then: impl FnOnce(&Path) -> T) -> T {
        let scratch = tempfile::tempdir_in(self.dir.path()).unwrap();
        let dir = |name: &str| {
            let dir = scratch.path().join(name);
            std::fs::create_dir(&dir).unwrap();
            dir
        };
        let (merged, skeleton) = (dir("merged"), dir("skeleton"));
        for hidden in self.view().hidden_dirs() {
            std::fs::create_dir_all(skeleton.join(hidden.as_relative())).unwrap();
        }
        // Overlayfs wants two directories at least.
        let lowest = dir("lowest");
        let full = (0..self.layers.len()).rev().filter(|at| !self.layers[*at].is_empty());
        let lower: Vec<PathBuf> = full.map(|at| self.fs(at)).chain([skeleton, lowest]).collect();
        let lower: Vec<&str> = lower.iter().map(|path| path.to_str().unwrap()).collect();
        let mut options = format!("userxattr,lowerdir={}", lower.join(":"));
        if let Some(upper) = upper {
            let work = dir("work");
            options += &format!(",volatile,upperdir={},workdir={}", upper.display(), work.display());
        }
        mount(Some("overlay"), &merged, Some("overlay"), MsFlags::empty(), Some(&options[..])).unwrap();
        let _unmount = Mounted(&merged);
        then(&merged)
    }
}

/// A mount that ends with it, also in a panic.
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        umount2(self.0, MntFlags::MNT_DETACH).unwrap();
    }
}
