//! What is said about results: provenance that others can verify, who agrees with whom, and what a build did.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::support::*;
use crate::common;

const VERIFIERS: [&str; 2] = ["securesystemslib[crypto]==1.6.0", "in-toto-attestation==0.9.3"];

fn python() -> PathBuf {
    common::python("dsse-verifiers", "securesystemslib, cryptography, in_toto_attestation", &VERIFIERS)
}

fn verify(envelope: &Path, key: &str, archive: Option<&Path>) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/remotes/verify.py");
    let mut command = Command::new(python());
    command.arg(script).arg(envelope).arg(key).args(archive);
    command.output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn others_can_verify_what_is_attested_and_every_record() {
    let (one, two) = pairs()[0];
    let shared = Shared::new();
    let (a, b) = (Machine::new(one), Machine::new(two));
    a.shares(&shared.url(), &[]);
    let store = a.world.store();
    let store = ["--store", store.to_str().unwrap(), "--quiet"];
    let run = a.world.isolith(&[&["attest", "recipe.toml"][..], &store].concat());
    assert_eq!(run.code, 0, "{run}");
    let archive = a.world.path("work/out.tar");
    let export = a.world.isolith(&[&["export", "recipe.toml", "tar:out.tar"][..], &store].concat());
    assert_eq!(export.code, 0, "{export}");

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("envelope");
    fs::write(&path, &run.stdout).unwrap();
    let found = verify(&path, &a.key, Some(&archive));
    assert!(found.status.success(), "{}", text(&found));
    // The recipe, its source and its base: what there is no lock file for is not in it.
    assert_eq!(text(&found).trim(), "3");
    // With another key, and with a changed payload, it would have said so.
    assert!(!verify(&path, &b.key, None).status.success());
    let other = run.stdout.replacen("\"payload\":\"eyJ", "\"payload\":\"eyK", 1);
    assert_ne!(other, run.stdout);
    fs::write(&path, other).unwrap();
    assert!(!verify(&path, &a.key, None).status.success());

    let records = shared.files("records");
    assert!(records.len() >= 6, "{records:?}");
    for record in records {
        let found = verify(&record, &a.key, None);
        assert!(found.status.success(), "{}: {}", record.display(), text(&found));
    }
}

#[test]
fn an_attestation_needs_a_key_and_goes_where_it_is_told() {
    let (one, two) = pairs()[0];
    let machine = Machine::new(two);
    let store = machine.world.store();
    let args = ["attest", "recipe.toml", "--output", "a.json", "--store", store.to_str().unwrap()];
    let run = machine.world.isolith(&args);
    assert_eq!((run.code, run.stdout.as_str()), (0, ""), "{run}");
    let envelope: serde_json::Value =
        serde_json::from_slice(&fs::read(machine.world.path("work/a.json")).unwrap()).unwrap();
    assert_eq!(envelope["payloadType"], "application/vnd.in-toto+json");
    fs::remove_file(machine.world.path("home/.config/isolith/key")).unwrap();
    let run = machine.world.isolith(&args);
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("isolith key generate"), "{run}");
    let none = Machine::new(one);
    let run = none.world.isolith(&[
        "attest",
        "recipe.toml:nothing",
        "--store",
        none.world.store().to_str().unwrap(),
    ]);
    assert_eq!(run.code, 2, "{run}");
}

/// A step that gives something else on every machine.
const RANDOM: &str = r#"
[[step]]
name = "same"
run = "echo same > /same"
[[step]]
name = "random"
run = "head -c 8 /dev/urandom | od -An -tx1 > /number; echo here > /constant"
"#;

