//! What a step does to owners, and sees of them, is the same whoever builds: as root, as a user with a range of
//! ids, and as one without, for whom owners are recorded.

mod common;

use common::{World, modes};

/// Runs steps in every mode; all must print the same and give the same layers.
fn same_everywhere(steps: &[&str]) -> Vec<Vec<String>> {
    let mut first: Option<(Vec<Vec<String>>, Vec<String>)> = None;
    for mode in modes() {
        let world = World::new(mode);
        let step =
            |(n, script): (usize, &&str)| format!("[[step]]\nname = \"s{n}\"\nrun = '''\n{script}\n'''\n");
        world.recipe(&steps.iter().enumerate().map(step).collect::<String>());
        let build = world.build().ok();
        let names: Vec<String> = (0..steps.len()).map(|n| format!("s{n}")).collect();
        let logs = names.iter().map(|name| build.log(name)).collect();
        let layers =
            names.iter().map(|name| build.step(name)["layer"].as_str().unwrap().to_owned()).collect();
        let fsck = world.isolith(&["store", "fsck", "--store", world.store().to_str().unwrap()]);
        assert_eq!(fsck.code, 0, "{fsck}");
        match &first {
            None => first = Some((logs, layers)),
            Some(first) => assert_eq!((&logs, &layers), (&first.0, &first.1), "{}", mode.name),
        }
    }
    first.unwrap().0
}

/// Owner and mode of everything below a directory.
const LIST: &str = "find /d | sort | xargs stat -c '%u:%g %a %n'";

#[test]
fn every_kind_keeps_its_owner_in_the_step_and_in_later_ones() {
    let make = format!(
        "mkdir -p /d/sub; echo x > /d/f; mkfifo /d/p; ln -s f /d/l; ln -s nowhere /d/broken; ln /d/f /d/hard
         chown 1:2 /d/f; chown 3:4 /d/p; chown -h 5:6 /d/l; chown -h 7:8 /d/broken; chown 9:10 /d/sub
         chown 11 /d; chgrp 12 /d; {LIST}"
    );
    let change = format!(
        "{LIST}; mv /d/l /d/moved; mv /d/p /d/sub/p; touch /d/f; rm /d/broken; ln -s new /d/broken; {LIST}"
    );
    let logs = same_everywhere(&[&make, &change, LIST]);
    assert_eq!(logs[0][0], "11:12 755 /d");
    assert_eq!(logs[2].iter().find(|line| line.ends_with("/d/moved")).unwrap(), "5:6 777 /d/moved");
    assert_eq!(logs[2].iter().find(|line| line.ends_with("/d/broken")).unwrap(), "0:0 777 /d/broken");
    assert_eq!(logs[2].iter().find(|line| line.ends_with("/d/sub/p")).unwrap(), "3:4 644 /d/sub/p");
}

#[test]
fn devices_are_seen_as_they_are_and_cannot_be_made() {
    let look = "stat -c '%u:%g %a %t:%T %F' /dev/null /dev/zero /d/p
                mknod /d/n c 1 3 2>/dev/null || echo no";
    let logs =
        same_everywhere(&[&format!("mkdir /d; mkfifo /d/p; chown 3:4 /d/p; chmod 640 /d/p; {look}"), look]);
    let seen = [
        "65534:65534 666 1:3 character special file",
        "65534:65534 666 1:5 character special file",
        "3:4 640 0:0 fifo",
        "no",
    ];
    assert_eq!(logs, [seen, seen]);
}

#[test]
fn a_change_back_leaves_nothing() {
    let logs = same_everywhere(&[
        "touch /f; chown 5:5 /f",
        "chown 6:6 /f; chown 0:0 /f; stat -c %u:%g /f; chown 5:5 /f; stat -c %u:%g /f",
        "chown 0:0 /f; stat -c %u:%g /f",
        "stat -c %u:%g /f",
    ]);
    assert_eq!(logs, [vec![], vec!["0:0", "5:5"], vec!["0:0"], vec!["0:0"]]);
}

#[test]
fn a_new_owner_takes_setuid_bits_and_capabilities_away() {
    let logs = same_everywhere(&[
        "touch /f /g; chmod 6755 /f; chown 1 /f; chmod 2644 /g; chown 1 /g; stat -c %a /f /g
         mkdir /d; chmod 2755 /d; chown 1 /d; stat -c %a /d
         chmod 4755 /f; chown 1 /f; stat -c %a /f",
    ]);
    assert_eq!(logs[0], ["755", "2644", "2755", "755"]);
}

