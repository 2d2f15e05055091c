//! What steps do in one way or another, with the same result.

use isolith::layer::Manifest;

use super::common::{World, each_mode, each_mode_with_all_ids, modes};
use super::{Seen, base};

/// Runs each step on the base and gives the ids of their layers. A step is a script, or keys of a step.
fn layers(world: &World, steps: &[&str]) -> Vec<String> {
    let step = |(at, step): (usize, &&str)| {
        let keys = if step.contains(" = ") { step.to_string() } else { format!("run = '''{step}'''") };
        format!("[[step]]\nname = \"s{at}\"\nafter = []\n{keys}\n")
    };
    world.recipe_on(base(), &steps.iter().enumerate().map(step).collect::<String>());
    let build = world.build();
    assert_eq!(build.run.code, 0, "{}", build.run);
    (0..steps.len()).map(|at| build.step(&format!("s{at}"))["layer"].as_str().unwrap().to_owned()).collect()
}

/// All steps yield one layer, which is not empty, in every mode.
fn one_layer(steps: &[&str]) {
    one_layer_in(|test| each_mode(test), steps);
}

fn one_layer_in(modes: impl Fn(&dyn Fn(&World)), steps: &[&str]) {
    let ids = Seen::default();
    modes(&|world| {
        for (id, step) in layers(world, steps).into_iter().zip(steps) {
            ids.add(id, &format!("{}: `{step}`", world.mode.name));
        }
    });
    assert_ne!(ids.only(), Manifest::empty_id().to_hex(), "nothing was written");
}

/// All steps leave nothing.
fn no_layer(steps: &[&str]) {
    each_mode(|world| {
        for (id, step) in layers(world, steps).iter().zip(steps) {
            assert_eq!(*id, Manifest::empty_id().to_hex(), "{}: `{step}` left something", world.mode.name);
        }
    });
}

#[test]
fn mtimes_of_files() {
    one_layer(&[
        "echo x > /f",
        "echo x > /f; touch -d @5 /f",
        "echo y > /f; echo x > /f; touch -d @4102444800 /f",
        "touch -d @99 /f; sleep 1.1; echo x > /f",
    ]);
}

#[test]
fn mtimes_of_new_directories_and_symlinks() {
    one_layer(&[
        "mkdir -p /n/m; ln -s m /n/l",
        "mkdir /n; mkdir /n/m; ln -s m /n/l; touch -h -d @7 /n/l; touch -d @7 /n /n/m",
        "mkdir -p /n/m; ln -s m /n/l; touch /n/x; rm /n/x",
        "mkdir -p /x/y; mv /x/y /x/m; ln -s m /x/l; mv /x /n",
    ]);
}

#[test]
fn parents_of_copied_files() {
    one_layer(&[
        "cp /opt/tool/one /opt/tool/copy",
        "cp -p /opt/tool/one /opt/tool/copy; touch -d @9 /opt/tool /opt",
        "cp /opt/tool/one /x; mv /x /opt/tool/copy; touch /opt/tool/lib; chmod 700 /opt; chmod 755 /opt",
    ]);
}

#[test]
fn whiteouts() {
    one_layer(&[
        "rm /opt/tool/one",
        "mv /opt/tool/one /opt/tool/gone; sleep 1.1; rm /opt/tool/gone",
        "echo > /opt/tool/one; rm /opt/tool/one",
        // Opaque in the writable layer.
        "cp -rp /opt/tool /t; rm -rf /opt/tool; mv /t /opt/tool; rm /opt/tool/one",
        "cp -p /opt/tool/two /t; rm -rf /opt/tool; mkdir -p /opt/tool/lib; mv /t /opt/tool/two; \
         echo -n opt/tool/lib/three > /opt/tool/lib/three",
    ]);
}

#[test]
fn replaced_kinds() {
    one_layer(&[
        "rm -rf /opt/tool; echo x > /opt/tool; rm -rf /opt/tool; mkdir /opt/tool; echo y > /opt/tool/one",
        "rm -r /opt/tool/lib /opt/tool/two; echo y > /opt/tool/one",
        "rm -rf /opt/tool; ln -s nowhere /opt/tool; rm /opt/tool; mkdir -p /n; echo y > /n/one; mv /n /opt/tool",
    ]);
}

