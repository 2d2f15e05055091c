//! The stack, and what is mounted over it.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use isolith::digest::LayerId;
use isolith::key::{HostView, MountDoc, Network};
use isolith::path::GuestPath;
use isolith::sandbox::{CacheMount, SecretMount, Status};

use super::{Fixture, output, run};

fn path(text: &str) -> GuestPath {
    GuestPath::parse(text).unwrap()
}

pub fn writes_go_to_the_upper_directory(f: &Fixture) {
    let mut spec =
        f.script("pwd; echo new > file; rm /bin/nc; echo t > /tmp/t; echo t > /run/t; chown 5:6 file");
    spec.action.cwd = path("/work/deep");
    let (outcome, text) = run(&f.executor(), &spec);
    assert_eq!(outcome.unwrap().status, Status::Exited(0), "{text}");
    assert_eq!(text, "/work/deep\n");
    let upper = f.upper(&spec);
    let mut names: Vec<_> =
        fs::read_dir(&upper).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["bin", "work"], "mount points or private files reached the layer");
    assert_eq!(fs::read_to_string(upper.join("work/deep/file")).unwrap(), "new\n");
    let meta = fs::metadata(upper.join("work/deep/file")).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (f.ids.offset + 5, f.ids.offset + 6));
    assert_eq!(fs::symlink_metadata(upper.join("bin/nc")).unwrap().rdev(), 0, "a whiteout");
    let attributes: Vec<_> = xattr::list(&upper).unwrap().collect();
    assert!(!attributes.contains(&"user.overlay.uuid".into()), "a random id in the layer: {attributes:?}");
    assert!(f.layer_dir(f.busybox).join("bin/nc").is_symlink(), "the layer itself is untouched");
}

pub fn the_topmost_layer_wins(f: &Fixture) {
    let mut spec = f.script("cat /f /low /high; stat -c %Y /proc/../var /etc /etc/hosts");
    spec.layers.push(f.layer(1, &[("f", "lower\n"), ("low", "low\n")]));
    spec.layers.push(f.layer(2, &[("f", "upper\n"), ("high", "high\n")]));
    spec.action.epoch = 1234;
    let (outcome, text) = run(&f.executor(), &spec);
    assert_eq!(text, "upper\nlow\nhigh\n1234\n1234\n1234\n");
    assert_eq!(outcome.unwrap().status, Status::Exited(0));
}

pub fn five_hundred_layers_and_more(f: &Fixture) {
    let executor = f.executor();
    let layers: Vec<LayerId> = (1..=700)
        .map(|n| f.layer(n, &[(&format!("d/{n}"), &format!("{n}")), ("top", &format!("{n}"))]))
        .collect();
    for count in [499, 500, 700] {
        let mut spec = f.script("cat /top; echo; ls /d | wc -l; cat /d/1 /d/250 /d/499; echo; echo x > /d/new; rm /d/1; ls /d | wc -l");
        spec.layers.extend(&layers[..count - 1]);
        let (outcome, text) = run(&executor, &spec);
        let outcome = outcome.unwrap_or_else(|e| panic!("{count} layers: {e:?}"));
        let top = count - 1;
        let expected =
            if top < 499 { format!("{top}\n{top}\n") } else { format!("{top}\n{top}\n1250499\n{top}\n") };
        assert!(text.starts_with(&expected), "{count} layers: {text}");
        assert!(top < 499 || outcome.status == Status::Exited(0), "{count} layers: {text}");
    }
}

pub fn whiteouts_stay_invisible(f: &Fixture) {
    let executor = f.executor();
    let layer = f.layer(1, &[("only/here", "x")]);
    let whiteout = f.layer_dir(layer).join("only/gone");
    let dev = nix::sys::stat::makedev(0, 0);
    nix::sys::stat::mknod(&whiteout, nix::sys::stat::SFlag::S_IFCHR, nix::sys::stat::Mode::empty(), dev)
        .unwrap();
    let mut spec = f.script("ls -la /only");
    spec.layers.push(layer);
    spec.hidden_dirs = vec![b"only".to_vec()];
    let (_, text) = run(&executor, &spec);
    assert!(text.contains("here") && !text.contains("gone"), "{text}");
}

pub fn links_of_the_stack_stay_inside(f: &Fixture) {
    let executor = f.executor();
    let layer = f.layer(1, &[("elsewhere/keep", "")]);
    symlink("../../../../elsewhere", f.layer_dir(layer).join("run")).unwrap();
    f.own(&f.layer_dir(layer));
    let mut spec = f.script("ls /elsewhere; echo x > /run/x; readlink /run");
    spec.layers.push(layer);
    let (outcome, text) = run(&executor, &spec);
    assert_eq!(
        (outcome.unwrap().status, text.as_str()),
        (Status::Exited(0), "../../../../elsewhere\n"),
        "/run is mounted there"
    );
    // The host has /root-like places in plenty; the sandbox must not find one for a link that leads nowhere.
    let layer = f.layer(2, &[]);
    symlink("/home", f.layer_dir(layer).join("run")).unwrap();
    f.own(&f.layer_dir(layer));
    let mut spec = f.script("true");
    spec.layers.push(layer);
    let e = run(&executor, &spec).0.unwrap_err();
    assert!(format!("{e:?}").contains("`/run`") && format!("{e:?}").contains("openat2"), "{e:?}");
}