#[test]
fn builders_who_disagree_are_shown_with_what_differs() {
    let (one, two) = pairs()[0];
    let shared = Shared::new();
    let (a, b, c) = (Machine::new(one), Machine::new(one), Machine::new(two));
    for machine in [&a, &b, &c] {
        machine.world.recipe(RANDOM);
    }
    a.shares(&shared.url(), &[]);
    b.shares(&shared.url(), &[]);
    let made: Vec<String> = [&a, &b]
        .map(|machine| machine.world.build().ok().step("random")["layer"].as_str().unwrap().to_string())
        .into();
    c.configure(&format!(
        "trusted-keys = [{:?}, {:?}]\nthreshold = 2\n[remotes.team]\nurl = {:?}\nwrite = false\n",
        a.key,
        b.key,
        shared.url()
    ));
    let store = c.world.store();
    let status = |flags: &[&str]| {
        let args =
            [&["trust", "status", "recipe.toml", "--store", store.to_str().unwrap()][..], flags].concat();
        c.world.isolith(&args)
    };
    let run = status(&[]);
    assert_eq!(run.code, 4, "{run}");
    assert!(run.stdout.contains("same: agreed") && run.stdout.contains("random: builders disagree"), "{run}");
    for part in [&made[0][..], &made[1], &a.key, &b.key, "not taken from team: too few agree"] {
        assert!(run.stdout.contains(part), "{part}: {run}");
    }
    // The paths that differ, and no others.
    assert!(run.stdout.contains("/number: content differs") && !run.stdout.contains("/constant"), "{run}");
    let json: Vec<serde_json::Value> =
        status(&["--json"]).stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(json.iter().map(|one| one["layers"].as_array().unwrap().len()).max(), Some(2), "{json:?}");

    // Such a step is not taken from anybody; the one they agree on is.
    let build = c.world.build().ok();
    assert_eq!(build.step("same")["outcome"], "remote-hit", "{}", build.run);
    assert_eq!(build.step("random")["outcome"], "executed", "{}", build.run);
    assert_eq!(warnings(&build).len(), 1, "{}", build.run);
    assert!(warnings(&build)[0].contains("builders disagree about random"), "{}", build.run);
}

#[test]
fn a_remote_is_looked_after() {
    let (one, _) = pairs()[0];
    let shared = Shared::new();
    let a = Machine::new(one);
    a.shares(&shared.url(), &[]);
    a.world.build().ok();
    let ok = |args: &[&str]| {
        let run = a.world.isolith(args);
        assert_eq!(run.code, 0, "{run}");
        run
    };
    let status = ok(&["remote", "status"]).stdout;
    assert!(status.contains("answers in") && status.contains("1 of 1 trusted keys"), "{status}");
    let json: serde_json::Value =
        serde_json::from_str(&ok(&["remote", "status", "--json", "team"]).stdout).unwrap();
    assert_eq!((&json["answers"], &json["trusted_keys"][0]), (&true.into(), &a.key.as_str().into()));
    let list = ok(&["remote", "ls", "team"]).stdout;
    let listed: Vec<&str> = list.lines().collect();
    let names: Vec<String> =
        shared.files("records").iter().map(|p| p.file_name().unwrap().to_string_lossy().into()).collect();
    assert_eq!(listed.len(), names.len());
    assert!(listed.iter().all(|line| names.iter().any(|name| name == line)));

    // Nothing to do; what is young stays; what nobody refers to goes; a record without its blob goes.
    let (records, blobs) = (shared.files("records").len(), shared.files("blobs").len());
    ok(&["remote", "gc", "team", "--older-than", "0"]);
    assert_eq!((shared.files("records").len(), shared.files("blobs").len()), (records, blobs));
    for key in &listed {
        ok(&["remote", "rm", "team", key]);
    }
    assert_eq!(a.world.isolith(&["remote", "rm", "team", listed[0]]).code, 2);
    assert_eq!(a.world.isolith(&["remote", "rm", "team", "../../etc/passwd"]).code, 2);
    let run = ok(&["remote", "gc", "team"]);
    assert!(run.stderr.contains("0 layers"), "{run}");
    assert_eq!(shared.files("blobs").len(), blobs, "a record may be on its way");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    ok(&["remote", "gc", "team", "--older-than", "0"]);
    assert!(shared.files("blobs").is_empty());
    a.forget();
    a.world.build().ok();
    fs::remove_file(&shared.files("blobs")[0]).unwrap();
    let run = ok(&["remote", "gc", "team", "--older-than", "0"]);
    assert!(!run.stderr.contains(" 0 records,"), "{run}");

    fs::remove_dir_all(shared.path()).unwrap();
    let run = a.world.isolith(&["remote", "status"]);
    assert_eq!(run.code, 125, "{run}");
    assert!(run.stdout.contains("does not answer"), "{run}");
}

