//! What the store believes, what it refuses, and what it forgets.

mod store_support;

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use isolith::error::Class;
use isolith::layer::Manifest;
use isolith::store::{Presence, Store, remove_tree};
use store_support::*;

fn open(root: &Path, boot: &str) -> Store {
    Store::open_under_boot(root, boot).unwrap()
}

#[test]
fn a_layer_from_another_boot_is_hashed_again_before_use() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), "boot-a");
    let (kept, spoilt) = (add_layer(&store, "file", b"content"), add_layer(&store, "file", b"CONTENT"));
    assert_eq!(store.presence(&kept), Presence::Ready);

    let store = open(dir.path(), "boot-b");
    assert_eq!(store.presence(&kept), Presence::Unverified);
    assert!(store.ready(&kept, ids()).unwrap());
    assert_eq!(store.presence(&kept), Presence::Ready);
    // The new mark took the place of the old one.
    assert_eq!(open(dir.path(), "boot-a").presence(&kept), Presence::Unverified);

    // Same size, same times: only the content can tell.
    let file = store.layer_fs(&spoilt).join("file");
    let times = std::fs::metadata(&file).unwrap().modified().unwrap();
    write(&file, b"CONTENt");
    std::fs::File::options().write(true).open(&file).unwrap().set_modified(times).unwrap();
    assert!(!store.ready(&spoilt, ids()).unwrap());
    assert_eq!(store.presence(&spoilt), Presence::Missing);
    assert!(!store.layer_dir(&spoilt).exists());
    assert_eq!(store.fsck(ids()).unwrap(), []);
}

#[test]
fn the_empty_layer_is_always_there_and_never_stored() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let run = store.new_run(ids()).unwrap();
    let id = store.add_layer(&run.upper(), &Manifest::default()).unwrap();
    assert_eq!(id, Manifest::empty_id());
    assert_eq!(store.presence(&id), Presence::Ready);
    assert!(store.ready(&id, ids()).unwrap());
    assert!(store.manifest(&id).unwrap().unwrap().is_empty());
    assert_eq!(store.info().unwrap().layers, 0);
}

#[test]
fn a_layer_that_lost_a_part_is_missing_and_can_be_put_back() {
    let dir = tempfile::tempdir().unwrap();
    for lost in ["manifest.boot", "fs"] {
        let id = add_layer(&open(dir.path(), "boot"), "file", b"content");
        let store = open(dir.path(), "boot");
        remove_tree(&store.layer_dir(&id).join(lost)).unwrap();
        assert_ne!(store.presence(&id), Presence::Ready);
        // The same layer made again takes the place of the damaged one.
        assert_eq!(add_layer(&store, "file", b"content"), id);
        assert_eq!(store.presence(&id), Presence::Ready);
        assert_eq!(store.fsck(ids()).unwrap(), [], "after losing {lost}");
        drop(store);
        assert_eq!(names(dir.path(), "tmp"), [""; 0]);
    }
    let id = add_layer(&open(dir.path(), "boot"), "file", b"content");
    let store = open(dir.path(), "boot");
    std::fs::write(store.layer_dir(&id).join("manifest.boot"), b"nonsense").unwrap();
    assert!(store.manifest(&id).unwrap().is_none());
    assert_eq!(store.presence(&id), Presence::Missing);
}

#[test]
fn a_layer_that_is_there_already_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let id = add_layer(&store, "file", b"content");
    let inode = std::fs::metadata(store.layer_fs(&id)).unwrap().ino();
    assert_eq!(add_layer(&store, "file", b"content"), id);
    assert_eq!(std::fs::metadata(store.layer_fs(&id)).unwrap().ino(), inode);
}

#[test]
fn a_layer_of_foreign_ids_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let id = add_layer(&store, "file", b"content");
    let others = isolith::layer::IdShift::by(ids().offset + 100_000);
    assert!(!store.ready(&id, others).unwrap());
    assert_eq!(store.presence(&id), Presence::Missing);
    // Nor is one with an id for every owner where owners are recorded.
    let id = add_layer(&store, "file", b"content");
    assert!(store.ready(&id, ids()).unwrap());
    assert!(!store.ready(&id, isolith::layer::IdShift::recorded(0)).unwrap());
}

