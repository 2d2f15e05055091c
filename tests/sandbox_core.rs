//! The sandbox from the inside. Every test forks first: an executor needs a process with one thread, which
//! the standard test harness never has. So this file has its own `main`; arguments are substrings of names.
//!
//! As root the whole runs twice: as it is, and as an ordinary user with a subuid range.

mod sandbox_support;

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use isolith::sys::process::{Ended, fork, wait};
use sandbox_support::{BENCHES, Fixture, TESTS};

const USER: &str = "isolith-t1";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let filters: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let wanted = |name: &str| filters.iter().any(|filter| name.contains(filter.as_str()));
    let list = args.iter().any(|arg| arg == "--list");
    let root = nix::unistd::geteuid().is_root();
    let who = if root { "root" } else { "user" };
    let mut failed = Vec::new();
    let tests = TESTS.iter().filter(|(name, _)| filters.is_empty() || wanted(name));
    // Benches only when asked for by name.
    for (name, test) in tests.chain(BENCHES.iter().filter(|(name, _)| wanted(name))) {
        if list {
            println!("{name}: test");
            continue;
        }
        match fork().unwrap() {
            None => {
                let ok = std::panic::catch_unwind(|| test(&Fixture::new())).is_ok();
                std::process::exit(i32::from(!ok));
            }
            Some(child) => {
                let ok = matches!(wait(child, true).unwrap(), Some((_, Ended::Exited(0))));
                println!("test {name} as {who} ... {}", if ok { "ok" } else { "FAILED" });
                if !ok {
                    failed.push(*name);
                }
            }
        }
    }
    let again = root && !list && !as_user(&args);
    if !failed.is_empty() || again {
        println!("failed as {who}: {failed:?}");
        std::process::exit(101);
    }
}

/// Runs this program once more as an ordinary user; false when it failed.
fn as_user(args: &[String]) -> bool {
    let exists = |user: &str| nix::unistd::User::from_name(user).is_ok_and(|user| user.is_some());
    if !exists(USER) {
        let _ = Command::new("useradd").args(["--create-home", USER]).status();
    }
    if !exists(USER) {
        println!("skipped as user: there is no user `{USER}` and `useradd {USER}` could not make it");
        return true;
    }
    // The build directory may be closed to that user.
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = dir.path().join("sandbox_core");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut command = Command::new("runuser");
    command.args(["-u", USER, "--"]).arg(program).args(args).current_dir("/");
    command.status().expect("runuser is part of util-linux").success()
}
