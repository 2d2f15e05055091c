//! Builds whose remote is behind a proxy that makes trouble, or in a directory that is damaged: however it goes wrong,
//! the build goes right.
//!
//! `ISOLITH_FAULT_RUNS` says how many runs each backend gets, `ISOLITH_FAULT_SEED` with which seed they begin. What
//! happens to which connection follows from the seed; which connection is which is also a matter of time.

mod backends;
mod damage;
mod proxy;
#[path = "../../remote/servers.rs"]
mod servers;
mod slow;

use std::time::{Duration, Instant};

use super::support::*;
use crate::common::modes;
use backends::Place;
use proxy::{Dice, Proxy};

/// Steps that others have made, then two that only this machine's source leads to.
const RECIPE: &str = r#"
[sources.a]
path = "a"
unpack = "/a"

[sources.b]
path = "b"
unpack = "/b"

[[step]]
name = "one"
uses = ["a"]
run = "seq 1 30000 | sed 's/1/one/g' > /numbers; cp /a/text /one"

[[step]]
name = "two"
uses = []
run = "sort -r /numbers > /two"

[[step]]
name = "three"
uses = []
run = "cat /one /two | sha256sum > /three"

[[step]]
name = "four"
uses = ["b"]
run = "mkdir /out; cat /three /b/text > /out/four; seq 1 20000 | sed \"s/$/-$(cat /b/text)/\" > /out/noise"

[[step]]
name = "five"
uses = []
run = "cat /out/noise /two | md5sum > /out/five"

[outputs.default]
from = "/out"
"#;

/// How long builds here wait for a remote, in seconds.
const PATIENCE: u64 = 1;

/// How many runs each backend gets.
fn runs() -> u64 {
    std::env::var("ISOLITH_FAULT_RUNS").map_or(6, |runs| runs.parse().unwrap())
}

fn seed() -> u64 {
    std::env::var("ISOLITH_FAULT_SEED").map_or(1, |seed| seed.parse().unwrap())
}

/// Somebody who shares, and machines that are in trouble, one a mode.
struct Lab {
    a: Machine,
    others: Vec<Machine>,
    /// How long each of them takes alone.
    alone: Vec<Duration>,
    tally: Tally,
}

/// What came of all runs.
#[derive(Default)]
struct Tally {
    troubled: usize,
    hits: usize,
    sent: usize,
    off: usize,
    warned: usize,
    longest: Duration,
}

