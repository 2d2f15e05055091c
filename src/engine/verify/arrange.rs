//! From the variations of a round to everything that has to be done for it.

use std::path::PathBuf;

use super::setting::{Outside, Setting};
use super::variation::{Machine, Variation};
use crate::sandbox::{Conditions, DirOrder};

/// How a round is built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrangement {
    /// What the child process does itself.
    pub setting: Setting,
    /// Steps at once.
    pub jobs: usize,
    /// Variables of the child's environment.
    pub env: Vec<(&'static str, &'static str)>,
    /// Where its store is made; none is beside the layers of the store itself.
    pub place: Option<PathBuf>,
    /// A longer path below that.
    pub long_path: bool,
    /// Something else keeps the cpus busy.
    pub load: bool,
}

/// Seconds: 400 days, so that day, month and year differ.
const CLOCK_SHIFT: i64 = 400 * 86_400;
/// Neither a power of two nor a divisor of what file systems allocate at once.
const USED_INODES: u32 = 131;
/// UNAME26 and PER_LINUX32 (`linux/personality.h`): uname tells another kernel and another architecture.
const PERSONALITY: u64 = 0x0002_0000 | 0x0008;

const ENVIRONMENT: [(&str, &str); 15] = [
    ("LANG", "tr_TR.UTF-8"),
    ("LC_ALL", "tr_TR.UTF-8"),
    ("LANGUAGE", "tr"),
    ("TZ", "Pacific/Kiritimati"),
    ("HOME", "/nonexistent"),
    ("USER", "someone"),
    ("LOGNAME", "someone"),
    ("PATH", "/usr/bin:/bin:/nonexistent:/usr/sbin:/sbin"),
    ("SOURCE_DATE_EPOCH", "1234567890"),
    ("PYTHONHASHSEED", "12345"),
    ("MAKEFLAGS", "-k"),
    ("CFLAGS", "-O0 -g3"),
    ("LDFLAGS", "-Wl,-z,now"),
    ("COLUMNS", "37"),
    ("TERM", "vt52"),
];

/// Arranges a round. `turn` counts the varied rounds from 0: some variations have a second form.
pub fn arrange(variations: &[Variation], turn: usize, jobs: usize, machine: &Machine) -> Arrangement {
    let on = |variation| variations.contains(&variation);
    let odd = turn % 2 == 1;
    let order = if odd { DirOrder::Shuffled(turn as u64) } else { DirOrder::Reversed };
    let inside = Conditions {
        cpus: on(Variation::Cpus).then_some(1),
        random_addresses: on(Variation::Aslr),
        clock_shift: if on(Variation::Clock) { CLOCK_SHIFT } else { 0 },
        dir_order: on(Variation::DirOrder).then_some(order),
        used_inodes: if on(Variation::Inodes) { USED_INODES } else { 0 },
    };
    let other_user = machine.other_user.as_ref().ok().copied().filter(|_| on(Variation::User));
    // One id is instead of other ids: with both on, rounds take turns.
    let others = other_user.is_some() || on(Variation::Ids) && machine.other_ids.is_ok();
    let one_id = machine.one_id.as_ref().ok().filter(|_| on(Variation::OneId) && !(odd && others));
    let user = one_id.copied().flatten().or(other_user);
    let outside = Outside {
        umask: on(Variation::Umask).then_some(if odd { 0o000 } else { 0o077 }),
        limits: match on(Variation::Rlimits) {
            true => vec![
                (libc::RLIMIT_NOFILE, 777),
                (libc::RLIMIT_STACK, 32 << 20),
                (libc::RLIMIT_CORE, libc::RLIM_INFINITY),
            ],
            false => Vec::new(),
        },
        personality: on(Variation::Personality).then_some(PERSONALITY),
        host_name: on(Variation::HostName).then(|| ("elsewhere-7".into(), "example.invalid".into())),
        // Another user has other ids anyway.
        id_offset: machine.other_ids.as_ref().ok().copied().filter(|_| on(Variation::Ids) && user.is_none()),
        one_id: one_id.is_some(),
        user,
    };
    let other = machine.other_place.as_ref().ok().filter(|_| on(Variation::FileSystem));
    // Nobody else may look into the store's own directory.
    let public = || machine.like_place.as_ref().or(machine.other_place.as_ref().ok());
    let place = other.or_else(|| user.and_then(|_| public())).cloned();
    let jobs = match (on(Variation::Jobs), odd) {
        (false, _) => jobs,
        (true, false) => {
            if jobs == 1 {
                2
            } else {
                1
            }
        }
        (true, true) => machine.cpus * 4,
    };
    Arrangement {
        setting: Setting { inside, outside },
        jobs,
        env: if on(Variation::Environment) { ENVIRONMENT.to_vec() } else { Vec::new() },
        place,
        long_path: on(Variation::StorePath),
        load: on(Variation::Load),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine {
            cpus: 2,
            root: true,
            other_place: Ok("/other".into()),
            like_place: Some("/like".into()),
            other_user: Ok((7, 8)),
            other_ids: Ok(9),
            one_id: Ok(Some((5, 6))),
        }
    }

    #[test]
    fn nothing_is_normal() {
        let arranged = arrange(&[], 0, 3, &machine());
        assert_eq!(arranged.setting, Setting::default());
        assert_eq!(
            (arranged.jobs, arranged.place, arranged.long_path, arranged.load),
            (3, None, false, false)
        );
        assert!(arranged.env.is_empty());
    }

    #[test]
    fn each_variation_changes_something() {
        for variation in Variation::ALL {
            let varied = arrange(&[variation], 0, 2, &machine());
            assert_ne!(varied, arrange(&[], 0, 2, &machine()), "{variation:?}");
        }
    }

    #[test]
    fn turns_differ_and_another_user_gets_a_public_place() {
        let all = Variation::ALL;
        assert_ne!(arrange(&all, 0, 2, &machine()), arrange(&all, 1, 2, &machine()));
        assert_eq!(arrange(&[Variation::User], 0, 2, &machine()).place, Some("/like".into()));
        assert_eq!(arrange(&all, 0, 2, &machine()).place, Some("/other".into()));
        assert_eq!(arrange(&all, 0, 2, &machine()).setting.outside.id_offset, None);
        let outside = |set: &[Variation], turn| arrange(set, turn, 2, &machine()).setting.outside;
        let one = |outside: Outside| (outside.one_id, outside.user);
        assert_eq!(
            [0, 1].map(|turn| one(outside(&all, turn))),
            [(true, Some((5, 6))), (false, Some((7, 8)))]
        );
        assert_eq!(one(outside(&[Variation::OneId], 1)), (true, Some((5, 6))));
    }
}
