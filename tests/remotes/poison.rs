//! What somebody can do who may write to a remote and has no key that is trusted: nothing.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use isolith::layer::{Compression, Manifest, packed};
use isolith::trust::{Envelope, SecretKey};
use serde_json::Value;

use super::support::*;

/// A remote that holds a whole build, for an attacker to change.
struct Scene {
    shared: Shared,
    /// Its writer's public key, and what its records end in.
    key: String,
    writer: String,
    /// What a build that runs everything itself gives.
    honest: Vec<(PathBuf, Vec<u8>)>,
    attacker: SecretKey,
}

impl Scene {
    /// The record of a step or output of the plan; `all` is the plan's own.
    fn record(&self, what: &str) -> PathBuf {
        let found = self.shared.files("records").into_iter().find(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            if !name.ends_with(&self.writer) {
                return false;
            }
            match what {
                "all" => name.starts_with("all-"),
                _ => {
                    let external = &statement(path)["predicate"]["buildDefinition"]["externalParameters"];
                    name.starts_with("def-") && (external["step"] == what || external["makes"] == what)
                }
            }
        });
        found.unwrap_or_else(|| panic!("no record of {what}"))
    }

    fn blob(&self, what: &str) -> PathBuf {
        let name = self.record(what);
        let about = about(&name);
        let statement = statement(&name);
        let subject =
            statement["subject"].as_array().unwrap().iter().find(|subject| subject["name"] == about);
        let hex = subject.unwrap()["digest"]["sha256"].as_str().unwrap().to_string();
        self.shared.path().join("blobs").join(&hex[..2]).join(hex)
    }

    /// Signs the statement of a record anew with the attacker's key, after a change.
    fn forge(&self, path: &Path, change: impl Fn(&str) -> String) -> Vec<u8> {
        Envelope::sign(change(&statement(path).to_string()).as_bytes(), &self.attacker)
    }
}

fn about(record: &Path) -> String {
    let name = record.file_name().unwrap().to_str().unwrap();
    name.rsplit_once('-').unwrap().0.to_string()
}

