//! The users that the program is tried as.

use std::fs;
use std::process::Command;
use std::sync::OnceLock;

/// Who runs the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode {
    pub name: &'static str,
    pub uid: u32,
    pub gid: u32,
    /// Whether sandboxes can be made for this user.
    pub runs: bool,
    /// Whether they have one id only, and owners are recorded.
    pub single: bool,
}

const COUNT: u64 = 65536;

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// All modes that can be tried here. As root, makes the users `isolith-range` and `isolith-plain` when
/// they do not exist.
pub fn modes() -> Vec<Mode> {
    static MODES: OnceLock<Vec<Mode>> = OnceLock::new();
    MODES.get_or_init(find).clone()
}

fn find() -> Vec<Mode> {
    if !is_root() {
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        let passwd = fs::read_to_string("/etc/passwd").unwrap();
        let name = passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
        });
        return vec![Mode {
            name: "current user",
            uid,
            gid,
            runs: true,
            single: !has_range(&name.unwrap_or_default()),
        }];
    }
    // Test binaries run one after the other, but several checkouts may not.
    let lock = fs::File::create("/run/isolith-test-users.lock").unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let range = user("isolith-range", &[]);
    if !has_range("isolith-range") {
        let start = free();
        let range = format!("{start}-{}", start + COUNT - 1);
        run("usermod", &["--add-subuids", &range, "--add-subgids", &range, "isolith-range"]);
    }
    // System users get no range.
    let plain = user("isolith-plain", &["--system"]);
    assert!(
        !has_range("isolith-plain"),
        "isolith-plain has a range in /etc/subuid; it is there to have none"
    );
    vec![
        Mode { name: "root", uid: 0, gid: 0, runs: true, single: false },
        Mode { name: "user with a range", uid: range.0, gid: range.1, runs: true, single: false },
        Mode { name: "user without a range", uid: plain.0, gid: plain.1, runs: true, single: true },
    ]
}

fn user(name: &str, flags: &[&str]) -> (u32, u32) {
    let find = || {
        let passwd = fs::read_to_string("/etc/passwd").unwrap();
        let line = passwd.lines().find(|line| line.starts_with(&format!("{name}:")))?.to_owned();
        let fields: Vec<&str> = line.split(':').collect();
        Some((fields[2].parse().unwrap(), fields[3].parse().unwrap()))
    };
    find().unwrap_or_else(|| {
        let fixed = ["--no-create-home", "--user-group", "--shell", "/usr/sbin/nologin", name];
        run("useradd", &[flags, &fixed].concat());
        find().unwrap()
    })
}

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program)
        .args(args)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .output()
        .unwrap_or_else(|why| panic!("{program}: {why}; install the Debian package `passwd`"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Whether both files give the user a range of 65536 ids.
fn has_range(name: &str) -> bool {
    ["/etc/subuid", "/etc/subgid"]
        .iter()
        .all(|file| ranges(file).iter().any(|(owner, _, count)| owner == name && *count >= COUNT))
}

/// The first id behind all ranges.
fn free() -> u64 {
    let all = [ranges("/etc/subuid"), ranges("/etc/subgid")].concat();
    all.iter().map(|(_, start, count)| start + count).max().unwrap_or(0).max(100_000)
}

fn ranges(file: &str) -> Vec<(String, u64, u64)> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let parse = |line: &str| {
        let mut fields = line.split(':');
        Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    text.lines().filter_map(parse).collect()
}