#[test]
fn a_damaged_record_is_a_miss_and_fsck_removes_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let layer = add_layer(&store, "file", b"content");
    let (key, definition) = (action_key("a"), definition_key("a"));
    store.put_action(&key, &action_record("a", layer)).unwrap();
    store.put_definition(&definition, &definition_record("a", layer)).unwrap();
    assert_eq!(store.action(&key).unwrap(), Some(action_record("a", layer)));
    assert_eq!(store.definition(&definition).unwrap(), Some(definition_record("a", layer)));
    assert_eq!(store.fsck(ids()).unwrap(), []);

    let path = dir.path().join(format!("actions/{}/{key}", &key.to_hex()[..2]));
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 10]).unwrap();
    assert_eq!(store.action(&key).unwrap(), None);
    let problems = store.fsck(ids()).unwrap();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].path.starts_with("actions/") && problems[0].found == "it is damaged");
    assert!(!path.exists());

    // Both in one file: each reader finds its own.
    let (a, d) = (action_record("a", layer), definition_record("a", layer));
    store.put_result((&key, &a), (&definition, &d)).unwrap();
    assert_eq!((store.action(&key).unwrap(), store.definition(&definition).unwrap()), (Some(a), Some(d)));
    assert_eq!(store.fsck(ids()).unwrap(), []);

    // A record that is whole, but of another document.
    store.put_action(&key, &action_record("b", layer)).unwrap();
    let problems = store.fsck(ids()).unwrap();
    assert_eq!(problems.iter().map(|p| &p.found[..]).collect::<Vec<_>>(), ["its document has another key"]);

    store.remove_layer(&layer).unwrap();
    let problems = store.fsck(ids()).unwrap();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].path.starts_with("definitions/") && problems[0].found.ends_with("is missing"));
    assert_eq!(store.fsck(ids()).unwrap(), []);
}

#[test]
fn fsck_finds_damage_and_strays_of_every_kind_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let layer = add_layer(&store, "file", b"content");
    let key = action_key("a");
    store.put_log(&key, b"a line\n").unwrap();
    store.put_note("kind", "key", &1).unwrap();
    store.push_root(&root_record("a", layer, 1), &[]).unwrap();
    store.cache_mount("cache", ids()).unwrap();
    write(&store.layer_fs(&layer).join("extra"), b"");
    std::fs::write(store.log_path(&key), b"not zstd").unwrap();
    for stray in [
        "layers/zz",
        "actions/00/stray",
        "definitions/00/x",
        "failed/00/x",
        "logs/00/x.zst",
        "mounts/x",
        "locks/x",
    ] {
        std::fs::create_dir_all(dir.path().join(stray).parent().unwrap()).unwrap();
        std::fs::write(dir.path().join(stray), b"stray").unwrap();
    }
    for (kind, name) in [("notes/kind", None), ("roots", None), ("tmp", Some("left"))] {
        let name = name.map_or_else(|| names(dir.path(), kind)[0].clone(), str::to_string);
        std::fs::write(dir.path().join(kind).join(name), b"garbage").unwrap();
    }
    std::fs::write(dir.path().join("thesis.tex"), b"precious").unwrap();
    let problems = store.fsck(ids()).unwrap();
    assert_eq!(problems.len(), 13, "{problems:#?}");
    assert!(problems.iter().all(|p| p.is_left_alone() == (p.path == "thesis.tex")), "{problems:#?}");
    assert_eq!(store.presence(&layer), Presence::Missing);
    assert!(dir.path().join("thesis.tex").exists());
    std::fs::remove_file(dir.path().join("thesis.tex")).unwrap();
    assert_eq!(store.fsck(ids()).unwrap(), []);
}

#[test]
fn logs_come_back_whole_small_and_large() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let key = action_key("a");
    assert_eq!(store.read_log(&key).unwrap(), None);
    let large: Vec<u8> = (0..300_000u32).flat_map(|n| n.to_le_bytes()).collect();
    for plain in [&b""[..], b"one line\n", &large] {
        let mut writer = store.log_writer(&key);
        plain.chunks(1000).for_each(|part| writer.write(part).unwrap());
        writer.finish().unwrap();
        assert!(store.read_log(&key).unwrap().unwrap_or_default() == plain);
    }
    // A log that is given up leaves the earlier one.
    let mut writer = store.log_writer(&key);
    writer.write(&vec![b'x'; 1 << 20]).unwrap();
    drop(writer);
    assert!(store.read_log(&key).unwrap().unwrap() == large);
    // An empty one takes it away.
    store.put_log(&key, b"").unwrap();
    assert_eq!(store.read_log(&key).unwrap(), None);
    drop(store);
    assert_eq!(names(dir.path(), "tmp"), [""; 0]);
}

