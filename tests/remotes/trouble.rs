//! What a remote in trouble costs: a bounded time, one warning, and never the build.

use std::fs;
use std::time::{Duration, Instant};

use super::support::*;

/// Two machines, the first of which has shared its build.
fn machines() -> (Shared, Machine, Machine) {
    let (one, two) = *pairs().last().unwrap();
    let shared = Shared::new();
    let (a, b) = (Machine::new(one), Machine::new(two));
    a.shares(&shared.url(), &[]);
    a.world.build().ok();
    b.shares(&shared.url(), &[&a.key]);
    (shared, a, b)
}

#[test]
fn a_record_whose_blob_is_lost_is_a_miss() {
    let (shared, _, b) = machines();
    for blob in shared.files("blobs") {
        fs::remove_file(blob).unwrap();
    }
    let known = b.build().ok();
    assert_eq!(outcomes(&known, "remote-hit"), 2, "nothing has to be seen yet: {}", known.run);
    let build = b.world.build().ok();
    assert_eq!(outcomes(&build, "executed"), 2, "{}", build.run);
    assert_eq!(warnings(&build), Vec::<String>::new());
    // What was lost is there again.
    let build = b.world.build_recipe("recipe.toml", &["--no-cache"]).ok();
    assert_eq!(outcomes(&build, "executed"), 2, "{}", build.run);
    assert!(!shared.files("blobs").is_empty());
}

#[test]
fn a_remote_that_cannot_be_used_is_one_warning() {
    type Break = fn(&Shared);
    let breaks: [(&str, Break); 4] = [
        ("gone", |shared| fs::remove_dir_all(shared.path()).unwrap()),
        ("of something else", |shared| fs::write(shared.path().join("isolith-remote"), "9\n").unwrap()),
        ("read-only", |shared| {
            for name in ["records", "blobs", "tmp"] {
                let dir = shared.path().join(name);
                fs::remove_dir_all(&dir).unwrap();
                fs::write(&dir, "").unwrap();
            }
        }),
        ("unreadable records", |shared| {
            let records = shared.path().join("records");
            fs::remove_dir_all(&records).unwrap();
            std::os::unix::fs::symlink("records", &records).unwrap();
        }),
    ];
    for (name, break_it) in breaks {
        let (shared, _, b) = machines();
        break_it(&shared);
        let build = b.world.build().ok();
        assert_eq!(outcomes(&build, "executed"), 2, "{name}: {}", build.run);
        let warnings = warnings(&build);
        assert!(warnings.len() <= 1, "{name}: {warnings:?}");
        if name != "gone" {
            assert!(
                warnings[0].contains("`team` is not used any more in this build"),
                "{name}: {warnings:?}"
            );
        }
    }
}

#[test]
fn a_remote_that_hangs_costs_its_patience_and_no_more() {
    let (shared, _, b) = machines();
    b.configure(&format!("[remotes.team]\nurl = {:?}\npatience = 1\n", shared.url()));
    // Whoever opens this waits for a writer that never comes.
    let mark = shared.path().join("isolith-remote");
    fs::remove_file(&mark).unwrap();
    let began = Instant::now();
    let local = b.world.build_recipe("recipe.toml", &["--no-remote"]).ok();
    let alone = began.elapsed();
    b.forget();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &mark,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o644),
        0,
    )
    .unwrap();
    let began = Instant::now();
    let build = b.world.build().ok();
    assert_eq!(tree(&build), tree(&local));
    assert!(began.elapsed() < alone + Duration::from_secs(3), "{:?} for {alone:?}", began.elapsed());
    assert_eq!(warnings(&build).len(), 1, "{}", build.run);
}

#[test]
fn forty_one_steps_are_known_after_one_round_trip() {
    let (one, two) = *pairs().last().unwrap();
    let shared = Shared::new();
    let (a, b) = (Machine::new(one), Machine::new(two));
    a.shares(&shared.url(), &[]);
    b.shares(&shared.url(), &[&a.key]);
    let steps = |machine: &Machine| {
        let steps = (0..41)
            .map(|n| format!("[[step]]\nname = \"s{n}\"\nrun = \"mkdir -p /o; echo {n} > /o/f{n}\"\n"));
        machine.world.recipe(&(steps.collect::<String>() + "[outputs.default]\nfrom = \"/o\"\n"));
    };
    steps(&a);
    steps(&b);
    let made = a.world.build().ok();
    let known = b.build().ok();
    assert_eq!((outcomes(&known, "remote-hit"), number(&known, "calls")), (41, 1), "{}", known.run);
    let got = b.world.build().ok();
    assert_eq!(tree(&got), tree(&made));
    // The plan, the end of the output's layer, and its files.
    assert!(number(&got, "calls") <= 4, "{}", got.run);
}
