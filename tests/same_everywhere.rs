//! The same recipe, built as every user and on every file system there is here: `--progress json` gives the same
//! ids.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use common::{Build, World, assert_fails_closed, modes};
use serde_json::Value;

/// A disk and memory, where both are to be had.
fn places() -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> = vec!["/var/tmp".into()];
    let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev()).ok();
    if device(Path::new("/dev/shm")).is_some_and(|memory| Some(memory) != device(&places[0])) {
        places.push("/dev/shm".into());
    } else {
        eprintln!("same_everywhere: /dev/shm is no file system of its own here, so only one is tried");
    }
    places
}

/// Everything in the events that names something: keys, layers, stacks, outputs; without times and sizes.
fn ids(build: &Build) -> BTreeMap<String, String> {
    fn collect(place: &str, value: &Value, found: &mut BTreeMap<String, String>) {
        match value {
            Value::String(text) if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) => {
                found.insert(place.to_owned(), text.clone());
            }
            Value::Array(items) => {
                for (at, item) in items.iter().enumerate() {
                    collect(&format!("{place}/{at}"), item, found);
                }
            }
            Value::Object(fields) => {
                for (name, item) in fields {
                    collect(&format!("{place}/{name}"), item, found);
                }
            }
            _ => {}
        }
    }
    let mut found = BTreeMap::new();
    // The events of parallel steps come in any order, so their steps name them.
    for event in &build.events {
        let text = |key: &str| event[key].as_str().unwrap_or_default();
        collect(&format!("{} {}{}", text("event"), text("step"), text("name")), event, &mut found);
    }
    found
}

const RECIPE: &str = r#"
[sources.src]
path   = "src"
unpack = "/src"

[[step]]
name = "make"
run  = '''
umask; id; cd /; mkdir -p o/deep/er o/gone o/moved
echo 1 > o/file; echo 2 > o/deep/other; ln o/file o/deep/er/link; ln -s ../file o/deep/symlink
mkfifo o/fifo; chmod 4755 o/file; chmod 1777 o/deep; chmod 2750 o/moved
chown 1000:1000 o/file; chown -h 7:8 o/deep/symlink; chown 65535:0 o/fifo; chown 3:4 o/deep/er
for i in $(seq 200); do echo $i > o/gone/$i; done
touch -d '2001-02-03 04:05:06' o/deep/other; cp -a /src o/src
'''

[[step]]
name = "change"
run  = '''
cd /o; rm -r gone deep/er; mkdir gone; echo 3 > gone/3; mv moved renamed; rm deep/symlink; mkdir deep/symlink
chmod 600 file; chown 0:0 deep; rm fifo; echo was a fifo > fifo; touch src/one; rm /src/two
'''

[[step]]
name  = "beside"
after = ["make"]
run   = "ls -lnR /o > /tmp/list 2>&1 || :; cat /o/file > /var/tmp/x; head -c 100000 /dev/zero > /tmp/zero"

[[step]]
name  = "look"
after = ["change", "beside"]
run   = "mkdir /out; find /o /src | sort | xargs stat -c '%n %F %a %u %g %Y' > /out/list; cp -a /o /out/tree"

[outputs.default]
from = "/out"
"#;

#[test]
fn every_kind_of_change_has_the_same_ids_for_every_user_on_every_file_system() {
    let mut first: Option<(String, BTreeMap<String, String>)> = None;
    for place in places() {
        for mode in modes() {
            let world = World::new_in(mode, &place);
            world.write("src/one", "1\n");
            world.write("src/two", "2\n");
            world.recipe(RECIPE);
            let build = world.build();
            if !mode.runs {
                assert_fails_closed(&build.run);
                continue;
            }
            let build = build.ok();
            let found = ids(&build);
            // A key and a layer for each of four steps, and as much again in the last event.
            assert!(found.len() >= 16, "{found:#?}\n{}", build.run);
            let here = format!("{} in {}", mode.name, place.display());
            match &first {
                None => first = Some((here, found)),
                Some((there, expected)) => assert_eq!(&found, expected, "{here}, and {there}"),
            }
        }
    }
    assert!(first.is_some(), "nobody here can run sandboxes");
}
