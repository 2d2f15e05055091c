//! The variations by name, and which of them apply on this machine.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::sandbox::{Conditions, IdPlan, ids};
use crate::sys::privilege;

/// Something that a round changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)] // `describe` says it
pub enum Variation {
    Cpus,
    Aslr,
    Clock,
    DirOrder,
    Inodes,
    StorePath,
    FileSystem,
    HostName,
    Personality,
    Umask,
    Rlimits,
    Environment,
    User,
    Ids,
    OneId,
    Jobs,
    Load,
}

use Variation::*;

impl Variation {
    /// All, in the order of the documentation.
    pub const ALL: [Variation; 17] = [
        Cpus,
        Aslr,
        Clock,
        DirOrder,
        Inodes,
        StorePath,
        FileSystem,
        HostName,
        Personality,
        Umask,
        Rlimits,
        Environment,
        User,
        Ids,
        OneId,
        Jobs,
        Load,
    ];

    /// Its name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Cpus => "cpus",
            Aslr => "aslr",
            Clock => "clock",
            DirOrder => "dir-order",
            Inodes => "inodes",
            StorePath => "store-path",
            FileSystem => "file-system",
            HostName => "host-name",
            Personality => "personality",
            Umask => "umask",
            Rlimits => "rlimits",
            Environment => "environment",
            User => "user",
            Ids => "ids",
            OneId => "one-id",
            Jobs => "jobs",
            Load => "load",
        }
    }

    /// What it changes, in a line.
    pub fn describe(self) -> &'static str {
        match self {
            Cpus => "the step may use one cpu only",
            Aslr => "addresses are randomised",
            Clock => {
                "libc's wall clock is 400 days ahead (not for static programs and raw system calls; LD_PRELOAD is set)"
            }
            DirOrder => "directories are listed in reverse, in the next round shuffled",
            Inodes => "files get other inode numbers",
            StorePath => "the store is at another, longer path",
            FileSystem => "the store is on another file system: in memory or on disk",
            HostName => "the machine has another host and domain name",
            Personality => "isolith runs under another execution domain",
            Umask => "the caller's umask is 077, in the next round 000",
            Rlimits => "the caller has other resource limits",
            Environment => {
                "the caller has another environment: locale, time zone, home, PATH, compiler flags"
            }
            User => "another user calls",
            Ids => "other ids of the machine stand behind those of the sandbox",
            OneId => "the caller has one id only, and owners are recorded; every other round",
            Jobs => "one step at a time, in the next round many",
            Load => "every cpu is kept busy by something else",
        }
    }

    /// Why it cannot be had on this machine; none when it can.
    pub fn why_not(self, machine: &Machine) -> Option<String> {
        let root_only = || (!machine.root).then(|| "only root can change it".to_string());
        match self {
            Cpus => (machine.cpus < 2).then(|| "this machine has one cpu".to_string()),
            Clock => (!Conditions::can_shift_clock())
                .then(|| "this isolith was built without the library for it".to_string()),
            FileSystem => machine.other_place.as_ref().err().cloned(),
            HostName => root_only(),
            User => machine.other_user.as_ref().err().cloned(),
            Ids => machine.other_ids.as_ref().err().cloned(),
            OneId => machine.one_id.as_ref().err().cloned(),
            _ => None,
        }
    }
}

impl FromStr for Variation {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Variation::ALL.into_iter().find(|variation| variation.name() == text).ok_or_else(|| {
            let names: Vec<_> = Variation::ALL.iter().map(|variation| variation.name()).collect();
            format!("there is no variation `{text}`; there are {}", names.join(", "))
        })
    }
}

impl Serialize for Variation {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.name())
    }
}

/// What of this machine decides which variations apply.
#[derive(Debug)]
pub struct Machine {
    /// Cpus that this process may use.
    pub cpus: usize,
    /// The caller is root.
    pub root: bool,
    /// A directory on a file system of another kind than the store's.
    pub other_place: Result<PathBuf, String>,
    /// A public directory on a file system of the store's kind, if there is one.
    pub like_place: Option<PathBuf>,
    /// A user with a range of ids: number and group.
    pub other_user: Result<(u32, u32), String>,
    /// Another offset for root's ids.
    pub other_ids: Result<u32, String>,
    /// Who does with one id: the caller (none), or a user that root becomes for it.
    pub one_id: Result<Option<(u32, u32)>, String>,
}

/// Public places where a store can be for a while.
pub const PLACES: [&str; 3] = ["/dev/shm", "/var/tmp", "/tmp"];
/// A place with less room is not used.
const LEAST_ROOM: u64 = 256 << 20;

