use super::*;
use crate::digest::{ActionKey, LayerId};

fn key() -> ActionKey {
    ActionKey::of_document(b"x")
}

fn report(name: &str, outcome: OutcomeKind, wall_ms: u64) -> StepReport {
    let layer = (outcome != OutcomeKind::Failed).then(|| LayerId::of_manifest(b"m"));
    StepReport { name: name.into(), outcome, key: key(), layer, wall_ms, saved_ms: 0, remote: None }
}

fn steps() -> Vec<StepReport> {
    vec![
        report("hello:fetch", OutcomeKind::Hit, 0),
        report("compile", OutcomeKind::Executed, 1234),
        report("test", OutcomeKind::CutoffHit, 0),
    ]
}

fn events() -> Vec<Event> {
    let step = |step: &str| step.to_string();
    let mut events = vec![
        Event::Planned { steps: steps().into_iter().map(|s| s.name).collect() },
        Event::Started { step: step("compile"), key: key(), why: vec!["this".into(), "and that".into()] },
        Event::Started { step: step("other"), key: key(), why: vec![] },
        Event::Log { step: step("compile"), line: "cc -c main.c".into() },
        Event::Waiting { step: step("other") },
        Event::Warning { message: "memory limits cannot be enforced".into() },
    ];
    events.extend(steps().into_iter().map(Event::Step));
    events.push(Event::Step(report("pack", OutcomeKind::Failed, 7)));
    events.push(Event::Exported { output: Some("default".into()), to: "out/hello".into(), digest: None });
    events.push(Event::Packing { what: step("step compile"), bytes: 2048, done: true });
    events.push(Event::Uploading {
        what: step("step compile"),
        url: step("oci://r.example/hello"),
        bytes: 2048,
        total: 2048,
        rate: 1024,
        done: true,
    });
    events.push(Event::Exported { output: None, to: "x.tar".into(), digest: Some("sha256:12".into()) });
    events.push(Event::Finished {
        status: "ok",
        wall_ms: 2000,
        steps: steps(),
        stack: vec![],
        remotes: vec![],
    });
    events
}

fn plain(verbose: bool) -> String {
    let plain = Plain::new(Style::PLAIN, verbose);
    events().iter().filter_map(|event| plain.line(event)).map(|line| line + "\n").collect()
}

#[test]
fn plain_lines_say_which_step() {
    insta::assert_snapshot!(plain(false));
}

#[test]
fn verbose_lines_have_ids() {
    insta::assert_snapshot!(plain(true));
}

#[test]
fn json_events() {
    let lines: Vec<_> = events().iter().map(|event| serde_json::to_string(event).unwrap()).collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn summaries() {
    assert_eq!(
        summary(Style::PLAIN, "hello", &steps(), &[], 1249),
        "built hello in 1.2 s: 1 executed, 1 hit, 1 cutoff hit\n"
    );
    assert_eq!(
        summary(Style::PLAIN, "x", &[], &[], 3),
        "built x in 3 ms: 0 executed, 0 hits, 0 cutoff hits\n"
    );
    let remote = [report("a", OutcomeKind::RemoteHit, 0), report("b", OutcomeKind::RemoteHit, 0)];
    assert!(summary(Style::PLAIN, "x", &remote, &[], 3).ends_with("0 cutoff hits, 2 remote hits\n"));
}
