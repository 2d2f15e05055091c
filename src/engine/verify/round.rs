//! One round: another isolith process builds the recipe in a store of its own.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::area::Area;
use super::arrange::Arrangement;
use super::blobs::Blobs;
use crate::digest::LayerId;
use crate::error::{Class, Error, Result};
use crate::sys::{fd, process};

/// The program itself, even when it lies where another user may not look, or has been replaced.
pub const PROGRAM: &str = "/proc/self/exe";
/// Something else than a build keeps the cpus busy for so long at most.
const LONGEST_LOAD: Duration = Duration::from_secs(1800);
/// Lines of a failed step's log that are kept.
const TAIL: usize = 30;

/// What a round came to.
pub struct Outcome {
    /// The layer of each step that succeeded, in plan order.
    pub steps: Vec<(String, LayerId)>,
    /// The step that failed, with the end of its log.
    pub failure: Option<(String, Vec<String>)>,
    /// Wall time in milliseconds.
    pub wall_ms: u64,
}

impl Outcome {
    /// The layer of a step.
    pub fn layer(&self, step: &str) -> Option<LayerId> {
        self.steps.iter().find(|(name, _)| name == step).map(|(_, layer)| *layer)
    }
}

/// What is built in every round.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// The recipe file.
    pub recipe: &'a Path,
    /// The step to stop at.
    pub until: Option<&'a str>,
    /// More arguments: values and secrets.
    pub pass: &'a [OsString],
    /// What does not have to be fetched again.
    pub blobs: &'a Blobs,
    /// Set to stop.
    pub cancel: &'a AtomicBool,
}

impl Job<'_> {
    /// Builds one round.
    ///
    /// # Errors
    /// All that stops a build but a failing step.
    pub fn run(&self, arrangement: &Arrangement, area: &Area) -> Result<Outcome> {
        let began = Instant::now();
        let load = arrangement.load.then(Load::start);
        let errors = area.dir().join("errors");
        let file = File::create(&errors).map_err(|e| Error::io("create", &errors, e))?;
        let mut command = Command::new(PROGRAM);
        command.arg0("isolith").arg("build").arg(self.recipe).arg("--store").arg(area.store());
        command.args([
            "--no-cache",
            "--no-remote",
            "--locked",
            "--progress",
            "json",
            "--jobs",
            &arrangement.jobs.to_string(),
        ]);
        command.args(self.pass);
        if let Some(step) = self.until {
            command.args(["--until", step]);
        }
        // Last: a child that changes its user replaces it.
        command.args(["--conditions", &arrangement.setting.text()]);
        command.envs(arrangement.env.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file);
        let mut child = command
            .spawn()
            .map_err(|e| Error::machine("cannot start isolith again for a round").because(e))?;
        let mut reading = Reading::default();
        let read = match child.stdout.take() {
            Some(out) => reading.read(out, child.id(), self.cancel),
            None => Ok(()),
        };
        let status = child.wait().map_err(|e| Error::machine("cannot wait for a round").because(e))?;
        drop(load);
        read?;
        if self.cancel.load(Ordering::Relaxed) {
            return Err(Error::new(Class::Interrupted, "interrupted"));
        }
        let wall_ms = began.elapsed().as_millis() as u64;
        match (status.code(), reading.failed) {
            (Some(0), _) => Ok(Outcome { steps: reading.steps, failure: None, wall_ms }),
            (Some(1), Some(step)) => {
                Ok(Outcome { steps: reading.steps, failure: Some((step, reading.tail)), wall_ms })
            }
            _ => {
                let text = std::fs::read_to_string(&errors).unwrap_or_default();
                let class = [Class::Usage, Class::Recipe, Class::Difference, Class::Interrupted]
                    .into_iter()
                    .find(|class| status.code() == Some(class.exit_code().into()));
                let text = text.trim().trim_start_matches("error: ").to_string();
                Err(Error::new(
                    class.unwrap_or(Class::Machine),
                    format!("a round could not be built ({status})"),
                )
                .because(text))
            }
        }
    }
}

/// Plans the recipe as another user, which reads everything that a build would; why that fails, if it does.
pub fn explain_as((uid, gid): (u32, u32), recipe: &Path, pass: &[OsString], store: &Path) -> Option<String> {
    let mut command = Command::new(PROGRAM);
    command.arg0("isolith").arg("explain").arg(recipe).arg("--store").arg(store).args(pass);
    command.env("HOME", "/nonexistent").env_remove("XDG_CONFIG_HOME").env_remove("XDG_CACHE_HOME");
    match command.uid(uid).gid(gid).stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr);
            let first = text.lines().next().unwrap_or_default();
            Some(first.trim_start_matches("error: ").to_string())
        }
        Err(e) => Some(e.to_string()),
    }
}

/// What the child's events have told so far.
#[derive(Default)]
struct Reading {
    steps: Vec<(String, LayerId)>,
    failed: Option<String>,
    tail: Vec<String>,
}

impl Reading {
    fn read(&mut self, mut out: std::process::ChildStdout, pid: u32, cancel: &AtomicBool) -> Result<()> {
        let mut text = Vec::new();
        let mut buf = [0; 16 * 1024];
        let mut told = false;
        loop {
            let [ready] = fd::wait_readable([out.as_fd()], Some(Duration::from_millis(50)))?;
            if cancel.load(Ordering::Relaxed) && !told {
                told = true;
                if let Some(pid) = rustix::process::Pid::from_raw(pid as i32) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
                }
            }
            if !ready {
                continue;
            }
            let n = std::io::Read::read(&mut out, &mut buf)
                .map_err(|e| Error::machine("cannot read what a round tells").because(e))?;
            if n == 0 {
                return Ok(());
            }
            text.extend_from_slice(&buf[..n]);
            while let Some(end) = text.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = text.drain(..=end).collect();
                if let Ok(event) = serde_json::from_slice::<Value>(&line) {
                    self.event(&event);
                }
            }
        }
    }

    fn event(&mut self, event: &Value) {
        let word = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_string();
        match event["event"].as_str() {
            Some("log") => {
                self.tail.push(format!("[{}] {}", word(event, "step"), word(event, "line")));
                if self.tail.len() > TAIL {
                    self.tail.remove(0);
                }
            }
            Some("step") if event["outcome"] == "failed" => self.failed = Some(word(event, "name")),
            Some("finished") => {
                let steps = event["steps"].as_array().map(Vec::as_slice).unwrap_or_default();
                let done = steps
                    .iter()
                    .filter_map(|step| Some((word(step, "name"), word(step, "layer").parse().ok()?)));
                self.steps = done.collect();
                let failed = steps.iter().find(|step| step["outcome"] == "failed");
                self.failed = failed.map(|step| word(step, "name"));
            }
            _ => {}
        }
    }
}

/// Threads that do nothing useful, one a cpu.
struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Load {
    fn start() -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let end = Instant::now() + LONGEST_LOAD;
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let spin = |stop: Arc<AtomicBool>| {
            move || {
                while !stop.load(Ordering::Relaxed) && Instant::now() < end {
                    (0..1000).for_each(|_| std::hint::spin_loop());
                }
            }
        };
        let threads = (0..cpus).map(|_| std::thread::spawn(spin(stop.clone()))).collect();
        Load { stop, threads }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        // A joined thread is still counted for a moment, and ids can only be entered when there is one.
        for _ in 0..100 {
            if process::is_single_threaded() {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