impl Machine {
    /// Looks at this machine, with the store at `store`.
    pub fn look(store: &Path) -> Machine {
        let root = privilege::effective_ids().0 == 0;
        let kind = |path: &Path| rustix::fs::statfs(path).ok().map(|stat| stat.f_type);
        let own = store.ancestors().find_map(kind);
        let (mut other, mut like) = (Err("this machine has no other file system for it".to_string()), None);
        for place in PLACES.map(Path::new) {
            let Some(found) = rustix::fs::statfs(place).ok().filter(|stat| carries_layers(stat.f_type))
            else {
                continue;
            };
            if Some(found.f_type) == own {
                like.get_or_insert_with(|| place.to_owned());
            } else if room(place) < LEAST_ROOM {
                other = other.or(Err(format!("`{}` has less than 256 MiB of room", place.display())));
            } else {
                other = other.or(Ok(place.to_owned()));
            }
        }
        let only_root = || "only root can change it".to_string();
        Machine {
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            root,
            other_place: other,
            like_place: like,
            other_user: if root { other_user() } else { Err(only_root()) },
            other_ids: if root { other_ids() } else { Err(only_root()) },
            one_id: one_id(root),
        }
    }
}

/// Bytes that an ordinary user may still write there.
pub fn room(place: &Path) -> u64 {
    rustix::fs::statfs(place).map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_bsize as u64))
}

/// Layers cannot lie on overlayfs and on network file systems (magic numbers of statfs(2)).
fn carries_layers(kind: rustix::fs::FsWord) -> bool {
    !matches!(kind as u64, 0x794c_7630 | 0x6969 | 0x0102_1997 | 0x6573_5546 | 0xff53_4d42)
}

fn other_user() -> Result<(u32, u32), String> {
    let read = |file| std::fs::read_to_string(file).unwrap_or_default();
    let (uids, gids) = (read("/etc/subuid"), read("/etc/subgid"));
    let users = uids.lines().filter_map(|line| line.split(':').next());
    let mut known = users.filter_map(|name| nix::unistd::User::from_name(name).ok().flatten());
    let fits = |user: &nix::unistd::User| {
        let range = |file| ids::subordinate(file, user.uid.as_raw(), Some(&user.name)).is_some();
        user.uid.as_raw() != 0 && range(&uids) && range(&gids)
    };
    match known.find(fits) {
        Some(user) => Ok((user.uid.as_raw(), user.gid.as_raw())),
        None => Err("no other user has a range of ids in /etc/subuid and /etc/subgid".to_string()),
    }
}

/// For root any other user will do.
fn one_id(root: bool) -> Result<Option<(u32, u32)>, String> {
    if !root {
        return match ids::plan() {
            Ok(IdPlan::Single { .. }) => Err("the caller has one id only".to_string()),
            _ => Ok(None),
        };
    }
    let user = other_user().ok().or_else(|| {
        let nobody = nix::unistd::User::from_name("nobody").ok().flatten()?;
        Some((nobody.uid.as_raw(), nobody.gid.as_raw()))
    });
    user.map(Some).ok_or_else(|| "this machine has no other user".to_string())
}

/// The block of ids below systemd's last one for containers, or the one below that.
fn other_ids() -> Result<u32, String> {
    const BLOCKS: [u32; 2] = [0x6FFE_0000, 0x6FFD_0000];
    let own = match ids::plan() {
        Ok(IdPlan::Direct(shift)) => shift.offset,
        Ok(_) => return Err("the caller has one range of ids".to_string()),
        Err(e) => return Err(e.to_string()),
    };
    let maps = ["/proc/self/uid_map", "/proc/self/gid_map"]
        .map(|file| ids::intervals(&std::fs::read_to_string(file).unwrap_or_default()));
    let mapped = |at: u32| {
        let covers = |(start, len): &(u32, u32)| {
            *start <= at && u64::from(at) + 65536 <= u64::from(*start) + u64::from(*len)
        };
        maps.iter().all(|map| map.iter().any(covers))
    };
    let found = BLOCKS.into_iter().find(|at| at.abs_diff(own) >= 65536 && mapped(*at));
    found.ok_or_else(|| "this user namespace has no second range of ids".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_come_back() {
        for variation in Variation::ALL {
            assert_eq!(variation.name().parse(), Ok(variation));
        }
        assert!("cpu".parse::<Variation>().unwrap_err().contains("cpus, aslr"));
    }

    #[test]
    fn the_documentation_has_every_variation() {
        let page = std::fs::read_to_string("docs/reproducibility.md").unwrap();
        let table = page.split("### Variations").nth(1).unwrap().split("###").next().unwrap();
        let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
        let found: Vec<&str> = rows.filter(|name| name.parse::<Variation>().is_ok()).collect();
        assert_eq!(found, Variation::ALL.map(Variation::name));
    }

    #[test]
    fn what_does_not_apply_says_why() {
        let machine = Machine {
            cpus: 1,
            root: false,
            other_place: Err("none".into()),
            like_place: None,
            other_user: Err("nobody".into()),
            other_ids: Err("no ids".into()),
            one_id: Err("no".into()),
        };
        let not: Vec<_> = Variation::ALL.into_iter().filter(|v| v.why_not(&machine).is_some()).collect();
        for variation in [Cpus, FileSystem, HostName, User, Ids, OneId] {
            assert!(not.contains(&variation), "{variation:?}");
        }
        assert!(!not.contains(&DirOrder) && !not.contains(&Umask));
    }
}
