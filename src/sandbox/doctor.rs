//! Says of each thing that the sandbox needs whether this machine has it, and the exact command that
//! mends it when not.
//!
//! Nothing is guessed that can be tried: namespaces, the overlay and procfs are made for real in children
//! ([`trial`]). System settings are only read to name the cause of a refusal.

mod child;
mod ids;
mod trial;

use std::fs;
use std::path::{Path, PathBuf};

pub(super) use ids::{privileged, range_command};
pub use trial::{FileSystem, Trials};

use super::{Limits, cgroup, command};

/// One requirement and how this machine meets it.
#[derive(Debug, Clone)]
pub struct Check {
    /// Its name, the same on every machine.
    pub name: &'static str,
    /// Whether it is met.
    pub state: State,
    /// What was found.
    pub found: String,
    /// The exact commands that mend it, one a line.
    pub fix: Option<String>,
    /// What the sandbox needs it for.
    pub why: &'static str,
}

/// How well a requirement is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is met.
    Ok,
    /// Builds work, but something optional does not.
    Warn,
    /// No step can run.
    Fail,
}

/// Examines this machine, for a store at `store`. Best called while the process has one thread.
pub fn examine(store: &Path) -> Vec<Check> {
    Examiner::this_machine(store).examine()
}

/// What to tell a user whose sandbox could not be made: the fixes of every failed check.
pub fn hint(store: &Path) -> String {
    let failed: Vec<String> = examine(store)
        .into_iter()
        .filter(|check| check.state == State::Fail)
        .map(|check| format!("{}: {}\n{}", check.name, check.found, check.fix.unwrap_or_default()))
        .collect();
    if failed.is_empty() { "run `isolith doctor`".to_owned() } else { failed.join("\n") }
}

/// The machine as the checks see it. Tests put other values in.
#[derive(Debug, Clone)]
pub struct Examiner {
    /// Where `/proc`, `/sys`, `/etc` and `/usr` are found; `/` but in tests.
    pub root: PathBuf,
    /// Effective user id of the caller.
    pub uid: u32,
    /// The program, for the AppArmor profile.
    pub program: PathBuf,
    /// What the kernel said when it was tried.
    pub trials: Trials,
}

/// `lowerdir+` came in 6.8. Older needs: 6.6 (user xattrs on tmpfs), 5.12 (mount_setattr), 5.11 (overlay
/// in user namespaces, userxattr), 5.9 (close_range), 5.6 (time namespaces), 5.3 (clone3, pidfd_open).
const OLDEST_KERNEL: (u32, u32) = (6, 8);

/// A sandbox takes one user namespace, its holder another; this many allow 100 steps at once.
const FEW_NAMESPACES: u64 = 128;

impl Examiner {
    /// This machine, with a store at `store`.
    pub fn this_machine(store: &Path) -> Examiner {
        Examiner {
            root: PathBuf::from("/"),
            uid: rustix::process::geteuid().as_raw(),
            program: fs::read_link("/proc/self/exe").unwrap_or_else(|_| "isolith".into()),
            trials: Trials::run(store),
        }
    }

    /// Every check, in an order in which each needs only those before it.
    pub fn examine(&self) -> Vec<Check> {
        let mut checks = vec![self.kernel(), self.namespaces(), self.time_namespaces()];
        checks.push(ids::check(self));
        checks.extend([self.procfs(), self.seccomp(), self.file_system(), self.overlay()]);
        checks.extend([self.rlimits(), self.cgroups(), fuse()]);
        checks
    }

    fn kernel(&self) -> Check {
        let release = self.read("proc/sys/kernel/osrelease").unwrap_or_default();
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
        let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        let (major, minor) = OLDEST_KERNEL;
        let check =
            Check::of("kernel", "stacks of many layers are mounted with `lowerdir+`, new in Linux 6.8");
        if version >= OLDEST_KERNEL {
            return check.ok(format!("Linux {release}"));
        }
        check.fail(
            format!("Linux {release}; {major}.{minor} is the oldest that works"),
            "install a newer kernel, on Debian: \
             sudo apt install -t $(. /etc/os-release; echo $VERSION_CODENAME)-backports linux-image-amd64",
        )
    }