#[test]
fn setgid_directories_hand_their_group_down() {
    let steps = [
        format!(
            "mkdir -p /d/own /plain; touch /d/before /plain/x /plain/y; chgrp 7 /d; chmod 2775 /d
             touch /d/new; mkdir /d/sub; touch /d/sub/deep; ln -s x /d/sub/link; mkfifo /d/sub/p
             mv /plain/x /d/x; ln /plain/y /d/y; mv /d/sub/deep /d/own/deep; {LIST}; stat -c %g /plain/y"
        ),
        format!("touch /d/before /d/later; chgrp 8 /d; touch /d/after; chmod g-s /d; touch /d/last; {LIST}"),
        format!("{LIST}; chmod g+s /d; touch /d/again; mv /d /e; touch /e/moved; mv /e /d; {LIST}"),
        LIST.to_owned(),
    ];
    let logs = same_everywhere(&[&steps[0], &steps[1], &steps[2], &steps[3]]);
    let group = |log: usize, name: &str| {
        let line = logs[log].iter().rfind(|line| line.ends_with(&format!(" {name}"))).unwrap();
        line.split([':', ' ']).nth(1).unwrap().to_owned()
    };
    for (log, name, wanted) in [
        (0, "/d/before", "0"),
        (0, "/d/new", "7"),
        (0, "/d/sub", "7"),
        (0, "/d/sub/link", "7"),
        (0, "/d/own/deep", "7"),
        (0, "/d/x", "0"),
        (1, "/d/before", "0"),
        (1, "/d/new", "7"),
        (1, "/d/later", "7"),
        (1, "/d/after", "8"),
        (1, "/d/last", "0"),
        (3, "/d/again", "8"),
        (3, "/d/moved", "8"),
        (3, "/d/last", "0"),
    ] {
        assert_eq!(group(log, name), wanted, "{name} after step {log}");
    }
}

#[test]
fn a_setgid_bit_that_is_taken_away_is_noticed() {
    let zone = "mkdir /d; chgrp 7 /d; chmod 2775 /d; touch /d/old; mkdir -p /d/a/b";
    let steps = [
        // Seen only at the end, or only while it is there.
        format!("{zone}; touch /d/a/b/old; chmod 755 /d/a/b; touch /d/a/b/new"),
        "find /d | sort | xargs stat -c '%u:%g %a %n'; rm -r /d".to_owned(),
        format!("{zone}; chmod 755 /d/a; touch /d/a/new; stat -c %g /d/a /d/a/new; rm -r /d"),
        format!("{zone}; chmod 755 /d; touch /d/new; mv /d/new /d/old /; stat -c %g /new /old; rm -r /d"),
        format!("{zone}; chmod 755 /d/a; touch /d/a/new; ln /d/a/new /hard; rm -r /d; stat -c %g /hard"),
        format!(
            "{zone}; chmod 755 /d/a; touch /d/a/x; mv /d/a /a; touch /a/y; {} | grep /a; rm -r /d /a",
            LIST.replace("/d", "/a")
        ),
        format!("{zone}; chmod 755 /d/a; touch /d/a/x; chmod 2755 /d/a; touch /d/a/y; {LIST}; rm -r /d"),
        format!("{zone}; chmod 755 /d/a; touch /d/a/x; chgrp 9 /d/a; touch /d/a/y; {LIST}; rm -r /d"),
        // Nothing is taken away: what is moved in has no bit, and what is moved out keeps it.
        format!(
            "mkdir -p /p/q; {zone}; mv /p /d/p; touch /d/p/x /d/p/q/y; mv /d/a /a; touch /a/z /a/b/z; {LIST}; {}",
            LIST.replace("/d", "/a")
        ),
        format!("{LIST}; {}", LIST.replace("/d", "/a")),
    ];
    let logs = same_everywhere(&steps.each_ref().map(String::as_str));
    let last = |log: usize| {
        logs[log].iter().map(|line| line.rsplit_once(' ').unwrap_or((line, "")).0).collect::<Vec<_>>()
    };
    assert_eq!(last(1), ["0:7 2775", "0:7 2755", "0:7 755", "0:0 644", "0:7 644", "0:7 644"]);
    assert_eq!([&logs[2], &logs[3], &logs[4]], [&vec!["7", "0"], &vec!["0", "7"], &vec!["0"]]);
    assert!(
        logs[9].contains(&"0:7 644 /a/b/z".to_owned()) && logs[9].contains(&"0:0 644 /d/p/q/y".to_owned())
    );
}