pub fn cache_tmpfs_and_secret_mounts(f: &Fixture) {
    let executor = f.executor();
    let cache = f.store.join("mounts/c1");
    fs::create_dir(&cache).unwrap();
    f.own(&cache);
    let script = "cat /c/kept 2>/dev/null || true; echo kept > /c/kept; echo t > /scratch/t; stat -c '%a %u' /scratch \
        /run/secrets/token /etc/other; cat /run/secrets/token /etc/other; (echo x >> /etc/other) 2>/dev/null || echo refused";
    for round in 0..2 {
        let mut spec = f.script(script);
        spec.action.mounts = vec![
            MountDoc::Cache { at: path("/c"), id: "c".into() },
            MountDoc::Secret { at: path("/etc/other"), name: "OTHER".into() },
            MountDoc::Secret { at: path("/run/secrets/token"), name: "TOKEN".into() },
            MountDoc::Tmpfs { at: path("/scratch") },
        ];
        spec.caches = vec![CacheMount { at: path("/c"), dir: "mounts/c1".into() }];
        let secret = |at: &str, value: &str| SecretMount { at: path(at), value: value.into() };
        spec.secrets = vec![secret("/etc/other", "o\n"), secret("/run/secrets/token", "s3cret\n")];
        let (outcome, text) = run(&executor, &spec);
        let kept = if round == 0 { "" } else { "kept\n" };
        assert_eq!(text, format!("{kept}1777 0\n400 0\n400 0\ns3cret\no\nrefused\n"), "{outcome:?}");
        assert_eq!(outcome.unwrap().status, Status::Exited(0));
        assert_eq!(fs::read_dir(f.upper(&spec)).unwrap().count(), 0, "a mount left something in the layer");
    }
    let mut spec = f.script("true");
    spec.caches = vec![CacheMount { at: path("/c"), dir: "mounts/../layers".into() }];
    assert!(run(&executor, &spec).0.unwrap_err().to_string().contains("leaves the store"));
}

fn host(paths: &[&str]) -> Option<HostView> {
    Some(HostView { paths: paths.iter().map(|p| path(p)).collect(), fingerprint: String::new() })
}

pub fn host_base(f: &Fixture) {
    let executor = f.executor();
    let mut spec = f.spec(&["/bin/sh", "-euc", "
        readlink /bin; id -u; [ -x /usr/bin/env ]; cat /etc/passwd 2>/dev/null && exit 3
        touch /usr/x 2>/dev/null && exit 4; grep ' /usr ' /proc/self/mountinfo | cut -d' ' -f6; ls /; echo made > /made"]);
    spec.layers = vec![];
    spec.action.host = host(&["/bin", "/lib", "/lib64", "/usr"]);
    let (outcome, text) = run(&executor, &spec);
    assert_eq!(outcome.unwrap().status, Status::Exited(0), "{text}");
    assert!(text.starts_with("usr/bin\n0\n"), "{text}");
    assert!(text.contains("ro,nosuid,nodev"), "{text}");
    let names: Vec<&str> = text.lines().skip(3).collect();
    assert_eq!(
        names,
        ["bin", "dev", "etc", "lib", "lib64", "proc", "run", "sys", "tmp", "usr", "var"],
        "{text}"
    );
    assert_eq!(fs::read_dir(f.upper(&spec)).unwrap().count(), 1);
    assert!(f.upper(&spec).join("made").exists() && !std::path::Path::new("/made").exists());
}

pub fn host_path_missing(f: &Fixture) {
    let mut spec = f.script("true");
    spec.action.host = host(&["/nowhere/at/all"]);
    let e = run(&f.executor(), &spec).0.unwrap_err();
    assert!(e.to_string().contains("/nowhere/at/all") && e.hint_text().is_some(), "{e:?}");
}

pub fn host_network(f: &Fixture) {
    let executor = f.executor();
    let mut spec = f.script("readlink /proc/self/ns/net; cat /etc/resolv.conf; (echo x > /etc/resolv.conf) 2>/dev/null || echo refused");
    spec.action.network = Network::Host;
    let (outcome, text) = run(&executor, &spec);
    let net = fs::read_link("/proc/self/ns/net").unwrap().display().to_string();
    let resolv = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    assert_eq!(text, format!("{net}\n{resolv}refused\n"), "{outcome:?}");
    // A stack whose resolv.conf is the usual symlink into /run.
    let layer = f.layer(1, &[("etc/x", "")]);
    symlink("../run/stub.conf", f.layer_dir(layer).join("etc/resolv.conf")).unwrap();
    f.own(&f.layer_dir(layer));
    let mut spec = f.script("cat /etc/resolv.conf");
    spec.layers.push(layer);
    spec.action.network = Network::Host;
    let (outcome, text) = run(&executor, &spec);
    assert_eq!(text, resolv, "{outcome:?}");
    assert_eq!(fs::read_dir(f.upper(&spec)).unwrap().count(), 0);
}

pub fn state_on_top(f: &Fixture) {
    let executor = f.executor();
    let first = f.script("echo left > /left; exit 3");
    assert_eq!(run(&executor, &first).0.unwrap().status, Status::Exited(3));
    fs::rename(f.upper(&first), f.store.join("failed/x")).unwrap();
    let mut spec = f.script("cat /left; echo changed > /left");
    spec.on_top = Some("failed/x".into());
    let (outcome, text) = run(&executor, &spec);
    assert_eq!((outcome.unwrap().status, text.as_str()), (Status::Exited(0), "left\n"));
    assert_eq!(fs::read_to_string(f.store.join("failed/x/left")).unwrap(), "left\n");
    assert!(!output(f, &executor, "ls /").contains("left"));
}