#[test]
fn a_build_is_summed_up_in_markdown() {
    let (one, two) = pairs()[0];
    let shared = Shared::new();
    let (a, mut b) = (Machine::new(one), Machine::new(two));
    a.shares(&shared.url(), &[]);
    b.shares(&shared.url(), &[&a.key]);
    a.world.build().ok();
    b.world.build().ok();
    let summary = |machine: &Machine| {
        let store = machine.world.store();
        machine.world.isolith(&["ci", "summary", "recipe.toml", "--store", store.to_str().unwrap()])
    };
    let (made, known) = (summary(&a), summary(&b));
    assert_eq!((made.code, known.code), (0, 0), "{made}{known}");
    assert!(made.stdout.starts_with("### isolith: `test` built in "), "{made}");
    assert!(
        made.stdout.contains("| compile | executed |") && made.stdout.contains("2 executed, 0 hits"),
        "{made}"
    );
    assert!(known.stdout.contains("| compile | remote hit (team) |"), "{known}");
    assert!(
        known.stdout.contains("0 executed, 2 hits, ") && known.stdout.contains("| team | 3 | "),
        "{known}"
    );

    // A failure is one too. Without a remote nothing is kept, unless it is CI.
    let other = Machine::new(two);
    other.world.recipe("[[step]]\nname = \"bad\"\nrun = \"exit 3\"\n");
    other.build();
    assert_eq!(summary(&other).code, 2);
    b.world.recipe("[[step]]\nname = \"bad\"\nrun = \"exit 3\"\n");
    b.world.env.insert("CI".into(), "true".into());
    assert_eq!(b.world.build_recipe("recipe.toml", &["--no-remote"]).run.code, 1);
    let failed = summary(&b);
    assert!(
        failed.stdout.contains("failed at step `bad`") && failed.stdout.contains("**failed**"),
        "{failed}"
    );
}

#[test]
fn fail_on_miss_takes_what_remotes_have() {
    let (one, two) = pairs()[0];
    let shared = Shared::new();
    let (a, b) = (Machine::new(one), Machine::new(two));
    a.shares(&shared.url(), &[]);
    b.shares(&shared.url(), &[&a.key]);
    let miss = b.world.build_recipe("recipe.toml", &["--fail-on-miss"]);
    assert_eq!(miss.run.code, 4, "{}", miss.run);
    a.world.build().ok();
    b.world.build_recipe("recipe.toml", &["--fail-on-miss"]).ok();
}

#[test]
fn a_key_may_come_from_the_environment() {
    let (one, two) = pairs()[0];
    let shared = Shared::new();
    let (mut a, mut b) = (Machine::new(one), Machine::new(two));
    let file = a.world.path("home/.config/isolith/key");
    let secret = fs::read_to_string(&file).unwrap();
    fs::remove_file(&file).unwrap();
    a.world.env.insert("ISOLITH_KEY".into(), secret);
    assert_eq!(a.world.isolith(&["key", "show"]).stdout.trim(), a.key);
    let url = shared.url();
    a.world.build_recipe("recipe.toml", &["--remote", &url]).ok();
    b.world.env.insert("ISOLITH_TRUSTED_KEYS".into(), format!("{},{}", a.key, b.key));
    let known = b.world.build_recipe("recipe.toml", &["--remote", &url]).ok();
    assert_eq!(outcomes(&known, "remote-hit"), 2, "{}", known.run);
    a.world.env.insert("ISOLITH_KEY".into(), "ed25519-secret:short".into());
    let run = a.world.build_recipe("recipe.toml", &["--remote", &url]).run;
    assert_eq!(run.code, 2, "{run}");
    assert!(!run.stderr.contains("short"), "a secret is shown: {run}");
    // A key file that others can read is refused.
    use std::os::unix::fs::PermissionsExt;
    let file = b.world.path("home/.config/isolith/key");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let run = b.world.isolith(&["key", "show"]);
    assert!(run.code == 2 && run.stderr.contains("chmod 600"), "{run}");
    assert_eq!(b.world.isolith(&["key", "generate"]).code, 2, "a key was overwritten");
}

