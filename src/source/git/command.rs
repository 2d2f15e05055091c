//! The git program, kept from reading what could change what it does: other repositories' settings in the
//! environment, replaced objects, hooks, transports that run programs.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::error::{Class, Error, Result};
use crate::source::fetch::{Access, Progress, Watch};

/// Variables that point git at another repository or at other objects.
const STRANGERS: [&str; 12] = [
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
    "GIT_CEILING_DIRECTORIES",
    "GIT_SHALLOW_FILE",
    "GIT_GRAFT_FILE",
    "GIT_EXTERNAL_DIFF",
    "GIT_TRACE",
];

/// How often a running git is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// A way to run git.
#[derive(Clone)]
pub(super) struct Git<'a> {
    access: &'a Access,
    watch: &'a dyn Watch,
    repository: Option<PathBuf>,
}

impl<'a> Git<'a> {
    pub fn new(access: &'a Access, watch: &'a dyn Watch) -> Self {
        Self { access, watch, repository: None }
    }

    /// In a bare repository.
    pub fn at(&self, repository: &Path) -> Self {
        Self { repository: Some(repository.to_path_buf()), ..self.clone() }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("git");
        for name in STRANGERS {
            command.env_remove(name);
        }
        command
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .env("GIT_ALLOW_PROTOCOL", "file:git:http:https:ssh")
            .env("GIT_SSH_COMMAND", "ssh -oBatchMode=yes")
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .args([
                "-c",
                "core.hooksPath=/dev/null",
                "-c",
                "core.fsmonitor=false",
                "-c",
                "gc.auto=0",
                "-c",
                "fetch.unpackLimit=1",
            ])
            .args(["-c", "http.lowSpeedLimit=64", "-c"])
            .arg(format!("http.lowSpeedTime={}", self.access.stall.as_secs().max(1)));
        if let Some(repository) = &self.repository {
            command.arg("--git-dir").arg(repository);
        }
        command.args(args);
        command
    }

    /// Runs to the end and gives what it printed.
    pub fn text(&self, args: &[&str]) -> Result<String> {
        self.run(args, &[], None)
    }

    /// The same, with something to read.
    pub fn text_of(&self, args: &[&str], input: &[u8]) -> Result<String> {
        self.run(args, input, None)
    }

    /// Runs a fetch from `url`, telling of what comes.
    pub fn fetch(&self, args: &[&str], url: &str) -> Result<()> {
        self.run(args, &[], Some(url)).map(drop)
    }

    /// Whether the repository has a commit.
    pub fn has(&self, commit: &str) -> bool {
        self.text(&["cat-file", "-e", &format!("{commit}^{{tree}}")]).is_ok()
    }

    /// Whether the repository has only the ends of its histories.
    pub fn is_shallow(&self) -> bool {
        self.repository.as_ref().is_some_and(|dir| dir.join("shallow").exists())
    }

    /// A git that answers with objects. Whoever gets it sees to its end.
    pub fn batch(&self) -> Result<Child> {
        let mut command = self.command(&["cat-file", "--batch"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        command.spawn().map_err(missing)
    }

    fn run(&self, args: &[&str], input: &[u8], fetch: Option<&str>) -> Result<String> {
        let temp =
            || tempfile::tempfile().map_err(|e| Error::machine("cannot make a temporary file").because(e));
        let read = |mut file: std::fs::File| -> String {
            let mut text = Vec::new();
            let _ = file.seek(SeekFrom::Start(0)).and_then(|_| file.take(1 << 20).read_to_end(&mut text));
            String::from_utf8_lossy(&text).into_owned()
        };
        let again = |file: &std::fs::File| {
            file.try_clone().map_err(|e| Error::machine("cannot make a temporary file").because(e))
        };
        let (out, err) = (temp()?, temp()?);
        let mut command = self.command(args);
        command.stdout(again(&out)?).stderr(again(&err)?);
        if !input.is_empty() {
            let mut given = temp()?;
            let written = std::io::Write::write_all(&mut given, input);
            written
                .and_then(|()| given.seek(SeekFrom::Start(0)))
                .map_err(|e| Error::machine("cannot make a temporary file").because(e))?;
            command.stdin(given);
        }
        let mut child = command.spawn().map_err(missing)?;
        let status = self.wait(&mut child, fetch)?;
        if status.success() {
            return Ok(read(out));
        }
        let said = read(err);
        let last: Vec<&str> = said.trim().lines().rev().take(4).collect();
        let said = last.into_iter().rev().collect::<Vec<_>>().join("; ");
        let doing = args.first().copied().unwrap_or_default();
        Err(Error::machine(format!("`git {doing}` failed"))
            .because(if said.is_empty() { status.to_string() } else { said })
            .hint("check the URL, the network, and that you may read the repository without a password being asked"))
    }

    fn wait(&self, child: &mut Child, fetch: Option<&str>) -> Result<std::process::ExitStatus> {
        let began = Instant::now();
        let mut told: Option<Instant> = None;
        let stop = |child: &mut Child, error: Error| {
            let _ = child.kill();
            let _ = child.wait();
            Err(error)
        };
        loop {
            match child.try_wait() {
                Ok(Some(status)) => {
                    if let (Some(url), true) = (fetch, status.success()) {
                        self.tell(url, began, true);
                    }
                    return Ok(status);
                }
                Ok(None) => {}
                Err(e) => return stop(child, Error::machine("cannot wait for git").because(e)),
            }
            if self.watch.cancelled() {
                return stop(child, Error::new(Class::Interrupted, "interrupted"));
            }
            if let Some(url) = fetch
                && told.is_none_or(|told| told.elapsed() >= 10 * LOOK)
            {
                told = Some(Instant::now());
                if self.tell(url, began, false) > self.access.max_size {
                    let what = format!("`{url}` has more than {} bytes", self.access.max_size);
                    return stop(
                        child,
                        Error::machine(what).hint("if that is meant, raise `fetch-max-size`"),
                    );
                }
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Says how much has come, and returns it.
    fn tell(&self, url: &str, began: Instant, done: bool) -> u64 {
        let packs = self.repository.as_ref().map(|dir| dir.join("objects/pack"));
        let files = packs.and_then(|dir| std::fs::read_dir(dir).ok());
        let bytes =
            files.into_iter().flatten().flatten().filter_map(|file| Some(file.metadata().ok()?.len())).sum();
        let millis = began.elapsed().as_millis().max(1) as u64;
        let rate = u64::saturating_mul(bytes, 1000) / millis;
        self.watch.progress(Progress { url: url.to_string(), bytes, total: None, rate, done });
        bytes
    }
}

fn missing(why: std::io::Error) -> Error {
    let error = Error::machine("cannot run `git`, which git sources need").because(why);
    error.hint("install it (on Debian: apt install git), or use the `url` of an archive instead")
}