#[test]
fn places_where_something_is_mounted() {
    let secret = |world: &World| {
        let path = world.write("secret", "hush");
        format!("T=file:{}", path.display())
    };
    let ids = Seen::default();
    each_mode(|world| {
        let steps = [
            "run = 'echo x > /f'",
            "run = 'echo x > /f; for d in /proc /sys /dev /run /tmp /var/tmp; do touch $d 2>/dev/null || true; done'",
            "run = 'echo x > /f; for d in /run /tmp /var/tmp /dev/shm; do mkdir $d/t; echo > $d/t/t; done'",
            "run = 'echo x > /f; cat /etc/hosts > /tmp/h; cat /etc/resolv.conf /etc/hostname 2>/dev/null || true'",
            "network = \"host\"\nrun = 'echo x > /f; cat /etc/hosts /etc/resolv.conf 2>/dev/null || true'",
            "mounts = [{ tmpfs = \"/scratch\" }, { tmpfs = \"/opt/tool/lib\" }]\n\
             run = 'echo x > /f; echo > /scratch/t; echo > /opt/tool/lib/t'",
            "mounts = [{ cache = \"/deep/cache/dir\" }]\nrun = 'echo x > /f; echo > /deep/cache/dir/t'",
            "mounts = [{ secret = \"T\", at = \"/etc/secret\" }]\nrun = 'echo x > /f; grep -q hush /etc/secret'",
            "cwd = \"/opt/tool\"\nuser = \"0:0\"\nrun = 'echo x > /f; cd /proc; cat /proc/self/mountinfo'",
        ];
        let mut given = World::new(world.mode);
        given.flags = vec!["--secret".into(), secret(world)];
        for (id, step) in layers(&given, &steps).into_iter().zip(steps) {
            ids.add(id, &format!("{}: `{step}`", world.mode.name));
        }
    });
    ids.only();
}

#[test]
fn copies_that_are_as_before() {
    no_layer(&[
        ":",
        "touch /opt/tool/one /opt/tool /opt / /etc/passwd",
        "chmod 600 /opt/tool/one; chmod 644 /opt/tool/one",
        "chown 5:6 /opt/tool/one /opt/tool; chown 0:0 /opt/tool/one /opt/tool",
        "mv /opt/tool/one /p; mv /p /opt/tool/one",
        "cp -p /opt/tool/one /p; mv /p /opt/tool/one",
        "cat /opt/tool/one > /tmp/x; echo > /opt/tool/one; cat /tmp/x > /opt/tool/one",
        "sed -i s/o/o/ /opt/tool/one",
        "ln /opt/tool/one /l; rm /l",
        "mkdir -p /n/m; rm -r /n; mkfifo /p; rm /p; ln -s x /s; rm /s",
        "cp -rp /opt/tool /t; rm -rf /opt/tool; mv /t /opt/tool",
        "rm -rf /home/kim; mkdir /home/kim",
        "attr /opt/tool/one user.x 00; attr /opt/tool/one user.x",
        "if attr /opt/tool/one trusted.x 00; then exit 1; fi; attr /opt/tool/one security.selinux 6162 || :",
        ": >> /opt/tool/one; dd if=/dev/null of=/opt/tool/two conv=notrunc 2>/dev/null",
    ]);
}

#[test]
fn hard_links() {
    one_layer(&[
        "mkdir /z; echo x > /a; ln /a /b; ln /a /z/c",
        "mkdir /z; echo x > /z/c; ln /z/c /b; ln /b /a",
        "mkdir /z; echo x > /t; ln /t /b; ln /t /z/c; ln /t /a; rm /t",
        "mkdir /z; echo x > /a; ln /a /z/c; echo y > /b; ln -f /z/c /b; touch -d @3 /b",
    ]);
    one_layer(&[
        "ln /opt/tool/one /p",
        "ln /opt/tool/one /q; ln /q /p; rm /q",
        "cp -p /opt/tool/one /p; rm /opt/tool/one; ln /p /opt/tool/one",
    ]);
}

#[test]
fn owners_and_id_ranges() {
    one_layer(&[
        "echo x > /f; chown 65535:1 /f; mkdir /n; chown 1000:65535 /n; ln -s f /l; chown -h 7:8 /l",
        "mkdir /n; chown 1000:65535 /n; echo x > /n/f; chown 65535:1 /n/f; mv /n/f /f; ln -s f /l; chown -h 7:8 /l",
    ]);
}

/// `cap_net_bind_service+ep`, which the kernel stores with the root id of the sandbox; access lists with ids.
#[test]
fn capabilities_and_access_lists() {
    let cap = "attr /f security.capability 0100000200040000000000000000000000000000";
    let acl = "attr /f system.posix_acl_access 0200000001000600ffffffff0200040007000000\
               04000400ffffffff10000400ffffffff20000400ffffffff";
    one_layer_in(
        |test| each_mode_with_all_ids(test),
        &[
            &format!("echo x > /f; {acl}; {cap}; attr /f user.b 62; attr /f user.a 61"),
            &format!("echo x > /g; mv /g /f; attr /f user.a 61; attr /f user.b 62; {cap}; {acl}"),
            &format!(
                "echo x > /f; chown 9 /f; chown 0 /f; attr /f user.a 61; {cap}; attr /f user.b 62; {acl}; touch /f"
            ),
        ],
    );
}

