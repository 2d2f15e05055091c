//! Many processes on one store, and processes that are killed in the middle.

mod store_support;

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use isolith::error::Class;
use isolith::store::{Presence, Store, remove_tree};
use store_support::*;

/// Not a test of its own: what the other processes do.
#[test]
fn child() {
    let Ok(role) = std::env::var("STORE_TEST_ROLE") else { return };
    let root = PathBuf::from(std::env::var("STORE_TEST_ROOT").unwrap());
    match role.as_str() {
        "run-once" => run_once(&root),
        "busy" => busy(&root),
        "hold" => {
            let store = Store::open(&root).unwrap();
            let _run = store.new_run(ids()).unwrap();
            println!("holding");
            let _ = std::io::stdin().read(&mut [0]);
        }
        "remove" => match remove_tree(&root) {
            Ok(()) => println!("removed"),
            Err(e) => println!("refused {e:?}"),
        },
        "fill" => fill(&root),
        other => panic!("no such role: {other}"),
    }
}

fn run_once(root: &Path) {
    let store = Store::open(root).unwrap();
    store.sweep();
    let key = action_key("shared");
    let _lock = store.lock_action(&key, || println!("waits"), || false).unwrap();
    if store.action(&key).unwrap().is_none() {
        let layer = add_layer(&store, "file", b"the same for all");
        std::thread::sleep(Duration::from_millis(30));
        store.put_log(&key, b"ran\n").unwrap();
        store.put_action(&key, &action_record("shared", layer)).unwrap();
        println!("ran");
    }
    // Everyone makes this one, locks or not.
    let layer = add_layer(&store, "other", b"made by each");
    assert_eq!(store.presence(&layer), Presence::Ready);
}

#[test]
fn twenty_processes_run_an_action_once() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let children: Vec<_> = (0..20).map(|_| again("run-once", &root).spawn().unwrap()).collect();
    let mut ran = 0;
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        ran += String::from_utf8(output.stdout).unwrap().lines().filter(|line| line.ends_with("ran")).count();
    }
    assert_eq!(ran, 1);
    let store = Store::open(&root).unwrap();
    let record = store.action(&action_key("shared")).unwrap().unwrap();
    assert_eq!(store.presence(&record.layer), Presence::Ready);
    assert_eq!(store.info().unwrap().layers, 2);
    assert_eq!(names(&root, "locks"), ["names", "store"]);
    assert_eq!(names(&root, "tmp"), [""; 0]);
    assert_eq!(store.fsck(ids()).unwrap(), []);
}

/// Everything a build does to a store, over and over, until it is killed.
fn busy(root: &Path) {
    let store = Store::open(root).unwrap();
    store.sweep();
    for round in 0u64.. {
        println!("round");
        let name = format!("{}", (round * 7 + u64::from(std::process::id())) % 40);
        let key = action_key(&name);
        let _lock = store.lock_action(&key, || (), || false).unwrap();
        let run = store.new_run(ids()).unwrap();
        std::fs::create_dir(run.upper().join("dir")).unwrap();
        let root = ids().to_disk(0);
        std::os::unix::fs::chown(run.upper().join("dir"), root, root).unwrap();
        for file in 0..3 {
            write(&run.upper().join(format!("dir/{file}")), name.repeat(500).as_bytes());
        }
        store.put_log(&key, name.repeat(30_000).as_bytes()).unwrap();
        if round % 3 == 2 {
            store.keep_failed(&key, run).unwrap();
            continue;
        }
        let below = isolith::layer::View::new(vec![]);
        let manifest = isolith::layer::commit(&run.upper(), &below, 1, ids()).unwrap();
        let layer = store.add_layer(&run.upper(), &manifest).unwrap();
        let (action, definition) = (action_record(&name, layer), definition_record(&name, layer));
        store.put_result((&key, &action), (&definition_key(&name), &definition)).unwrap();
        store.push_root(&root_record(&name, layer, round as i64), &[]).unwrap();
        store.put_note("test", &name, &round).unwrap();
        store.cache_mount(&name, ids()).unwrap();
        store.drop_failed(&key).unwrap();
        if round % 5 == 4 {
            store.remove_layer(&layer).unwrap();
        }
    }
}

