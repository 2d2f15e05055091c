//! Directories that hand their group down (setgid): the kernel gives what is made there the directory's group
//! on disk, which is the one id, so the rule is applied when an owner is asked for. Whenever its result is about
//! to change, because the directory changes or the object moves, what it gives so far is written down first.

use std::os::fd::{AsFd, OwnedFd};

use super::callee::Named;
use super::ids::{FCHMODAT2, RENAMEAT, State};
use super::records::{Records, hands_down, is_dir, path_of};
use super::{Answer, Answered, Asked};

/// `chmod`: a directory may begin to hand its group down, or cease to.
pub(super) fn chmod(state: &mut State, asked: &Asked<'_>) -> Answered {
    let (named, mode) = match asked.call.number {
        libc::SYS_fchmod => (Named::Fd(asked.int(0)), asked.int(1)),
        libc::SYS_fchmodat => (Named::at(asked, 0, 1, 0), asked.int(2)),
        FCHMODAT2 => (Named::at(asked, 0, 1, asked.int(3)), asked.int(2)),
        _ => (Named::path(asked, 0, true), asked.int(1)),
    };
    // A directory that hands a group down is among the shared ones.
    if mode as u32 & libc::S_ISGID == 0 && state.records.none_shared() {
        return Ok(Answer::Continue);
    }
    if let Some(here) = state.resolver.here(asked, named)
        && here.stat().is_ok_and(|stat| !is_dir(&stat))
    {
        return Ok(Answer::Continue);
    }
    let Some(object) = state.resolver.open(asked, named) else { return Ok(Answer::Continue) };
    let Ok(stat) = rustix::fs::fstat(&object) else { return Ok(Answer::Continue) };
    if is_dir(&stat) {
        state.records.check(object.as_fd());
    }
    let will = mode as u32 & libc::S_ISGID != 0;
    if !is_dir(&stat) || will == hands_down(&stat) || !asked.is_waiting() {
        return Ok(Answer::Continue);
    }
    if state.records.owner(object.as_fd()).is_some_and(|(_, gid)| gid != 0) {
        let share = |records: &mut Records| if will { records.share(object.as_fd()) } else { Ok(()) };
        if let Err(e) = state.records.settle(object.as_fd()).and_then(|()| share(&mut state.records)) {
            return Err(e.raw_os_error());
        }
    }
    Ok(Answer::Continue)
}

/// `rename`: what moves keeps its owner, and a directory that hands its group down is then elsewhere.
pub(super) fn rename(state: &mut State, asked: &Asked<'_>) -> Answered {
    let (from, to, flags) = match asked.call.number {
        RENAMEAT => (Named::at(asked, 0, 1, NO), Named::at(asked, 2, 3, NO), 0),
        libc::SYS_renameat2 => (Named::at(asked, 0, 1, NO), Named::at(asked, 2, 3, NO), asked.int(4)),
        _ => (Named::path(asked, 0, false), Named::path(asked, 1, false), 0),
    };
    let exchange = flags as u32 & libc::RENAME_EXCHANGE != 0;
    moves(state, asked, from, to, exchange)
}

/// `link`: so does what gets another name.
pub(super) fn link(state: &mut State, asked: &Asked<'_>) -> Answered {
    let (from, to) = match asked.call.number {
        libc::SYS_linkat => {
            let follow = asked.int(4) & libc::AT_SYMLINK_FOLLOW != 0;
            let flags = asked.int(4) & libc::AT_EMPTY_PATH | if follow { 0 } else { NO };
            (Named::at(asked, 0, 1, flags), Named::at(asked, 2, 3, NO))
        }
        _ => (Named::path(asked, 0, false), Named::path(asked, 1, false)),
    };
    moves(state, asked, from, to, false)
}

const NO: i32 = libc::AT_SYMLINK_NOFOLLOW;

fn moves(state: &mut State, asked: &Asked<'_>, from: Named, to: Named, exchange: bool) -> Answered {
    if state.records.none_shared() {
        return Ok(Answer::Continue);
    }
    let mut plain = |named| {
        let here = state.resolver.here(asked, named);
        let file = here.as_ref().is_some_and(|here| here.stat().is_ok_and(|stat| !is_dir(&stat)));
        (here.is_some_and(|here| state.records.is_in_plain_directory(&here)), file)
    };
    if state.records.closely && !exchange && plain(from) == (true, true) && plain(to).0 {
        return Ok(Answer::Continue);
    }
    let Some(object) = state.resolver.open(asked, from) else { return Ok(Answer::Continue) };
    let Some(new) = destination(state, asked, to) else { return Ok(Answer::Continue) };
    let other = if exchange { state.resolver.open(asked, to) } else { None };
    if !asked.is_waiting() {
        return Ok(Answer::Continue);
    }
    let done = one(state, &object, &new).and_then(|old| match &other {
        Some(other) => one(state, other, &old).map(drop),
        None => Ok(()),
    });
    match done {
        Ok(()) => Ok(Answer::Continue),
        Err(e) => Err(e.raw_os_error()),
    }
}

/// Before `object` goes to the path `to`: where it is now.
fn one(state: &mut State, object: &OwnedFd, to: &[u8]) -> Result<Vec<u8>, rustix::io::Errno> {
    let from = path_of(object.as_fd()).unwrap_or_default();
    let stat = rustix::fs::fstat(object)?;
    if is_dir(&stat) {
        state.records.check(object.as_fd());
    }
    if state.records.is_below_shared(&from) || state.records.is_below_shared(to) {
        state.records.settle_one(object.as_fd())?;
    }
    if is_dir(&stat) {
        state.records.moves(&from, to);
        // What was made in a directory that hands its group down has got that from it.
        if hands_down(&stat) && state.records.own(object.as_fd()).is_some_and(|(_, gid)| gid != 0) {
            state.records.share_at(to.to_vec());
        }
    }
    Ok(from)
}

/// The path from the root of a name that need not exist yet.
fn destination(state: &mut State, asked: &Asked<'_>, named: Named) -> Option<Vec<u8>> {
    let Named::Path { dir, at, .. } = named else { return None };
    let path = state.resolver.read_path(asked, at)?.to_vec();
    let path = path.strip_suffix(b"/").unwrap_or(&path);
    let (above, name) = match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => (&path[..slash + 1], &path[slash + 1..]),
        None => (&b"."[..], path),
    };
    let parent = state.resolver.open_path(asked, dir, above, true)?;
    let mut full = path_of(parent.as_fd())?;
    if full != b"/" {
        full.push(b'/');
    }
    full.extend_from_slice(name);
    Some(full)
}
