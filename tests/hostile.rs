//! Recipes, base systems and neighbours that mean harm to the store, to keys, or to the rest of a build.
//! Steps that try to get out are in `escape.rs`.

mod common;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use common::{World, each_mode};

/// The tree of some layer in the world's store.
fn some_layer(world: &World) -> PathBuf {
    let first = |dir: &Path| fs::read_dir(dir).unwrap().next().unwrap().unwrap().path();
    first(&first(&world.store().join("layers"))).join("fs")
}

#[test]
fn symlink_of_the_host_into_the_store() {
    // While init makes its root, `/layers` is where the store's layers are, and their owner is the step's
    // root: what is made through a symlink of base `host` could change a layer under its id.
    each_mode(|world| {
        world.recipe("[[step]]\nname = \"make\"\nrun = 'mkdir /made'\n");
        world.build().ok();
        let fs = some_layer(world);
        let inside = fs.strip_prefix(world.store()).unwrap();
        let host = tempfile::tempdir_in("/var/tmp").unwrap();
        fs::set_permissions(host.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let link = host.path().join("link");
        symlink(Path::new("/").join(inside), &link).unwrap();
        let mount = link.join("planted");
        world.write(
            "recipe.toml",
            &format!(
                "name = \"test\"\n[base]\nhost = [{link:?}]\n\
                 [[step]]\nname = \"escape\"\nargs = [\"/none\"]\nmounts = [{{ tmpfs = {mount:?} }}]\n"
            ),
        );
        let run = world.build().run;
        assert!(run.stderr.contains("base `host` has a symlink"), "{run}");
        assert!(!fs.join("planted").exists(), "a directory was made in a layer ({})", world.mode.name);
    });
}

#[test]
fn name_servers_change_no_layer() {
    each_mode(|world| {
        let steps = |target: &str| {
            format!(
                "[[step]]\nname = \"link\"\nrun = 'mkdir -p /opt; ln -s {target} /etc/resolv.conf'\n\
                 [[step]]\nname = \"use\"\nnetwork = \"host\"\nrun = 'test -f /etc/resolv.conf'\n\
                 [outputs.default]\nfrom = \"/\"\n"
            )
        };
        world.recipe(&steps("../run/systemd/resolve/stub-resolv.conf"));
        let build = world.build().ok();
        assert_eq!(fs::read_link(build.out.join("etc/resolv.conf")).unwrap().components().count(), 5);
        assert!(!build.out.join("run/systemd").exists());
        // Where the target would become part of the layer there is no place for it.
        world.recipe(&steps("/opt/none"));
        let build = world.build();
        assert_eq!(build.run.code, 125, "{}", build.run);
        assert!(build.run.stderr.contains("/opt/none"), "{}", build.run);
    });
}

#[test]
fn store_that_others_can_change() {
    // Whoever may rename `tmp/` away makes the next sweep remove what a symlink leads to.
    each_mode(|world| {
        world.recipe("[[step]]\nname = \"make\"\nrun = 'mkdir /made'\n");
        world.build().ok();
        let precious = world.write("precious/file", "keep");
        let (tmp, store) = (world.store().join("tmp"), world.store());
        fs::rename(&tmp, store.join("layers/gone")).unwrap();
        symlink(precious.parent().unwrap(), &tmp).unwrap();
        fs::set_permissions(&store, fs::Permissions::from_mode(0o777)).unwrap();
        let refused = |wanted: &str| {
            let run = world.build().run;
            assert_eq!(run.code, 125, "{run}");
            assert!(run.stderr.contains(wanted), "{run}");
            assert!(precious.exists(), "swept ({})", world.mode.name);
        };
        refused("others may write to the store");
        fs::set_permissions(&store, fs::Permissions::from_mode(0o700)).unwrap();
        if fs::metadata("/proc/self").unwrap().uid() == 0 && world.mode.uid == 0 {
            chown(&store, Some(65534), None).unwrap();
            refused("belongs to user 65534");
            chown(&store, Some(0), None).unwrap();
        }
        fs::remove_file(&tmp).unwrap();
        fs::rename(store.join("layers/gone"), &tmp).unwrap();
    });
}

#[test]
fn limit_on_disk_counts_what_came_last() {
    // Faster than anyone looks, and larger than the time it takes to write.
    for script in ["dd if=/dev/zero of=/big bs=1M count=8", "truncate -s 900G /big"] {
        each_mode(|world| {
            world.recipe(&format!(
                "[[step]]\nname = \"over\"\nlimits = {{ disk = \"1MiB\" }}\nrun = '{script}'\n"
            ));
            let run = world.build().run;
            assert_eq!(run.code, 1, "{run}");
            assert!(run.stderr.contains("disk limit"), "{run}");
        });
    }
}

#[test]
fn names_that_only_bytes_tell_apart() {
    each_mode(|world| {
        world.recipe(
            "[sources.src]\npath = \"src\"\nunpack = \"/src\"\n\
             [[step]]\nname = \"look\"\nrun = 'for f in /src/*; do cat \"$f\"; done'\n",
        );
        world.write("src/a", "");
        let [one, two] =
            [b"n\xfe", b"n\xff"].map(|name| world.path("work/src").join(OsStr::from_bytes(name)));
        fs::write(&one, "one\n").unwrap();
        fs::write(&two, "two\n").unwrap();
        // Longer than the grain below which the stat cache remembers nothing.
        std::thread::sleep(std::time::Duration::from_millis(80));
        assert_eq!(world.build().ok().log("look"), ["one", "two"]);
        let other = world.path("work/other");
        fs::rename(&one, &other).unwrap();
        fs::rename(&two, &one).unwrap();
        fs::rename(&other, &two).unwrap();
        assert_eq!(world.build().ok().log("look"), ["two", "one"]);
    });
}