impl Lab {
    fn new() -> Lab {
        let machine = |mode| {
            let mut machine = Machine::new(mode);
            machine.world.recipe(RECIPE);
            machine.world.write("a/text", "for all\n");
            machine.world.write("b/text", "0");
            // Users of one directory let each other write there.
            machine.world.caller = "umask 0".to_string();
            for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
                machine.world.env.insert(name.into(), "test".into());
            }
            machine
        };
        let a = machine(modes()[0]);
        let others: Vec<Machine> = modes().into_iter().map(machine).collect();
        let alone = others.iter().map(|b| {
            let began = Instant::now();
            b.world.build().ok();
            b.forget();
            began.elapsed()
        });
        let alone = alone.collect();
        Lab { a, others, alone, tally: Tally::default() }
    }

    /// One run: somebody shares through `near`, `lose` takes some of it away, and a machine builds with `far` while
    /// there is `trouble`; what that was `end` tells.
    fn run<F: std::fmt::Debug>(
        &mut self,
        seed: u64,
        (near, far): (&Place, &Place),
        lose: impl FnOnce(&mut Dice),
        trouble: impl FnOnce(&mut Dice),
        end: impl FnOnce() -> Vec<F>,
    ) {
        let which = seed as usize % self.others.len();
        let (a, b, mut dice) = (&mut self.a, &mut self.others[which], Dice(seed));
        let at = |machine: &mut Machine, place: &Place| {
            machine.world.env.extend(place.env.iter().map(|(name, value)| (name.to_string(), value.clone())));
        };
        at(a, near);
        at(b, far);
        a.world.write("b/text", "0");
        let made = a.world.build_recipe("recipe.toml", &["--remote", &near.url]).ok();
        assert_eq!(warnings(&made), Vec::<String>::new(), "{}: {}", near.url, made.run);
        a.world.write("b/text", &seed.to_string());
        let expected = tree(&a.world.build_recipe("recipe.toml", &["--no-remote"]).ok());

        lose(&mut dice);
        b.world.write("b/text", &seed.to_string());
        let settings = |place: &Place, patience: u64| {
            let url = &place.url;
            let keys = [&a.key];
            format!("trusted-keys = {keys:?}\n[remotes.team]\nurl = {url:?}\npatience = {patience}\n")
        };
        b.configure(&settings(far, PATIENCE));
        trouble(&mut dice);
        let began = Instant::now();
        let build = b.world.build();
        let took = began.elapsed();
        let faults = end();
        let what = format!(
            "ISOLITH_FAULT_SEED={seed} {}, {}: {faults:?}: {}",
            far.url, b.world.mode.name, build.run
        );
        assert_eq!(build.run.code, 0, "{what}");
        let team = remote(&build, "team");
        assert_eq!(tree(&build), expected, "{what}");
        assert!(warnings(&build).len() <= 1, "{what}");
        let waited = team["waited_ms"].as_u64().unwrap();
        // A server that has too much to do is a fault too.
        assert!(!faults.is_empty() || waited >= PATIENCE * 1000 || warnings(&build).is_empty(), "{what}");
        assert!(waited <= PATIENCE * 1000 + 100, "waited {waited} ms: {what}");
        // Twice, for what others do on this machine meanwhile.
        let most = 2 * self.alone[which] + Duration::from_secs(PATIENCE + 4);
        assert!(took < most, "{took:?} for {:?}: {what}", self.alone[which]);
        let fsck = b.world.isolith(&["store", "fsck", "--store", b.world.store().to_str().unwrap()]);
        assert_eq!(fsck.code, 0, "{fsck}: {what}");
        b.world.assert_clean();

        // What was written in trouble is there or not, and never something else.
        b.forget();
        at(b, near);
        b.configure(&settings(near, 10));
        let again = b.world.build();
        assert_eq!(again.run.code, 0, "afterwards: {}: {what}", again.run);
        assert_eq!(tree(&again), expected, "afterwards: {}: {what}", again.run);
        assert!(warnings(&again).len() <= 1, "afterwards: {}: {what}", again.run);
        b.forget();

        let tally = &mut self.tally;
        tally.troubled += usize::from(!faults.is_empty());
        tally.hits += usize::from(outcomes(&build, "remote-hit") > 0);
        tally.sent += usize::from(team["layers_up"].as_u64() > Some(0));
        tally.off += usize::from(team["off"] == true);
        tally.warned += usize::from(!warnings(&build).is_empty());
        tally.longest = tally.longest.max(took.saturating_sub(self.alone[which]));
    }

    /// Tells what came of it, and that it was about something.
    fn end(self, name: &str, runs: u64) {
        let Tally { troubled, hits, sent, off, warned, longest } = self.tally;
        println!(
            "{name}: {runs} runs, {troubled} with faults: hits in {hits}, layers sent in {sent}, off in {off}, \
             warned in {warned}, at most {} ms longer than alone",
            longest.as_millis()
        );
        assert!(troubled > 0 && (runs < 5 || hits > 0), "nothing was tried");
    }
}

/// All runs of a backend behind a proxy.
fn through(backend: backends::Backend) {
    let (runs, first) = (runs(), seed());
    let proxy = Proxy::new(backend.port, backend.answers);
    let mut lab = Lab::new();
    for seed in first..first + runs {
        let (near, far) = ((backend.place)(backend.port, seed), (backend.place)(proxy.port, seed));
        let lost = std::cell::Cell::new(false);
        let lose = |dice: &mut Dice| {
            if dice.roll(4) == 0 {
                (backend.lose)(seed, dice);
                lost.set(true);
            }
        };
        let trouble = |dice: &mut Dice| proxy.foul(dice.clone(), *dice.pick(&[10, 30, 100]));
        let end = || {
            let faults = proxy.fair().into_iter().map(|fault| format!("{fault:?}"));
            faults.chain(lost.get().then(|| "lost".to_string())).collect()
        };
        lab.run(seed, (&near, &far), lose, trouble, end);
    }
    lab.end(backend.name, runs);
}

#[test]
fn trouble_with_a_registry() {
    through(backends::registry());
}

#[test]
fn trouble_with_s3() {
    through(backends::s3());
}

#[test]
fn trouble_with_webdav() {
    through(backends::webdav());
}

#[test]
fn trouble_with_redis() {
    through(backends::redis());
}

#[test]
fn trouble_with_the_remote_execution_api() {
    through(backends::reapi());
}

#[test]
fn trouble_with_the_cache_of_actions() {
    through(backends::actions());
}