    fn namespaces(&self) -> Check {
        let check = Check::of("user namespaces", "every step runs in a user namespace of its own");
        let refusal = match &self.trials.namespaces {
            Err(refusal) => refusal,
            Ok(()) => {
                let most = self.number("proc/sys/user/max_user_namespaces").unwrap_or(u64::MAX);
                return if most < FEW_NAMESPACES {
                    check.warn(
                        format!("only {most} at once (user.max_user_namespaces)"),
                        sysctl("user.max_user_namespaces", 15000),
                    )
                } else {
                    check.ok("work, with mount, pid, net, ipc, uts and cgroup namespaces in them")
                };
            }
        };
        if self.number("proc/sys/user/max_user_namespaces") == Some(0) {
            let found = format!("{refusal}: user.max_user_namespaces is 0");
            return check.fail(found, sysctl("user.max_user_namespaces", 15000));
        }
        if self.uid != 0 && self.number("proc/sys/kernel/unprivileged_userns_clone") == Some(0) {
            let found = format!("{refusal}: kernel.unprivileged_userns_clone is 0");
            return check.fail(found, sysctl("kernel.unprivileged_userns_clone", 1));
        }
        if self.uid != 0 && self.number("proc/sys/kernel/apparmor_restrict_unprivileged_userns") == Some(1) {
            let found = format!(
                "{refusal}: AppArmor keeps users from them (kernel.apparmor_restrict_unprivileged_userns)"
            );
            return check.fail(found, apparmor_profile(&self.program));
        }
        if refusal.errno() == libc::ENOSYS || refusal.errno() == libc::EINVAL {
            return check
                .fail(format!("{refusal}: the kernel has none"), "use a kernel with CONFIG_USER_NS=y");
        }
        check.fail(
            format!("{refusal}: most likely the seccomp filter of a container around this"),
            "start the container with --security-opt seccomp=unconfined --security-opt apparmor=unconfined \
             --security-opt systempaths=unconfined (Docker), or --privileged",
        )
    }

    fn time_namespaces(&self) -> Check {
        let check = Check::of("time namespaces", "a step's boot clock is its own");
        match &self.trials.time {
            Ok(()) => check.ok("work"),
            Err(_) if self.trials.namespaces.is_err() => check.blocked(),
            Err(refusal) => check.fail(refusal.to_string(), "use a kernel with CONFIG_TIME_NS=y"),
        }
    }

    fn procfs(&self) -> Check {
        let check = Check::of("procfs", "a step sees only its own processes, in a fresh /proc");
        let refusal = match &self.trials.procfs {
            Ok(()) => return check.ok("can be mounted afresh"),
            Err(_) if self.trials.namespaces.is_err() => return check.blocked(),
            Err(refusal) => refusal,
        };
        let mounts = self.read("proc/self/mountinfo").unwrap_or_default();
        let masked: Vec<&str> = mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(4))
            .filter(|place| place.starts_with("/proc/"))
            .collect();
        if masked.is_empty() {
            return check.fail(refusal.to_string(), "mount a whole /proc: sudo mount -t proc proc /proc");
        }
        let list = masked.join(", ");
        check.fail(
            format!("{refusal}: a container around this covers {list}, so the kernel gives no other /proc"),
            "start the container with --security-opt systempaths=unconfined (Docker), \
             --security-opt unmask=ALL (Podman) or procMount: Unmasked (Kubernetes)",
        )
    }

    fn seccomp(&self) -> Check {
        let check =
            Check::of("seccomp", "system calls that reach beyond the sandbox are refused by a filter");
        let actions = self.read("proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
        if actions.split_whitespace().any(|action| action == "errno") {
            return check.ok(format!("available ({actions})"));
        }
        check.fail("the kernel has no seccomp filters", "use a kernel with CONFIG_SECCOMP_FILTER=y")
    }

    fn file_system(&self) -> Check {
        let check = Check::of("store", "layers are directories that overlayfs can use as they are");
        let elsewhere =
            "keep the store on ext4, xfs, btrfs or tmpfs: --store DIR, or `store = \"DIR\"` in isolith.toml";
        match &self.trials.store {
            Err(why) => check.fail(why, elsewhere),
            Ok(FileSystem { at, kind, no_xattrs, kinds_listed }) => {
                let at = at.display();
                if let "overlay" | "nfs" | "cifs" | "9p" = *kind {
                    check.fail(
                        format!("`{at}` is on {kind}, which cannot be an overlay's upper layer"),
                        elsewhere,
                    )
                } else if let Some(why) = no_xattrs {
                    check.fail(
                        format!("`{at}` ({kind}) refuses `user.` extended attributes: {why}"),
                        elsewhere,
                    )
                } else if !kinds_listed {
                    check.fail(
                        format!("`{at}` ({kind}) does not tell file types in listings (d_type)"),
                        elsewhere,
                    )
                } else {
                    check.ok(format!(
                        "`{at}` is on {kind}, with extended attributes and file types in listings"
                    ))
                }
            }
        }
    }

    fn overlay(&self) -> Check {
        let check = Check::of("overlayfs", "a step's root is the layers below it with a fresh one on top");
        match &self.trials.overlay {
            Ok(()) => check.ok("mounts in a user namespace, on the store's file system"),
            Err(_) if self.trials.namespaces.is_err() => check.blocked(),
            Err(refusal) if refusal.errno() == libc::ENODEV => {
                check.fail(format!("{refusal}: the module is not loaded"), "sudo modprobe overlay")
            }
            Err(refusal) => check.fail(
                refusal.to_string(),
                "use Linux 6.8 or newer, and keep the store on ext4, xfs, btrfs or tmpfs: --store DIR",
            ),
        }
    }

    fn rlimits(&self) -> Check {
        let check = Check::of("rlimits", "every step gets the same resource limits, whatever the caller has");
        let text = self.read("proc/self/limits").unwrap_or_default();
        // In the order of their numbers, below a heading.
        let hard: Vec<u64> = text.lines().skip(1).filter_map(hard_limit).collect();
        // CAP_SYS_RESOURCE may raise its own.
        let may_raise = self.read("proc/self/status").and_then(|text| {
            let caps = text.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
            u64::from_str_radix(caps.trim(), 16).ok()
        });
        let low = command::LIMITS.iter().find_map(|(_, resource, _, needed)| {
            let own = *hard.get(*resource as usize)?;
            (own < *needed).then(|| (command::name(*resource), own, *needed))
        });
        match low {
            Some((name, own, needed)) if may_raise.is_none_or(|caps| caps & 1 << 24 == 0) => {
                let needed = if needed == u64::MAX { "unlimited".to_owned() } else { needed.to_string() };
                check.fail(
                    format!("the hard limit for {name} is {own}; a step needs {needed}"),
                    format!(
                        "sudo prlimit --pid $$ --{name}={needed}\n# for good, in /etc/security/limits.conf: * hard {name} {needed}"
                    ),
                )
            }
            _ => check.ok("high enough"),
        }
    }

    fn cgroups(&self) -> Check {
        let check =
            Check::of("cgroups", "limits on memory, cpus and pids; steps without them run all the same");
        let all = Limits { memory: Some(1 << 30), cpus: Some(1.0), pids: Some(100), ..Limits::default() };
        match cgroup::plan_below(&self.root, &all) {
            cgroup::Plan::Impossible { why, fix } => {
                check.warn(format!("limits cannot be enforced: {why}"), fix)
            }
            cgroup::Plan::V1 { .. } => check.ok("version 1, as root"),
            cgroup::Plan::V2 { parent, .. } => check.ok(format!("version 2, below `{}`", parent.display())),
            cgroup::Plan::NotNeeded => check.ok("not needed"),
        }
    }

    /// A file below the root, without the newline at its end.
    fn read(&self, path: &str) -> Option<String> {
        Some(fs::read_to_string(self.root.join(path)).ok()?.trim_end().to_owned())
    }

    fn number(&self, path: &str) -> Option<u64> {
        self.read(path)?.parse().ok()
    }
}