fn envelope(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn statement(path: &Path) -> Value {
    let payload = STANDARD.decode(envelope(path)["payload"].as_str().unwrap()).unwrap();
    serde_json::from_slice(&payload).unwrap()
}

fn put(path: &Path, bytes: &[u8]) {
    let _ = fs::remove_file(path);
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
}

/// Every definition's own record is asked for when the one of the plan is away.
fn without_plan(scene: &Scene) {
    fs::remove_file(scene.record("all")).unwrap();
}

/// What an attack does, and what the reader's warning has to say; none where there is nothing that was looked at.
type Attack = (&'static str, fn(&Scene), Option<&'static str>);

const ATTACKS: [Attack; 16] = [
    (
        "a record of the attacker's under the writer's name",
        |scene| {
            let record = scene.record("all");
            put(&record, &scene.forge(&record, str::to_string));
        },
        Some("expected a signature of ed25519:"),
    ),
    (
        "forged provenance: another layer, in the name of the trusted builder",
        |scene| {
            without_plan(scene);
            let (one, two) = (scene.record("compile"), scene.record("pack"));
            let layer = |path: &Path| statement(path)["subject"][0]["digest"]["isolithLayer"].to_string();
            let (from, to) = (layer(&one), layer(&two));
            put(&one, &scene.forge(&one, |text| text.replace(&from, &to)));
        },
        Some("got none of that key over these bytes"),
    ),
    (
        "a payload that was changed under its signature",
        |scene| {
            let record = scene.record("all");
            let mut envelope = envelope(&record);
            let text =
                statement(&record).to_string().replace("\"wall-ms\"", "\"wall-mz\"").replace("test", "tset");
            envelope["payload"] = STANDARD.encode(text).into();
            put(&record, envelope.to_string().as_bytes());
        },
        Some("expected a signature of ed25519:"),
    ),
    (
        "records swapped between keys",
        |scene| {
            without_plan(scene);
            let (one, two) = (scene.record("compile"), scene.record("pack"));
            let (a, b) = (fs::read(&one).unwrap(), fs::read(&two).unwrap());
            put(&one, &b);
            put(&two, &a);
        },
        Some("expected a record about def-"),
    ),
    (
        "an old record of another plan under this plan's name",
        |scene| {
            let all: Vec<PathBuf> = scene.shared.files("records");
            let all = all.iter().filter(|path| about(path).starts_with("all-"));
            let (old, new): (Vec<_>, Vec<_>) = all.partition(|path| **path != scene.record_of_now());
            put(new[0], &fs::read(old[0]).unwrap());
        },
        Some("expected a record about all-"),
    ),
    (
        "a record of a definition under the name of the action",
        |scene| {
            without_plan(scene);
            for what in ["compile", "pack", "output default"] {
                let _ = fs::remove_file(scene.record(what));
            }
            let actions: Vec<PathBuf> = scene.shared.files("records");
            let actions: Vec<_> = actions.iter().filter(|path| about(path).starts_with("act-")).collect();
            let bytes = fs::read(actions[0]).unwrap();
            for path in &actions {
                put(path, &bytes);
            }
        },
        Some("expected a record about act-"),
    ),
    (
        "a record with the attacker's key in its name",
        |scene| {
            let other = scene.attacker.public().writer().to_string();
            for record in scene.shared.files("records") {
                let forged = scene.forge(&record, str::to_string);
                let name = record.file_name().unwrap().to_str().unwrap().replace(&scene.writer, &other);
                put(&record.with_file_name(name), &forged);
                fs::remove_file(record).unwrap();
            }
        },
        None,
    ),
    (
        "an oversized record",
        |scene| {
            without_plan(scene);
            for what in ["compile", "pack", "output default"] {
                put(&scene.record(what), &vec![b' '; 64 << 20]);
            }
        },
        None,
    ),
    (
        "a record that is no JSON, of 100,000 brackets",
        |scene| put(&scene.record("all"), "[".repeat(100_000).as_bytes()),
        Some("is refused: expected a signed record"),
    ),
    (
        "a record that is a link to a file of the reader's",
        |scene| {
            without_plan(scene);
            let record = scene.record("compile");
            fs::remove_file(&record).unwrap();
            symlink("/etc/passwd", &record).unwrap();
        },
        None,
    ),
    (
        "another layer's bytes, as long as they have to be",
        |scene| {
            let blob = scene.blob("output default");
            let mut other = fs::read(scene.blob("compile")).unwrap();
            other.resize(fs::metadata(&blob).unwrap().len() as usize, 0);
            put(&blob, &other);
        },
        Some("is refused (def-"),
    ),
    (
        "another layer in travelling form with a table of contents of its own",
        |scene| {
            // It ends as it has to: what is in front of a table is not looked at.
            let blob = scene.blob("output default");
            let mut other = Vec::new();
            packed(&Manifest::default(), &|_| unreachable!(), Compression::Zstd, &mut other).unwrap();
            let length = fs::metadata(&blob).unwrap().len() as usize;
            let mut bytes = vec![0; length.checked_sub(other.len()).unwrap()];
            bytes.extend(other);
            put(&blob, &bytes);
        },
        Some("expected layer "),
    ),
    (
        "a truncated layer",
        |scene| {
            let blob = scene.blob("output default");
            let bytes = fs::read(&blob).unwrap();
            put(&blob, &bytes[..bytes.len() / 2]);
        },
        None,
    ),
    (
        "one bit of a file in a layer",
        |scene| {
            let blob = scene.blob("output default");
            let mut bytes = fs::read(&blob).unwrap();
            let at = data(&bytes);
            bytes[at] ^= 4;
            put(&blob, &bytes);
        },
        Some("got something else"),
    ),
    (
        "an archive with ../ in its names",
        |scene| {
            let blob = scene.blob("output default");
            let length = fs::metadata(&blob).unwrap().len() as usize;
            let mut tar = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.as_gnu_mut().unwrap().name[..12].copy_from_slice(b"../../poison");
            header.set_size(6);
            header.set_cksum();
            tar.append(&header, &b"poison"[..]).unwrap();
            let mut bytes = zstd::encode_all(&tar.into_inner().unwrap()[..], 3).unwrap();
            bytes.resize(length, 0);
            put(&blob, &bytes);
        },
        Some("it has no table of contents"),
    ),
    (
        "nothing but zeros",
        |scene| {
            let blob = scene.blob("output default");
            let length = fs::metadata(&blob).unwrap().len() as usize;
            put(&blob, &vec![0; length]);
        },
        Some("expected layer "),
    ),
];

/// The middle of the first frame that is not a skippable one and not the very small first header.
fn data(bytes: &[u8]) -> usize {
    let magic = [0x28, 0xb5, 0x2f, 0xfd];
    let frames: Vec<usize> = (0..bytes.len() - 4).filter(|at| bytes[*at..*at + 4] == magic).collect();
    // The second frame is the first file's content.
    frames[1] + (frames[2] - frames[1]) / 2
}

impl Scene {
    /// The plan's record that was written last.
    fn record_of_now(&self) -> PathBuf {
        let all = self.shared.files("records").into_iter().filter(|path| about(path).starts_with("all-"));
        all.max_by_key(|path| fs::metadata(path).unwrap().modified().unwrap()).unwrap()
    }
}

/// Builds an older version, then the one of now, so that there is something to replay.
fn scene(machine: &Machine) -> Scene {
    let shared = Shared::new();
    machine.shares(&shared.url(), &[]);
    machine.forget();
    machine.world.write("src/a", "zero\n");
    machine.world.build().ok();
    let old: Vec<PathBuf> =
        shared.files("records").into_iter().filter(|path| !about(path).starts_with("all-")).collect();
    machine.world.write("src/a", "one\n");
    let made = machine.world.build().ok();
    // Of the older build only the record of its plan is left, so that a step's record is one of now.
    for path in old {
        let _ = fs::remove_file(path);
    }
    let key: isolith::trust::PublicKey = machine.key.parse().unwrap();
    Scene {
        shared,
        key: machine.key.clone(),
        writer: key.writer().to_string(),
        honest: tree(&made),
        attacker: SecretKey::from_seed(&[66; 32]),
    }
}

#[test]
fn no_attack_without_a_trusted_key_changes_a_byte() {
    let (one, two) = pairs()[0];
    let (a, b) = (Machine::new(one), Machine::new(two));
    let original = scene(&a);
    for (name, attack, says) in ATTACKS {
        let scene = original.copy();
        attack(&scene);
        b.forget();
        b.configure(&format!(
            "trusted-keys = [{:?}]\n[remotes.team]\nurl = {:?}\nwrite = false\npatience = 5\n",
            scene.key,
            scene.shared.url()
        ));
        let build = b.world.build().ok();
        assert_eq!(tree(&build), scene.honest, "{name}: {}", build.run);
        let warnings = warnings(&build);
        match says {
            Some(says) => {
                assert_eq!(warnings.len(), 1, "{name}: {warnings:?}");
                assert!(warnings[0].contains(says), "{name}: {warnings:?}");
                assert!(warnings[0].starts_with("remote `team`: "), "{name}: {warnings:?}");
                assert!(number(&build, "refused") > 0, "{name}: {}", build.run);
            }
            None => assert_eq!(warnings, Vec::<String>::new(), "{name}"),
        }
        let run = b.world.isolith(&["store", "fsck", "--store", b.world.store().to_str().unwrap()]);
        assert_eq!(run.code, 0, "{name}: something wrong got into the store: {run}");
    }
}

impl Scene {
    fn copy(&self) -> Scene {
        let shared = Shared::new();
        for name in ["records", "blobs"] {
            for file in self.shared.files(name) {
                let to = shared.path().join(file.strip_prefix(self.shared.path()).unwrap());
                fs::create_dir_all(to.parent().unwrap()).unwrap();
                fs::copy(&file, &to).unwrap();
                let modified = fs::metadata(&file).unwrap().modified().unwrap();
                fs::File::options().write(true).open(&to).unwrap().set_modified(modified).unwrap();
            }
        }
        let Scene { key, writer, honest, attacker, .. } = self;
        let (key, writer, honest, attacker) = (key.clone(), writer.clone(), honest.clone(), attacker.clone());
        Scene { shared, key, writer, honest, attacker }
    }
}

#[test]
fn a_threshold_takes_as_many_builders_as_it_says() {
    let (one, two) = pairs()[0];
    // Who writes beside another one has to be able to write into the same directories.
    let (a, b, c) = (Machine::new(one), Machine::new(one), Machine::new(two));
    let scene = scene(&a);
    let policy = |keys: &[&str]| {
        c.configure(&format!(
            "[remotes.team]\nurl = {:?}\nwrite = false\ntrusted-keys = {keys:?}\nthreshold = 2\n",
            scene.shared.url()
        ));
        c.forget();
        c.world.build()
    };
    // One key twice is one key.
    let twice = policy(&[&a.key, &a.key]);
    assert_eq!(twice.run.code, 2, "{}", twice.run);
    assert!(twice.run.stderr.contains("`threshold` is 2, and 1 different keys"), "{}", twice.run);
    // Only one of two has spoken.
    let build = policy(&[&a.key, &b.key]).ok();
    assert_eq!(outcomes(&build, "executed"), 2, "{}", build.run);

    // The attacker copies its records under the other's name.
    let other: isolith::trust::PublicKey = b.key.parse().unwrap();
    let other = other.writer().to_string();
    let mut copies = Vec::new();
    for record in scene.shared.files("records") {
        let name = record.file_name().unwrap().to_str().unwrap().replace(&scene.writer, &other);
        copies.push(record.with_file_name(name));
        put(copies.last().unwrap(), &fs::read(&record).unwrap());
    }
    let build = policy(&[&a.key, &b.key]).ok();
    assert_eq!(outcomes(&build, "executed"), 2, "{}", build.run);
    let warnings = warnings(&build);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains(&b.key) && warnings[0].contains("none of that key"), "{warnings:?}");
    copies.iter().for_each(|path| fs::remove_file(path).unwrap());

    // The other one has really built it.
    b.shares(&scene.shared.url(), &[]);
    b.world.build().ok();
    let build = policy(&[&a.key, &b.key]).ok();
    assert_eq!(outcomes(&build, "remote-hit"), 2, "{}", build.run);
    assert_eq!(tree(&build), scene.honest);
}

#[test]
fn a_key_counts_where_it_is_trusted_only() {
    let (one, two) = pairs()[0];
    let (a, c) = (Machine::new(one), Machine::new(two));
    let scene = scene(&a);
    let own = |key: &str| {
        c.configure(&format!(
            "trusted-keys = [{:?}]\n[remotes.team]\nurl = {:?}\nwrite = \"ci\"\ntrusted-keys = [{key:?}]\n",
            a.key,
            scene.shared.url()
        ));
        c.forget();
        c.world.build().ok()
    };
    // A remote that only CI writes: its list stands in for the other one.
    let build = own(&c.key);
    assert_eq!(outcomes(&build, "executed"), 2, "{}", build.run);
    assert_eq!(number(&build, "bytes_up"), 0, "not in CI: {}", build.run);
    assert_eq!(outcomes(&own(&a.key), "remote-hit"), 2);
    let names: BTreeMap<String, ()> = scene
        .shared
        .files("records")
        .iter()
        .map(|path| (path.to_str().unwrap().rsplit_once('-').unwrap().1.to_string(), ()))
        .collect();
    assert_eq!(names.len(), 1, "somebody else has written: {names:?}");
}