#[test]
fn a_store_survives_fifty_kills() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let mut left_over = 0;
    for round in 0..50u64 {
        let mut writer = again("busy", &root).spawn().unwrap();
        // Slow disks make long rounds: count rounds, then go on for a while that differs each time.
        wait_for(&mut writer, "round", 1 + round as usize % 4);
        std::thread::sleep(Duration::from_micros(round * 7919 % 5_000));
        writer.kill().unwrap();
        writer.wait().unwrap();
        left_over += names(&root, "tmp").len();
        // What the records say is true at once, without any mending.
        let store = Store::open(&root).unwrap();
        for name in 0..40 {
            let name = name.to_string();
            if let Some(record) = store.action(&action_key(&name)).unwrap()
                && store.ready(&record.layer, ids()).unwrap()
            {
                assert!(store.manifest(&record.layer).unwrap().is_some());
                assert!(store.read_log(&action_key(&name)).unwrap().unwrap().starts_with(name.as_bytes()));
            }
            store.get_note::<u64>("test", &name);
        }
        assert!(store.roots(Path::new("/recipes/test.toml")).unwrap().len() <= 16);
    }
    assert!(left_over > 20, "the kills hit nothing: {left_over}");
    let store = Store::open(&root).unwrap();
    assert!(store.info().unwrap().actions > 5);
    store.sweep();
    assert_eq!(names(&root, "tmp"), [""; 0]);
    assert_eq!(names(&root, "locks"), ["names", "store"]);
    // Layers that were taken out on purpose leave records behind; nothing else is wrong.
    let problems = store.fsck(ids()).unwrap();
    assert!(problems.iter().all(|p| p.found.ends_with("is missing")), "{problems:#?}");
    assert_eq!(store.fsck(ids()).unwrap(), []);
}

#[test]
fn a_store_in_use_is_not_cleared() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let mut user = again("hold", &root).spawn().unwrap();
    wait_for(&mut user, "holding", 1);
    let refused = Store::clear(&root).unwrap_err();
    assert!(refused.to_string().contains(&format!("process {}", user.id())), "{refused}");
    assert_eq!(names(&root, "tmp").len(), 1);
    user.stdin.take().unwrap().write_all(b"x").unwrap();
    user.wait().unwrap();
    assert!(Store::clear(&root).unwrap().left.is_empty());
    assert!(!root.exists());
}

#[test]
fn a_sweep_takes_what_the_dead_left_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let mut user = again("hold", &root).spawn().unwrap();
    wait_for(&mut user, "holding", 1);
    let store = Store::open(&root).unwrap();
    let mine = store.new_run(ids()).unwrap();
    std::fs::create_dir(root.join("tmp/dead-abcdef")).unwrap();
    std::fs::create_dir(root.join("tmp/run-aaaaaa")).unwrap();
    store.sweep();
    let live = names(&root, "tmp");
    assert_eq!(live.len(), 2, "{live:?}");
    assert!(live.contains(&mine.name().to_string()));
    user.kill().unwrap();
    user.wait().unwrap();
    assert_eq!(names(&root, "tmp").len(), 2);
    Store::open(&root).unwrap().sweep();
    assert_eq!(names(&root, "tmp"), [mine.name()]);
    drop((mine, store));
    assert_eq!(names(&root, "tmp"), [""; 0]);
}