fn fuse() -> Check {
    Check::of("/dev/fuse", "nothing: layers are mounted by the kernel's own overlayfs").ok("not needed")
}

/// The hard limit in a line of `/proc/self/limits`: name, soft, hard and perhaps a unit, in columns.
fn hard_limit(line: &str) -> Option<u64> {
    let hard = line.get(47..)?.split_whitespace().next()?;
    if hard == "unlimited" { Some(u64::MAX) } else { hard.parse().ok() }
}

/// Sets a kernel setting now and after every boot.
fn sysctl(name: &str, value: u64) -> String {
    format!(
        "echo '{name} = {value}' | sudo tee /etc/sysctl.d/60-isolith.conf && sudo sysctl -w {name}={value}"
    )
}

/// Lets this program alone make user namespaces (Ubuntu 24.04 and later).
fn apparmor_profile(program: &Path) -> String {
    format!(
        "sudo tee /etc/apparmor.d/isolith <<'END' && sudo apparmor_parser -r /etc/apparmor.d/isolith\n\
         abi <abi/4.0>,\n\
         include <tunables/global>\n\
         profile isolith \"{}\" flags=(unconfined) {{\n  userns,\n}}\nEND\n\
         # or, for every program: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        program.display()
    )
}

impl Check {
    fn of(name: &'static str, why: &'static str) -> Check {
        Check { name, state: State::Ok, found: String::new(), fix: None, why }
    }

    fn ok(self, found: impl Into<String>) -> Check {
        Check { found: found.into(), ..self }
    }

    fn warn(self, found: impl Into<String>, fix: impl Into<String>) -> Check {
        Check { state: State::Warn, found: found.into(), fix: Some(fix.into()), ..self }
    }

    fn fail(self, found: impl Into<String>, fix: impl Into<String>) -> Check {
        Check { state: State::Fail, found: found.into(), fix: Some(fix.into()), ..self }
    }

    fn blocked(self) -> Check {
        self.fail("cannot be tried without user namespaces", "mend user namespaces first (above)")
    }
}

#[cfg(test)]
mod tests;