/// Those that the step itself has set, and those of a layer below.
#[test]
fn a_new_owner_takes_capabilities_away() {
    let cap = "attr /f security.capability 0100000200040000000000000000000000000000";
    one_layer(&[
        "echo x > /f; chown 9:8 /f",
        &format!("echo x > /f; chown 5 /f; {cap}; chown 9:8 /f"),
        &format!("touch /g; chown 5 /g; rm /g; echo x > /f; {cap}; chown 9:8 /f"),
    ]);
    let seen = Seen::default();
    each_mode(|world| {
        world.recipe_on(
            base(),
            &format!(
                "[[step]]\nname = \"capable\"\nrun = \"echo x > /f; {cap}\"\n\
                 [[step]]\nname = \"given\"\nafter = [\"capable\"]\nrun = \"chown 9:8 /f\"\n\
                 [[step]]\nname = \"new\"\nafter = [\"capable\"]\nrun = \"rm /f; echo x > /f; chown 9:8 /f\"\n"
            ),
        );
        let build = world.build().ok();
        for step in ["given", "new"] {
            seen.add(&build.step(step)["layer"], &format!("{}: {step}", world.mode.name));
        }
    });
    assert_ne!(seen.only(), Manifest::empty_id().to_hex());
}

#[test]
fn what_is_printed() {
    each_mode(|world| {
        let say = |what: &str| {
            format!(
                "[[step]]\nname = \"say\"\nrun = 'echo {what}; echo x > /f'\n[[step]]\nname = \"next\"\nrun = ':'\n"
            )
        };
        let seen = Seen::default();
        for what in ["one", "two", "$(cat /proc/uptime /proc/sys/kernel/random/uuid)"] {
            world.recipe_on(base(), &say(what));
            let build = world.build().ok();
            seen.add((&build.step("say")["layer"], &build.step("next")["key"]), what);
        }
    });
}

/// Python writes bytecode whose header has the time of its source, unless SOURCE_DATE_EPOCH is set, as it is for
/// steps: then it has a hash.
#[test]
fn bytecode() {
    if !std::path::Path::new("/usr/bin/python3").exists() {
        return eprintln!("bytecode: no /usr/bin/python3; install the Debian package `python3-minimal`");
    }
    on_host(&["@5", "@1700000000"].map(|time| {
        format!(
            "mkdir /m; echo x = 1 > /m/a.py; touch -d {time} /m/a.py; /usr/bin/python3 -m compileall -q /m"
        )
    }));
}

/// The linker's cache is the same everywhere. Beside it `ldconfig` leaves one with inode numbers for its own use, which
/// no canonical form can take away (below): a step removes it, as bases of Debian do, and logs with it.
#[test]
fn the_linkers_cache() {
    on_host(&["", "touch -d @9 /etc/ld.so.cache; "].map(|more| {
        format!(
            "mkdir -p /etc /var/cache/ldconfig /var/log; ldconfig; {more}date > /var/log/ldconfig.log
             test -s /var/cache/ldconfig/aux-cache; rm /var/cache/ldconfig/aux-cache /var/log/*.log"
        )
    }));
}

/// Steps on this machine's programs yield one layer, in every mode.
fn on_host(scripts: &[String]) {
    let seen = Seen::default();
    each_mode(|world| {
        let step = |(at, script): (usize, &String)| {
            let path = "export PATH=/usr/sbin:/sbin:/usr/bin:/bin";
            format!("[[step]]\nname = \"s{at}\"\nafter = []\nrun = '''\n{path}\n{script}\n'''\n")
        };
        let steps: String = scripts.iter().enumerate().map(step).collect();
        let head = "name = \"host\"\n[base]\nhost = [\"/usr\", \"/bin\", \"/sbin\", \"/lib\", \"/lib64\"]\n";
        world.write("recipe.toml", &format!("{head}{steps}"));
        let build = world.build().ok();
        for (at, script) in scripts.iter().enumerate() {
            seen.add(&build.step(&format!("s{at}"))["layer"], &format!("{}: {script}", world.mode.name));
        }
    });
    assert_ne!(seen.only(), Manifest::empty_id().to_hex());
}

/// What a step writes is what its layer has: nobody rewrites clocks, inode numbers or random numbers in the
/// content of files. (`verify` finds such steps.)
#[test]
fn content_is_never_touched() {
    let mode = modes().into_iter().find(|mode| mode.runs).unwrap();
    let build = || {
        let world = World::new(mode);
        layers(&world, &["cat /proc/sys/kernel/random/uuid > /f"])
    };
    assert_ne!(build(), build());
}
