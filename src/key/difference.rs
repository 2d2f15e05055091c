//! The difference between two action documents, the matter of `explain`.

use super::ActionDocument;

/// One input of an action that is not the same in another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// A field that is one value: its name, the old and the new value.
    Field(&'static str, String, String),
    /// The command: old and new arguments.
    Command(Vec<String>, Vec<String>),
    /// An environment variable: name, old and new value; none where it was or is not set.
    Env(String, Option<String>, Option<String>),
    /// The host base: its paths differ, or what lies there.
    Host(Option<String>, Option<String>),
    /// The stack is not the same: old and new layer ids, lowest first, as hex.
    Stack(Vec<String>, Vec<String>),
    /// The mounts differ: old and new, as JSON.
    Mounts(String, String),
}

/// Every difference from `old` to `new`, in the order of the fields of the document.
pub fn difference(old: &ActionDocument, new: &ActionDocument) -> Vec<Difference> {
    let mut out = Vec::new();
    let mut field = |name, old: String, new: String| {
        if old != new {
            out.push(Difference::Field(name, old, new));
        }
    };
    field("sandbox contract", old.contract.to_string(), new.contract.to_string());
    field("architecture", old.arch.clone(), new.arch.clone());
    field("cwd", old.cwd.to_string(), new.cwd.to_string());
    field("user", format!("{}:{}", old.user.uid, old.user.gid), format!("{}:{}", new.user.uid, new.user.gid));
    field("network", text(&old.network), text(&new.network));
    field("epoch", old.epoch.to_string(), new.epoch.to_string());
    if old.argv != new.argv {
        out.push(Difference::Command(old.argv.clone(), new.argv.clone()));
    }
    let names: std::collections::BTreeSet<_> = old.env.keys().chain(new.env.keys()).collect();
    for name in names {
        let (before, after) = (old.env.get(name), new.env.get(name));
        if before != after {
            out.push(Difference::Env(name.clone(), before.cloned(), after.cloned()));
        }
    }
    if old.host != new.host {
        let print = |h: &Option<super::HostView>| h.as_ref().map(|h| format!("{:?}", h.paths));
        out.push(Difference::Host(print(&old.host), print(&new.host)));
    }
    if old.mounts != new.mounts {
        out.push(Difference::Mounts(text(&old.mounts), text(&new.mounts)));
    }
    if old.stack != new.stack {
        out.push(Difference::Stack(old.stack.clone(), new.stack.clone()));
    }
    out
}

fn text<T: serde::Serialize>(value: &T) -> String {
    String::from_utf8_lossy(&super::canonical_json(value)).trim_matches('"').to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{CONTRACT, Network, UserDoc};
    use crate::path::GuestPath;

    fn document() -> ActionDocument {
        ActionDocument {
            contract: CONTRACT,
            arch: "x86_64".into(),
            host: None,
            stack: vec!["a".into()],
            argv: vec!["true".into()],
            env: [("PATH".to_string(), "/bin".to_string())].into(),
            cwd: GuestPath::root(),
            user: UserDoc { uid: 0, gid: 0 },
            network: Network::None,
            mounts: Vec::new(),
            epoch: 1,
        }
    }

    #[test]
    fn each_field_of_the_document_shows_and_changes_the_key() {
        let old = document();
        assert!(difference(&old, &old).is_empty());
        let changes: [fn(&mut ActionDocument); 11] = [
            |d| d.contract += 1,
            |d| d.arch = "aarch64".into(),
            |d| d.host = Some(crate::key::HostView { paths: vec![], fingerprint: "f".into() }),
            |d| d.stack.push("b".into()),
            |d| d.argv.push("x".into()),
            |d| drop(d.env.insert("PATH".into(), "/usr/bin".into())),
            |d| d.cwd = GuestPath::parse("/src").unwrap(),
            |d| d.user.uid = 1,
            |d| d.network = Network::Host,
            |d| d.mounts.push(crate::key::MountDoc::Tmpfs { at: GuestPath::parse("/x").unwrap() }),
            |d| d.epoch = 2,
        ];
        let mut keys = std::collections::HashSet::from([old.key()]);
        for change in changes {
            let mut new = old.clone();
            change(&mut new);
            assert_eq!(difference(&old, &new).len(), 1, "{new:?}");
            assert!(keys.insert(new.key()), "the key did not change: {new:?}");
        }
    }
}
