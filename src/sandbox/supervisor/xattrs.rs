//! The attributes that hold records are not the step's to see or to change.

use std::os::fd::AsFd;

use super::callee::Named;
use super::ids::State;
use super::records::{Look, link};
use super::{Answer, Answered, Asked};
use crate::layer::{CAPABILITY, owners};
use crate::sys::process;

/// `getxattr`, `setxattr`, `removexattr`: a name of ours is not there, and cannot be made.
pub(super) fn named(state: &mut State, asked: &Asked<'_>, write: bool) -> Answered {
    match state.resolver.read_path(asked, asked.call.args[1]) {
        Some(name) if name.starts_with(owners::PREFIX) => {
            Err(if write { libc::EPERM } else { libc::ENODATA })
        }
        Some(name) if write && name == CAPABILITY => {
            state.records.capable = true;
            Ok(Answer::Continue)
        }
        _ => Ok(Answer::Continue),
    }
}

/// `listxattr`: the list without our names.
pub(super) fn list(state: &mut State, asked: &Asked<'_>) -> Answered {
    let named = match asked.call.number {
        libc::SYS_flistxattr => Named::Fd(asked.int(0)),
        nr => Named::path(asked, 0, nr == libc::SYS_listxattr),
    };
    if state
        .resolver
        .here(asked, named)
        .is_some_and(|here| matches!(state.records.look(&here), Look::Nothing))
    {
        return Ok(Answer::Continue);
    }
    let Some(object) = state.resolver.open(asked, named) else { return Ok(Answer::Continue) };
    let mut all = vec![0; 64 * 1024];
    let Ok(len) = rustix::fs::listxattr(link(object.as_fd()), &mut all[..]) else {
        return Ok(Answer::Continue);
    };
    let names = all[..len].split_inclusive(|b| *b == 0);
    let shown: Vec<u8> = names.filter(|name| !name.starts_with(owners::PREFIX)).flatten().copied().collect();
    if shown.len() == len || !asked.is_waiting() {
        return Ok(Answer::Continue);
    }
    let (to, room) = (asked.call.args[1], asked.call.args[2] as usize);
    if room == 0 {
        return Ok(Answer::Value(shown.len() as i64));
    }
    if room < shown.len() {
        return Err(libc::ERANGE);
    }
    match process::write_memory(asked.call.pid, to, &shown) {
        Ok(()) => Ok(Answer::Value(shown.len() as i64)),
        Err(e) => Err(e.errno()),
    }
}
