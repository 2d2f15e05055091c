//! The sandbox from the inside. Every test forks first: an executor needs a process with one thread, which
//! the standard test harness never has. So this file has its own `main`; arguments are substrings of names.

mod sandbox_support;

use std::os::fd::AsFd;

use sandbox_support::{Fixture, TESTS};

fn main() {
    let filters: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let wanted =
        |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()));
    let list = std::env::args().any(|arg| arg == "--list");
    let mut failed = Vec::new();
    for (name, test) in TESTS.iter().filter(|(name, _)| wanted(name)) {
        if list {
            println!("{name}: test");
            continue;
        }
        match isolith::sys::process::fork().unwrap() {
            None => {
                let ok = std::panic::catch_unwind(|| test(&Fixture::new())).is_ok();
                std::process::exit(i32::from(!ok));
            }
            Some(child) => {
                let ended = isolith::sys::process::wait(child, true).unwrap();
                let ok = matches!(ended, Some((_, isolith::sys::process::Ended::Exited(0))));
                println!("test {name} ... {}", if ok { "ok" } else { "FAILED" });
                if !ok {
                    failed.push(*name);
                }
            }
        }
    }
    let _ = std::io::stdout().as_fd();
    if !failed.is_empty() {
        println!("failed: {failed:?}");
        std::process::exit(101);
    }
}