#[test]
fn the_umask_does_not_matter() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let inner = again("hold", &root);
    let mut outer = Command::new("sh");
    outer.args(["-c", "umask 0077 && exec \"$@\"", "sh"]).arg(inner.get_program()).args(inner.get_args());
    outer.envs(inner.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let mut user = outer.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    wait_for(&mut user, "holding", 1);
    let run = format!("tmp/{}", names(&root, "tmp")[0]);
    for (path, mode) in
        [("layers", 0o755), ("locks", 0o700), (&run[..], 0o755), (&format!("{run}/upper"), 0o755)]
    {
        let meta = std::fs::metadata(root.join(path)).unwrap();
        assert_eq!(meta.permissions().mode() & 0o7777, mode, "{path}");
    }
    user.kill().unwrap();
    user.wait().unwrap();
}

#[test]
fn threads_take_turns_and_waiting_can_be_cancelled() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let key = action_key("turns");
    let inside = Mutex::new(());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let _lock = store.lock_action(&key, || (), || false).unwrap();
                    let _only = inside.try_lock().expect("two threads hold the lock");
                    std::thread::sleep(Duration::from_micros(50));
                }
            });
        }
    });
    let held = store.lock_action(&key, || panic!("nobody has it"), || false).unwrap();
    let mut waits = 0;
    let stopped = store.lock_action(&key, || waits += 1, || true).unwrap_err();
    assert_eq!((stopped.class(), waits), (Class::Interrupted, 1));
    drop(held);
    assert_eq!(names(dir.path(), "locks"), ["names", "store"]);
}

#[test]
fn removing_a_tree_stops_at_mounts() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, precious) = (dir.path().join("tree"), dir.path().join("precious"));
    std::fs::create_dir_all(tree.join("a/mount")).unwrap();
    std::fs::create_dir(&precious).unwrap();
    std::fs::write(precious.join("file"), b"keep me").unwrap();
    let said = behind("mount --bind \"$0\" \"$1\"", &[&precious, &tree.join("a/mount")], "remove", &tree);
    assert!(said.contains("refused") && said.contains("mounted there"), "{said}");
    assert_eq!(std::fs::read(precious.join("file")).unwrap(), b"keep me");
}

/// Plays a role where `mount`, run by a shell with these arguments, has mounted something.
fn behind(mount: &str, args: &[&Path; 2], role: &str, root: &Path) -> String {
    let inner = again(role, root);
    let mut outer = Command::new("unshare");
    outer.args(["--user", "--map-root-user", "--mount", "sh", "-c"]);
    outer.arg(format!("{mount} && shift && exec \"$@\"")).args(args).arg(inner.get_program());
    outer.args(inner.get_args()).envs(inner.get_envs().filter_map(|(key, value)| Some((key, value?))));
    String::from_utf8(outer.output().unwrap().stdout).unwrap()
}

fn fill(root: &Path) {
    let store = Store::open(root).unwrap();
    let key = action_key("a");
    store.put_log(&key, b"fits").unwrap();
    let mut noise = blake3::Hasher::new().finalize_xof();
    let mut large = vec![0; 1 << 20];
    noise.fill(&mut large);
    println!("{:?}", store.put_log(&key, &large).unwrap_err());
    println!("{:?}", store.put_note("kind", "key", &large).unwrap_err());
    assert_eq!(store.read_log(&key).unwrap().unwrap(), b"fits");
    // The space is free again.
    store.put_note("kind", "key", &vec![1; 20_000]).unwrap();
    assert_eq!(store.fsck(isolith::layer::IdShift::by(0)).unwrap(), []);
    println!("whole");
}

#[test]
fn a_full_disk_is_told_and_leaves_no_half_files() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    std::fs::create_dir(&root).unwrap();
    let said = behind("mount -t tmpfs -o size=256k none \"$1\"", &[&root, &root], "fill", &root);
    assert_eq!(
        said.matches("No space left on device (os error 28) (hint: free some space").count(),
        2,
        "{said}"
    );
    assert!(said.contains("cannot write `") && said.contains("/store/tmp/session-"), "{said}");
    assert!(said.contains("\nwhole"), "{said}");
}
