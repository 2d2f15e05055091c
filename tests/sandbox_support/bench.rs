//! How long a step takes from `spawn` to `wait`, against a bare clone + overlay + exec.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use super::{Fixture, stdio};

/// Not part of the ordinary run: `cargo test --test sandbox_core -- bench_steps`.
pub fn bench_steps(f: &Fixture) {
    const STEPS: u32 = 41;
    let executor = f.executor();
    let floor = std::env::var_os("FLOOR");
    let rounds = std::env::var("ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(3);
    for round in 0..rounds {
        let mut specs = Vec::new();
        let mut stack = vec![f.busybox];
        for n in 0..STEPS {
            let mut spec = f.spec(&["/bin/busybox", "true"]);
            spec.layers = stack.clone();
            stack.push(f.layer(1000 * (round + 1) + n, &[]));
            specs.push((spec, stdio()));
        }
        let begin = Instant::now();
        for (spec, (stdio, _read)) in specs {
            executor.spawn(&spec, stdio).unwrap().wait().unwrap();
        }
        let ours = begin.elapsed().as_secs_f64() * 1e3 / f64::from(STEPS);
        print!("ours {ours:.3} ms a step");
        if let Some(floor) = &floor {
            let base = f.layer_dir(f.busybox);
            let work = f.store.join(format!("floor-{round}"));
            std::fs::create_dir(&work).unwrap();
            let floor = run_floor(floor.as_ref(), &base, &work);
            print!(", floor {floor:.3} ms, ratio {:.2}", ours / floor);
        }
        println!();
    }
}

fn run_floor(floor: &Path, base: &Path, work: &Path) -> f64 {
    let output = Command::new(floor).arg(base).arg("41").arg(work).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let _ = std::fs::remove_dir_all(work);
    std::fs::create_dir(work).unwrap();
    text.split_whitespace().last().unwrap().parse().unwrap_or_else(|_| panic!("{:?}", output.stderr))
}

/// Two sandboxes at a time.
pub fn bench_parallel(f: &Fixture) {
    let executor = f.executor();
    let specs: Vec<Vec<_>> =
        (0..2).map(|_| (0..100).map(|_| f.spec(&["/bin/busybox", "true"])).collect()).collect();
    let begin = Instant::now();
    std::thread::scope(|s| {
        for specs in &specs {
            let executor = &executor;
            s.spawn(move || {
                for spec in specs {
                    executor.spawn(spec, stdio().0).unwrap().wait().unwrap();
                }
            });
        }
    });
    println!("parallel {:.3} ms a step", begin.elapsed().as_secs_f64() * 1e3 / 200.0);
}

/// What a build with one step pays: start, one sandbox, end.
pub fn bench_start(f: &Fixture) {
    for _ in 0..5 {
        let spec = f.spec(&["/bin/busybox", "true"]);
        let (stdio, _read) = stdio();
        let begin = Instant::now();
        let ms = || begin.elapsed().as_secs_f64() * 1e3;
        let executor = f.executor();
        let started = ms();
        executor.spawn(&spec, stdio).unwrap().wait().unwrap();
        let ran = ms();
        drop(executor);
        println!("start {started:.2} ms, step {:.2} ms, end {:.2} ms", ran - started, ms() - ran);
    }
}