/// The shell example of docs/ci.md and the script of the GitHub action, as they are written there.
#[test]
fn the_examples_for_ci_work() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/ci.md")).unwrap();
    let example = page.split("## A plain shell").nth(1).unwrap().split("```").nth(1).unwrap();
    let example = example.strip_prefix("sh\n").unwrap().to_string();
    let action = fs::read_to_string(root.join("action.yml")).unwrap();
    let script: String = action
        .split("run: |\n")
        .nth(1)
        .unwrap()
        .lines()
        .map(|line| format!("{}\n", line.trim_start()))
        .collect();
    let (one, two) = pairs()[0];
    let shared = Shared::new();
    let (a, b) = (Machine::new(one), Machine::new(two));
    let run = |machine: &Machine, script: &str, env: &[(&str, &str)]| {
        let program = crate::common::program();
        let path = format!("{}:/usr/bin:/bin", program.parent().unwrap().display());
        let mut shell = Command::new("/bin/bash");
        shell
            .args(["-e", "-c", script])
            .env_clear()
            .env("PATH", path)
            .env("HOME", machine.world.path("home"));
        shell.env("ISOLITH_STORE", machine.world.store()).env("CI", "true").envs(env.iter().copied());
        shell.current_dir(machine.world.path("work"));
        use std::os::unix::process::CommandExt;
        if rustix::process::geteuid().is_root() {
            shell.uid(machine.world.mode.uid).gid(machine.world.mode.gid);
        }
        let out = shell.output().unwrap();
        assert!(out.status.success(), "{}", text(&out));
        out
    };
    let url = shared.url();
    run(&a, &example, &[("ISOLITH_REMOTE", &url)]);
    for name in ["out.tar", "summary.md", "provenance.json"] {
        assert!(a.world.path("work").join(name).exists(), "{name}");
    }
    let summary = fs::read_to_string(a.world.path("work/summary.md")).unwrap();
    assert!(summary.contains("2 executed"), "{summary}");

    // GitLab runs the lines of a job one after the other in one shell, with its variables set.
    let job = page.split("## GitLab").nth(1).unwrap().split("```").nth(1).unwrap();
    let lines: String =
        job.lines().filter_map(|line| line.strip_prefix("    - ")).map(|line| format!("{line}\n")).collect();
    assert_eq!(lines.lines().count(), 3, "{lines}");
    let store = job.lines().find_map(|line| line.trim().strip_prefix("ISOLITH_STORE: ")).unwrap();
    for name in ["out.tar", "summary.md"] {
        assert!(job.contains(name));
        let _ = fs::remove_file(a.world.path("work").join(name));
    }
    let project = a.world.path("work");
    let env = [("ISOLITH_REMOTE", url.as_str()), ("CI_PROJECT_DIR", project.to_str().unwrap())];
    run(&a, &format!("export ISOLITH_STORE={store}\n{lines}"), &env);
    let summary = fs::read_to_string(project.join("summary.md")).unwrap();
    assert!(summary.contains("0 executed") && summary.contains("2 hits"), "{summary}");
    assert!(project.join("out.tar").exists());
    run(&a, "isolith store clear --store .isolith", &[]);

    // A pull request: no key to sign with, and what the other job built counts.
    fs::remove_file(b.world.path("home/.config/isolith/key")).unwrap();
    let summary = b.world.write("step-summary", "");
    let env = [
        ("RECIPE", "recipe.toml"),
        ("REMOTE", url.as_str()),
        ("OUTPUT", "tar:out.tar"),
        ("FAIL_ON_MISS", "true"),
        ("ISOLITH", "isolith"),
        ("ISOLITH_KEY", ""),
        ("ISOLITH_TRUSTED_KEYS", a.key.as_str()),
        ("GITHUB_STEP_SUMMARY", summary.to_str().unwrap()),
    ];
    run(&b, &script, &env);
    let text = fs::read_to_string(summary).unwrap();
    assert!(text.contains("0 executed, 2 hits"), "{text}");
    assert_eq!(
        fs::read(a.world.path("work/out.tar")).unwrap(),
        fs::read(b.world.path("work/out.tar")).unwrap()
    );
}
