//! What the tests of the store share.
#![allow(dead_code)] // Each test binary uses its own part of it.

use std::collections::BTreeMap;
use std::os::unix::fs::lchown;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use isolith::digest::{ActionKey, DefinitionKey, LayerId};
use isolith::key::{ActionDocument, Network, UserDoc};
use isolith::layer::{IdShift, View, commit};
use isolith::path::GuestPath;
use isolith::sandbox::Usage;
use isolith::store::{ActionRecord, DefinitionRecord, RootRecord, RootStep, Store};

/// Ids this process may give files to.
pub fn ids() -> IdShift {
    let me = rustix::process::geteuid().as_raw();
    IdShift::by(if me == 0 { 0x6FFF_0000 } else { me })
}

/// Puts a layer with one file into the store, the way a step does.
pub fn add_layer(store: &Store, name: &str, content: &[u8]) -> LayerId {
    let run = store.new_run(ids()).unwrap();
    write(&run.upper().join(name), content);
    let manifest = commit(&run.upper(), &View::new(vec![]), 1, ids()).unwrap();
    store.add_layer(&run.upper(), &manifest).unwrap()
}

/// A file that belongs to the root of sandboxes.
pub fn write(path: &Path, content: &[u8]) {
    std::fs::write(path, content).unwrap();
    let root = ids().to_disk(0);
    lchown(path, root, root).unwrap();
}

pub fn document(argument: &str) -> ActionDocument {
    ActionDocument {
        contract: 1,
        arch: "x86_64".into(),
        host: None,
        stack: vec![],
        argv: vec!["/bin/echo".into(), argument.into()],
        env: BTreeMap::from([("PATH".into(), "/bin".into())]),
        cwd: GuestPath::root(),
        user: UserDoc { uid: 0, gid: 0 },
        network: Network::None,
        mounts: vec![],
        epoch: 1,
    }
}

fn canonical(argument: &str) -> Vec<u8> {
    serde_json::to_vec(&serde_json::to_value(document(argument)).unwrap()).unwrap()
}

pub fn action_key(argument: &str) -> ActionKey {
    ActionKey::of_document(&canonical(argument))
}

pub fn definition_key(argument: &str) -> DefinitionKey {
    DefinitionKey::of_document(&canonical(argument))
}

pub fn action_record(argument: &str, layer: LayerId) -> ActionRecord {
    ActionRecord {
        action: document(argument),
        layer,
        usage: Usage::default(),
        wall_ms: 3,
        finished: 1_700_000_000,
        recipe: "test".into(),
        step: argument.into(),
        from: None,
    }
}

pub fn definition_record(argument: &str, layer: LayerId) -> DefinitionRecord {
    DefinitionRecord {
        document: serde_json::to_value(document(argument)).unwrap(),
        action: Some(action_key(argument)),
        layers: vec![layer],
        wall_ms: 3,
        from: None,
    }
}

pub fn root_record(argument: &str, layer: LayerId, finished: i64) -> RootRecord {
    RootRecord {
        number: 0,
        given: 0,
        definition: None,
        recipe: "/recipes/test.toml".into(),
        name: "test".into(),
        args: BTreeMap::from([("ARG".into(), argument.into())]),
        finished,
        steps: vec![RootStep {
            name: "only".into(),
            action: Some(action_key(argument)),
            definition: definition_key(argument),
            layer: Some(layer),
        }],
        inputs: BTreeMap::new(),
        stack: vec![layer],
        outputs: BTreeMap::new(),
    }
}

/// This test binary once more, as another process that plays `role` (see the test `child`).
pub fn again(role: &str, store: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture", "--test-threads=1"]);
    command.env("STORE_TEST_ROLE", role).env("STORE_TEST_ROOT", store);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    command
}

/// Reads a child's standard output up to the `count`th line that ends like this.
pub fn wait_for(child: &mut Child, ending: &str, count: usize) {
    use std::io::{BufRead, BufReader};
    let lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    let found = lines.filter(|line| line.as_ref().unwrap().ends_with(ending)).take(count).count();
    assert_eq!(found, count, "the child ended without saying {ending}");
}

/// Names in a directory of the store, sorted.
pub fn names(store: &Path, dir: &str) -> Vec<String> {
    let listing = std::fs::read_dir(store.join(dir)).unwrap();
    let mut names: Vec<_> = listing.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