#[test]
fn a_directory_that_is_asked_about_often_may_become_another_one() {
    let ask = "stat -c %u:%g /d; stat -c %u:%g /d; stat -c %u:%g /d";
    let logs = same_everywhere(&[&format!(
        "mkdir /d; chown 5:6 /d; {ask}; chown 7 /d; {ask}; mv /d /e; mkdir /d; {ask}; chown 8:8 /d; {ask}
         rm -r /d; mv /e /d; {ask}; ln -s /d /l; chown -h 3:3 /l; {}; {}; rm /l; mkdir /l; {}",
        ask.replace("-c", "-Lc").replace("/d", "/l"),
        ask.replace("/d", "/l"),
        ask.replace("/d", "/l"),
    )]);
    let owners = ["5:6", "7:6", "0:0", "8:8", "7:6", "7:6", "3:3", "0:0"];
    assert_eq!(logs[0], owners.into_iter().flat_map(|owner| [owner; 3]).collect::<Vec<_>>());
    // From one process, by one path.
    let tar = "mkdir /d /in; chown 5:6 /in; touch /in/1 /in/2 /in/3; chown 4:4 /in/2; tar cf /x.tar -C / in
         tar xf /x.tar -C /d; find /d | sort | xargs stat -c '%u:%g %n'; rm -r /in /x.tar";
    let logs = same_everywhere(&[tar]);
    assert_eq!(logs[0], ["0:0 /d", "5:6 /d/in", "0:0 /d/in/1", "4:4 /d/in/2", "0:0 /d/in/3"]);
}

#[test]
fn what_a_step_that_runs_twice_prints_is_shown_once() {
    let Some(mode) = modes().into_iter().find(|mode| mode.runs && mode.single) else { return };
    let world = World::new(mode);
    // The first run is stopped at the `mv`.
    world.recipe(
        "[[step]]\nname = \"s\"\nrun = '''\nmkdir /d; chgrp 7 /d; chmod 2775 /d; mkdir /d/a; echo one; echo two\n\
         chmod 755 /d/a; touch /d/a/new; mv /d/a /a; echo three\n'''\n",
    );
    let build = world.build().ok();
    let lines = build.events.iter().filter(|event| event["event"] == "log");
    let lines: Vec<&str> = lines.map(|event| event["line"].as_str().unwrap()).collect();
    assert_eq!(lines, ["one", "two", "three"]);
    assert_eq!(build.log("s"), lines);
    assert!(build.twice.contains_key("s"), "it ran once: {}", build.run);
}

#[test]
fn errors_are_the_kernels() {
    let logs = same_everywhere(&["try() { \"$@\" 2>&1 | sed 's/.*: //'; }
         touch /f; try chown 1 /nowhere; try chown 65536 /f; try chown 1 /f/x; ln -s a /a; try chown 1 /a
         try chown 1 /proc/self/status; try mknod /null c 1 3; try chgrp 70000 /nowhere; stat -c %u /f"]);
    assert_eq!(
        logs[0],
        [
            "No such file or directory",
            "Invalid argument",
            "Not a directory",
            "Too many levels of symbolic links",
            "Operation not permitted",
            "No such file or directory",
            "0"
        ]
    );
}

#[test]
fn other_roots_and_working_directories_are_those_of_the_caller() {
    let logs = same_everywhere(&[
        "mkdir -p /r/bin /r/d /d; cp /bin/busybox /r/bin/; ln -s busybox /r/bin/sh; touch /r/d/f /d/f; ln -s /d/f /r/link
         chroot /r /bin/busybox chown 4:5 /link; chroot /r /bin/busybox stat -c %u:%g /d/f
         chroot /r /bin/sh -c 'cd d; /bin/busybox stat -c %u:%g f ../../../d/f /link'
         stat -c %u:%g /r/d/f /d/f; cd /r/d; stat -c %u:%g f; chown 6 f; stat -c %u ../d/f
         exec 3</r/d/f; stat -L -c %u /proc/self/fd/3; stat -L -c %u /dev/fd/3; stat -L -c %u /dev/stdin < f",
    ]);
    assert_eq!(logs[0], ["4:5", "4:5", "4:5", "0:0", "4:5", "0:0", "4:5", "6", "6", "6", "6"]);
}

#[test]
fn many_processes_at_once_and_some_that_die_in_the_middle() {
    let script = "mkdir /d; for i in 1 2 3 4 5 6 7 8; do
           (for j in 1 2 3 4 5 6 7 8 9 10 11 12; do touch /d/$i-$j; chown $i:$j /d/$i-$j; stat /d/$i-$j > /dev/null; done) &
         done; wait
         (while :; do chown 3 /bin/busybox; stat /bin/busybox; done) > /dev/null 2>&1 & sleep 0.2; kill -9 $!
         # What the killed loop had started may still be at it.
         sleep 1; chown 0 /bin/busybox; (while :; do stat /d; done) > /dev/null 2>&1 &
         find /d -type f | sort | xargs stat -c '%u-%g %n' | awk '{ print \"/d/\" $1 == $2 }' | sort -u";
    assert_eq!(same_everywhere(&[script])[0], ["1"]);
}