#[test]
fn the_state_of_a_failed_step_is_kept_replaced_and_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let key = action_key("a");
    assert_eq!(store.failed(&key), None);
    for content in [b"first", b"later"] {
        let run = store.new_run(ids()).unwrap();
        write(&run.upper().join("file"), content);
        store.keep_failed(&key, run).unwrap();
        let state = dir.path().join(store.failed(&key).unwrap());
        assert_eq!(std::fs::read(state.join("file")).unwrap(), content);
        assert_eq!(names(dir.path(), "failed"), [&key.to_hex()[..2]]);
    }
    assert_eq!(store.info().unwrap().failed, 1);
    store.drop_failed(&key).unwrap();
    assert_eq!(store.failed(&key), None);
    store.drop_failed(&key).unwrap();
    drop(store);
    assert_eq!(names(dir.path(), "tmp"), [""; 0]);
}

#[test]
fn roots_are_newest_first_without_repeats_and_at_most_sixteen() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let layer = Manifest::empty_id();
    for n in 0..20 {
        store.push_root(&root_record(&n.to_string(), layer, n), &[]).unwrap();
    }
    let recipe = Path::new("/recipes/test.toml");
    let times = |store: &Store| store.roots(recipe).unwrap().iter().map(|r| r.finished).collect::<Vec<_>>();
    assert_eq!(times(&store), (4..20).rev().collect::<Vec<_>>());

    // Nothing new: not written, only touched.
    let file = dir.path().join("roots").join(&names(dir.path(), "roots")[0]);
    let before = std::fs::metadata(&file).unwrap();
    std::fs::File::open(&file).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    store.push_root(&root_record("19", layer, 99), &[]).unwrap();
    let after = std::fs::metadata(&file).unwrap();
    assert_eq!(before.ino(), after.ino());
    assert!(after.mtime() >= before.mtime());

    store.push_root(&root_record("10", layer, 100), &[]).unwrap();
    assert_eq!(times(&store)[..2], [100, 19]);
    assert_eq!(store.roots(recipe).unwrap().len(), 16);
    assert_eq!(store.roots(Path::new("/other")).unwrap(), []);
    // What came again has its number again; the others keep theirs.
    let numbers: Vec<u64> = store.roots(recipe).unwrap().iter().map(|r| r.number).collect();
    assert_eq!((numbers[0], numbers[1]), (11, 20));
    store.push_root(&root_record("new", layer, 101), &[]).unwrap();
    assert_eq!(store.roots(recipe).unwrap()[0].number, 21);
}

#[test]
fn notes_and_cache_mounts_are_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.get_note::<u32>("kind", "../key"), None);
    store.put_note("kind", "../key", &7).unwrap();
    assert_eq!(store.get_note("kind", "../key"), Some(7));
    assert_eq!(store.get_note::<String>("kind", "../key"), None);
    assert_eq!(store.get_note::<u32>("other", "../key"), None);

    let mount = store.cache_mount("id", ids()).unwrap();
    let meta = std::fs::metadata(dir.path().join(&mount)).unwrap();
    assert_eq!((Some(meta.uid()), meta.mode() & 0o7777), (ids().to_disk(0), 0o1777));
    write(&dir.path().join(&mount).join("kept"), b"");
    assert_eq!(store.cache_mount("id", ids()).unwrap(), mount);
    assert!(dir.path().join(&mount).join("kept").exists());
    assert_ne!(store.cache_mount("other", ids()).unwrap(), mount);
}

