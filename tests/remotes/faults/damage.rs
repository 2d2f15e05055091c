//! A directory remote whose files are damaged, before a build and while it runs, or whose file system is full or
//! read-only.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::backends::{Place, files};
use super::proxy::Dice;
use super::{Lab, runs, seed};
use crate::support::Shared;

/// A file system of its own, of 8 MiB. Mounting one takes root.
struct Disk {
    dir: tempfile::TempDir,
    mounted: bool,
}

impl Disk {
    fn new() -> Disk {
        let dir =
            tempfile::Builder::new().prefix("isolith-disk-").tempdir_in(crate::common::place()).unwrap();
        let mounted = rustix::process::geteuid().is_root();
        if mounted {
            mount(&["-t", "tmpfs", "-o", "size=8m,mode=0777", "tmpfs"], dir.path());
        }
        Disk { dir, mounted }
    }

    fn read_only(&self, yes: bool) {
        mount(&["-o", if yes { "remount,ro" } else { "remount,rw" }], self.dir.path());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            let _ = Command::new("umount").arg("-l").arg(self.dir.path()).status();
        }
    }
}

fn mount(args: &[&str], at: &Path) {
    let status = Command::new("mount").args(args).arg(at).status().unwrap();
    assert!(status.success(), "mount {args:?}");
}

/// Does something bad to one file.
fn damage(path: &Path, dice: &mut Dice) -> String {
    let name = path.file_name().unwrap().to_string_lossy().chars().take(8).collect::<String>();
    let length = fs::metadata(path).map_or(0, |meta| meta.len());
    let what = match dice.roll(6) {
        0 => fs::remove_file(path).map(|()| "removed"),
        1 => fs::write(path, "").map(|()| "emptied"),
        2 => OpenOptions::new()
            .write(true)
            .open(path)
            .and_then(|file| file.set_len(length / 2))
            .map(|()| "cut"),
        3 => OpenOptions::new().write(true).open(path).and_then(|file| {
            let at = dice.roll(length.max(1));
            file.write_at(&[dice.roll(256) as u8], at).map(|_| "changed")
        }),
        4 => fs::remove_file(path).and_then(|()| fs::create_dir(path)).map(|()| "made a directory"),
        _ => OpenOptions::new()
            .append(true)
            .open(path)
            .and_then(|mut file| std::io::Write::write_all(&mut file, &[0; 100]))
            .map(|()| "lengthened"),
    };
    format!("{name}: {}", what.unwrap_or("nothing"))
}

fn some(root: &Path, dice: &mut Dice) -> Vec<PathBuf> {
    let all: Vec<PathBuf> =
        files(&root.join("records")).into_iter().chain(files(&root.join("blobs"))).collect();
    let percent = *dice.pick(&[10, 50, 100]);
    all.into_iter().filter(|_| dice.roll(100) < percent).collect()
}

#[test]
fn trouble_with_a_directory() {
    let (runs, first) = (runs(), seed());
    let mut lab = Lab::new();
    let disk = Disk::new();
    for seed in first..first + runs {
        let shared = Shared::at(disk.dir.path());
        let (root, place) = (shared.path(), Place::at(shared.url()));
        let (over, kind) = (AtomicBool::new(false), std::cell::RefCell::new(Vec::new()));
        let note = |what: String| kind.borrow_mut().push(what);
        std::thread::scope(|scope| {
            let trouble = |dice: &mut Dice| match dice.roll(if disk.mounted { 5 } else { 3 }) {
                0 | 1 => some(root, dice).iter().for_each(|file| note(damage(file, dice))),
                2 => {
                    note("damaged meanwhile".to_string());
                    let (mut dice, over) = (dice.clone(), &over);
                    scope.spawn(move || {
                        while !over.load(Ordering::Relaxed) {
                            some(root, &mut dice).iter().for_each(|file| drop(damage(file, &mut dice)));
                            std::thread::sleep(Duration::from_millis(1 + dice.roll(60)));
                        }
                    });
                }
                3 => {
                    note("full".to_string());
                    let filler = fs::File::create(disk.dir.path().join("filler")).unwrap();
                    let free = 4096 * dice.roll(40);
                    let filled =
                        (0..2048).take_while(|at| filler.write_all_at(&[1; 4096], at * 4096).is_ok());
                    let length = 4096 * filled.count() as u64;
                    filler.set_len(length.saturating_sub(free)).unwrap();
                }
                _ => {
                    note("read-only".to_string());
                    disk.read_only(true);
                }
            };
            let end = || {
                over.store(true, Ordering::Relaxed);
                if disk.mounted {
                    disk.read_only(false);
                }
                let _ = fs::remove_file(disk.dir.path().join("filler"));
                kind.borrow_mut().drain(..).collect::<Vec<_>>()
            };
            /// Ends the thread, whatever fails.
            struct Over<'a>(&'a AtomicBool);
            impl Drop for Over<'_> {
                fn drop(&mut self) {
                    self.0.store(true, Ordering::Relaxed);
                }
            }
            let _over = Over(&over);
            lab.run(seed, (&place, &place), |_| (), trouble, end);
        });
        // Whoever is to remove them has to be able to.
        for dir in [root.join("records"), root.join("blobs")] {
            let _ = fs::set_permissions(dir, fs::Permissions::from_mode(0o777));
        }
    }
    lab.end("directory", runs);
}
