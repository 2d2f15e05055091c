//! Users and groups by the names that a stack has for them.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

use crate::digest::LayerId;
use crate::error::{Error, Result};
use crate::key::UserDoc;
use crate::layer::{Kind, View};
use crate::path::GuestPath;
use crate::sandbox::ids;
use crate::store::Store;

/// No password file is longer.
const LONGEST: u64 = 1 << 20;

/// The user that `text` means in the stack of `layers`: `uid`, `uid:gid`, `name` or `name:group`. A user without a group
/// is in that of the stack's `/etc/passwd`, else in 0. This process must have the ids of its sandboxes.
pub fn user(store: &Store, layers: &[LayerId], view: &View, text: &str) -> Result<UserDoc> {
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let passwd = || lines(store, layers, view, "etc/passwd");
    let unknown = |what: &str, name: &str, file: &str| {
        Error::usage(format!("there is no {what} `{name}` in the stack's /{file}"))
            .hint("give numbers instead: UID:GID")
    };
    let (uid, own) = match id(user) {
        Some(uid) if group.is_some() => (uid, None),
        Some(uid) => {
            (uid, passwd()?.iter().find(|line| line.get(2).and_then(|id| number(id)) == Some(uid)).cloned())
        }
        None => {
            let line = passwd()?.into_iter().find(|line| line[0] == user);
            let line = line.ok_or_else(|| unknown("user", user, "etc/passwd"))?;
            let uid = line.get(2).and_then(|uid| number(uid));
            (uid.ok_or_else(|| unknown("user", user, "etc/passwd"))?, Some(line))
        }
    };
    let gid = match group {
        None => own.and_then(|line| number(line.get(3)?)).unwrap_or(0),
        Some(group) => match id(group) {
            Some(gid) => gid,
            None => {
                let line = lines(store, layers, view, "etc/group")?.into_iter().find(|line| line[0] == group);
                let gid = line.and_then(|line| number(line.get(2)?));
                gid.ok_or_else(|| unknown("group", group, "etc/group"))?
            }
        },
    };
    Ok(UserDoc { uid, gid })
}

/// A number that a sandbox has an id for; a name is none.
fn id(text: &str) -> Option<u32> {
    number(text).filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id < ids::CALLER)
}

/// The lines of such a file, in fields; none when it is not a file of the stack.
fn lines(store: &Store, layers: &[LayerId], view: &View, file: &str) -> Result<Vec<Vec<String>>> {
    let path = GuestPath::from_relative(file).unwrap_or_default();
    let Some(found) = view.lookup(&path).filter(|found| matches!(found.node.kind, Kind::File { .. })) else {
        return Ok(Vec::new());
    };
    let place = store.layer_fs(&layers[found.layer]).join(found.node.path.as_relative());
    let mut text = Vec::new();
    File::options()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
        .open(&place)
        .and_then(|file| file.take(LONGEST).read_to_end(&mut text))
        .map_err(|why| Error::io("read", &place, why))?;
    let text = String::from_utf8_lossy(&text);
    Ok(text.lines().map(|line| line.split(':').map(str::to_string).collect()).collect())
}