#[test]
fn a_run_directory_is_ready_for_overlayfs_and_emptied_even_in_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let run = store.new_run(ids()).unwrap();
        std::fs::write(run.upper().join("file"), b"").unwrap();
        assert_eq!(run.path(), dir.path().join("tmp").join(run.name()));
        for part in ["upper", "work"] {
            let meta = std::fs::metadata(run.path().join(part)).unwrap();
            assert_eq!((Some(meta.uid()), meta.mode() & 0o7777), (ids().to_disk(0), 0o1777));
        }
        let inner = run.path().join("work/work");
        std::fs::create_dir(&inner).unwrap();
        std::fs::write(inner.join("file"), b"").unwrap();
        std::fs::set_permissions(&inner, PermissionsExt::from_mode(0o000)).unwrap();
        panic!("on purpose");
    }));
    assert!(ended.is_err());
    let run = format!("tmp/{}", names(dir.path(), "tmp")[0]);
    assert_eq!(names(dir.path(), &run), ["lock", "work"]);
    assert_eq!(names(dir.path(), &format!("{run}/work")), [""; 0]);
    // The next run uses the same directory, afresh; one beside it gets another.
    let (next, beside) = (store.new_run(ids()).unwrap(), store.new_run(ids()).unwrap());
    assert_eq!(format!("tmp/{}", next.name()), run);
    assert_ne!(beside.name(), next.name());
    assert_eq!(std::fs::read_dir(next.upper()).unwrap().count(), 0);
    drop((next, beside, store));
    assert_eq!(names(dir.path(), "tmp"), [""; 0]);
}

#[test]
fn trees_of_any_depth_and_mode_are_removed_and_links_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    let precious = dir.path().join("precious");
    std::fs::write(&precious, b"keep me").unwrap();
    std::fs::create_dir_all(tree.join("locked/in")).unwrap();
    symlink(dir.path(), tree.join("link")).unwrap();
    for (path, mode) in [("locked/in", 0o000), ("locked", 0o500)] {
        std::fs::set_permissions(tree.join(path), PermissionsExt::from_mode(mode)).unwrap();
    }
    // Deeper than PATH_MAX and than the limit of open files.
    let mut level = rustix::fs::open(&tree, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    for _ in 0..3000 {
        rustix::fs::mkdirat(&level, "deep", rustix::fs::Mode::RWXU).unwrap();
        level =
            rustix::fs::openat(&level, "deep", rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    }
    remove_tree(&tree).unwrap();
    assert!(!tree.exists());
    assert_eq!(std::fs::read(&precious).unwrap(), b"keep me");
    remove_tree(&tree).unwrap();
    remove_tree(&precious).unwrap();
    assert!(!precious.exists());
}

#[test]
fn opening_makes_a_private_store_and_refuses_anything_else() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("a/store");
    drop(Store::open(&root).unwrap());
    let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!(mode(&root), 0o700);
    assert_eq!(mode(&root.join("layers")), 0o755);
    let tag = std::fs::read_to_string(root.join("CACHEDIR.TAG")).unwrap();
    assert!(tag.starts_with("Signature: 8a477f597d28d172789f06886806bc55\n"));

    // What got lost is made again, by a sweep or when the store is opened.
    std::fs::remove_dir(root.join("actions")).unwrap();
    std::fs::remove_dir(root.join("tmp")).unwrap();
    let store = Store::open(&root).unwrap();
    store.sweep();
    add_layer(&store, "file", b"content");
    remove_tree(&root.join("layers")).unwrap();
    drop(store);
    std::fs::remove_file(root.join("version")).unwrap();
    let store = Store::open(&root).unwrap();
    add_layer(&store, "file", b"content");
    drop(store);

    std::fs::write(root.join("version"), "isolith store 99\n").unwrap();
    let refused = Store::open(&root).err().unwrap();
    assert!(refused.what().contains("`isolith store 99`") && refused.hint_text().is_some(), "{refused:?}");

    let home = dir.path().join("home");
    std::fs::create_dir(&home).unwrap();
    std::fs::write(home.join("thesis.tex"), b"precious").unwrap();
    let refused = Store::open(&home).err().unwrap();
    assert!(refused.what().contains("holds `thesis.tex`"), "{refused:?}");
    let refused = Store::clear(&home).err().unwrap();
    assert_eq!(refused.class(), Class::Usage);
    assert_eq!(names(dir.path(), "home"), ["thesis.tex"]);
}

#[test]
fn clearing_leaves_what_is_not_the_stores_and_goes_on_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let store = Store::open(&root).unwrap();
    add_layer(&store, "file", b"content");
    drop(store);
    // As a clear leaves it that was killed half way.
    std::fs::remove_file(root.join("version")).unwrap();
    remove_tree(&root.join("layers")).unwrap();
    std::fs::write(root.join(".gitignore"), b"*\n").unwrap();
    let cleared = Store::clear(&root).unwrap();
    assert_eq!(cleared.left, [root.join(".gitignore")]);
    assert_eq!(names(dir.path(), "store"), [".gitignore"]);
    add_layer(&Store::open(&root).unwrap(), "file", b"content");
}
