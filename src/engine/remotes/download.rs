//! Layers that are known elsewhere are brought here when something has to see them.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use super::call::{Line, Moved};
use super::{Sharing, lock};
use crate::digest::LayerId;
use crate::engine::plan::NodeId;
use crate::engine::stack::Resolver;
use crate::engine::state::{Knowledge, Known};
use crate::error::{Error, Result};
use crate::key::ActionDocument;
use crate::layer::{IdShift, Manifest, Ranges, Table};
use crate::oci::receive;
use crate::remote::{Blob, Subject};
use crate::sandbox::Usage;
use crate::store::{ActionRecord, DefinitionRecord};
use crate::trust::Agreed;

/// Layers that are on their way at once: enough to hide how far away a remote is.
const AT_ONCE: usize = 12;
/// Bytes that may be asked for at a time, all layers together.
const IN_FLIGHT: usize = 32 << 20;
/// As many bytes are counted at once.
const PART: usize = 64 << 10;
/// The end of a layer is kept: it has the table of contents, and of a small layer everything.
const KEPT: u64 = 64 << 10;

/// A layer that is not here.
#[derive(Clone)]
pub(super) struct Away {
    /// Which remote has it.
    pub line: usize,
    /// What was asked for.
    pub subject: Subject,
    /// Who says what about it.
    pub agreed: Agreed,
}

impl Sharing<'_> {
    /// Whether a remote has this layer, as far as is known.
    pub fn has(&self, layer: &LayerId) -> bool {
        lock(&self.away).contains_key(layer)
    }

    /// Whether anything is known that is not here.
    pub fn has_any(&self) -> bool {
        !lock(&self.away).is_empty()
    }

    /// Brings layers into the store. Gives those that came; every other one is not there any more, or not what it
    /// should be, and is forgotten. `most` bounds the content of each.
    pub fn bring(&self, layers: &[LayerId], ids: IdShift, most: u64) -> Vec<LayerId> {
        let room = Room::default();
        self.each(layers, |line, away, name| {
            let Some(blob) = &away.agreed.claim.blob else { return Some(()) };
            let bytes = self.bytes(line, blob, &room);
            let came = receive(self.store, &away.agreed.claim.layer, &bytes, ids, most);
            self.sound(came, &bytes, away, name)?;
            line.tally.layer_down();
            Some(())
        })
        .into_keys()
        .collect()
    }

    /// Records what a remote said of a node whose layer is here now, so that it is known without the remote. The action
    /// is recorded too where it is the one that this machine would run.
    pub fn keep(&self, node: NodeId, knowledge: &Knowledge) -> Result<()> {
        let Some(known) = knowledge.get(node) else { return Ok(()) };
        let definition = &self.plan.nodes[node];
        let document = serde_json::to_value(&definition.definition)
            .map_err(|why| Error::machine("a definition has no JSON form").because(why))?;
        let (layers, wall_ms, from) = (vec![known.layer], known.saved_ms, known.remote.clone());
        let record = DefinitionRecord { document, action: known.action, layers, wall_ms, from };
        self.store.put_definition(&definition.key, &record)?;
        self.offer(node, known);
        let Some(step) = self.plan.step(node) else { return Ok(()) };
        if !step.stack.nodes().iter().all(|node| knowledge.get(*node).is_some()) {
            return Ok(());
        }
        let resolver = Resolver { plan: self.plan, knowledge, store: self.store, ids: None };
        // Where branches join, manifests may be needed that nobody else needs.
        let Ok(layers) = resolver.layers(&step.stack) else { return Ok(()) };
        let stack = layers.iter().map(LayerId::to_hex).collect();
        self.keep_action(node, &ActionDocument { stack, ..step.document.clone() }, known)
    }

    /// Records what a remote said of an action, if it is this one.
    pub fn keep_action(&self, node: NodeId, action: &ActionDocument, known: &Known) -> Result<()> {
        let (key, Some(step)) = (action.key(), self.plan.step(node)) else { return Ok(()) };
        if known.action != Some(key) {
            return Ok(());
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
        let record = ActionRecord {
            action: action.clone(),
            layer: known.layer,
            usage: Usage::default(),
            wall_ms: known.saved_ms,
            finished: now,
            recipe: self.plan.recipes[step.recipe].recipe.name.clone(),
            step: step.step.name.clone(),
            from: known.remote.clone(),
        };
        self.store.put_action(&key, &record)
    }

    /// The manifests of layers, which stay where they are.
    pub fn manifests(&self, layers: &[LayerId]) -> HashMap<LayerId, Arc<Manifest>> {
        let room = Room::default();
        self.each(layers, |line, away, name| {
            let Some(blob) = &away.agreed.claim.blob else { return Some(Arc::default()) };
            let bytes = self.bytes(line, blob, &room);
            let table = Table::read(&bytes, &away.agreed.claim.layer);
            Some(Arc::new(self.sound(table, &bytes, away, name)?.manifest().clone()))
        })
    }

    /// Does something with each layer that is away, several at a time. Those that it gives nothing for are forgotten.
    fn each<T: Send>(
        &self,
        layers: &[LayerId],
        work: impl Fn(&Line, &Away, &str) -> Option<T> + Sync,
    ) -> HashMap<LayerId, T> {
        let (next, done) = (AtomicUsize::new(0), Mutex::new(HashMap::new()));
        let thread = || {
            while let Some(layer) = layers.get(next.fetch_add(1, Ordering::Relaxed)) {
                let Some(away) = lock(&self.away).get(layer).cloned() else { continue };
                let name = self.name(&away.subject);
                match work(&self.lines[away.line], &away, &name) {
                    Some(value) => drop(lock(&done).insert(*layer, value)),
                    None => drop(lock(&self.away).remove(layer)),
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..layers.len().min(AT_ONCE) {
                scope.spawn(thread);
            }
        });
        done.into_inner().unwrap_or_else(|e| e.into_inner())
    }

    fn bytes<'a>(&'a self, line: &'a Line, blob: &'a Blob, room: &'a Room) -> Bytes<'a> {
        Bytes { sharing: self, line, blob, room, tail: Mutex::default(), trouble: Mutex::new(None) }
    }

    /// What came of reading a layer. Where the remote itself is the matter that has been said; where its bytes are, it
    /// is said here.
    fn sound<T>(&self, result: Result<T>, bytes: &Bytes, away: &Away, name: &str) -> Option<T> {
        let why = match result {
            Ok(value) => return Some(value),
            Err(why) => why,
        };
        let trouble = *lock(&bytes.trouble);
        match trouble {
            Some(Trouble::NotThere | Trouble::NoAnswer) => {}
            None => {
                let (claim, subject) = (&away.agreed.claim, &away.subject);
                let digest = claim.blob.as_ref().map(|blob| blob.digest.to_string()).unwrap_or_default();
                let what = format!("the layer of {name} is refused ({subject}, {digest})");
                let got = format!("expected layer {}, got something else: {why}", claim.layer);
                self.refuse(bytes.line, &format!("{what}: {got}"));
            }
        }
        None
    }

    /// What a subject is to people.
    fn name(&self, subject: &Subject) -> String {
        let node: Option<NodeId> = match subject {
            Subject::Definition(key) => self.plan.nodes.iter().position(|node| node.key == *key),
            _ => None,
        };
        node.map_or_else(|| format!("action {subject}"), |node| format!("`{}`", self.plan.nodes[node].name))
    }
}

/// Why a blob could not be read.
#[derive(Clone, Copy)]
enum Trouble {
    /// It is gone, or has not that many bytes.
    NotThere,
    /// The remote has failed.
    NoAnswer,
}

/// The bytes of a blob, as they are asked for.
struct Bytes<'a> {
    sharing: &'a Sharing<'a>,
    line: &'a Line,
    blob: &'a Blob,
    room: &'a Room,
    tail: Mutex<Option<(u64, Vec<u8>)>>,
    trouble: Mutex<Option<Trouble>>,
}

impl Ranges for Bytes<'_> {
    fn size(&self) -> u64 {
        self.blob.size
    }

    fn read(&self, at: u64, length: usize) -> Result<Vec<u8>> {
        if let Some((start, tail)) = &*lock(&self.tail)
            && let Some(from) = at.checked_sub(*start)
            && let Some(part) = tail.get(from as usize..from as usize + length)
        {
            return Ok(part.to_vec());
        }
        let bytes = self.fetch(at..at + length as u64)?;
        if at + length as u64 == self.blob.size && length as u64 <= KEPT {
            *lock(&self.tail) = Some((at, bytes.clone()));
        }
        Ok(bytes)
    }
}

impl Bytes<'_> {
    fn fetch(&self, range: Range<u64>) -> Result<Vec<u8>> {
        let length = (range.end - range.start) as usize;
        let _room = self.room.take(length);
        let blob = self.blob.clone();
        let answer = self.sharing.ask(self.line, move |remote, moved| {
            let mut bytes = Vec::new();
            let there = remote.blob(&blob, Some(range), &mut |from| {
                bytes.clear();
                read(from, length, &mut bytes, moved)
            })?;
            Ok(there.then_some(bytes))
        });
        let failed = |trouble, why: &str| {
            lock(&self.trouble).get_or_insert(trouble);
            Err(Error::machine(format!("{} {why}", self.blob.digest)))
        };
        match answer {
            None => failed(Trouble::NoAnswer, "cannot be asked for"),
            Some(None) => failed(Trouble::NotThere, "is not there"),
            Some(Some(bytes)) => {
                self.line.tally.down(bytes.len() as u64);
                Ok(bytes)
            }
        }
    }
}

/// Reads so many bytes, no more and no less.
fn read(from: &mut dyn std::io::Read, length: usize, bytes: &mut Vec<u8>, moved: &Moved) -> Result<()> {
    let cut = |why: std::io::Error| Error::machine("the remote sent less than it said").because(why);
    while bytes.len() < length {
        let start = bytes.len();
        bytes.resize(length.min(start + PART), 0);
        from.read_exact(&mut bytes[start..]).map_err(cut)?;
        moved.fetch_add((bytes.len() - start) as u64, Ordering::Relaxed);
    }
    Ok(())
}

/// Room for bytes that are on their way.
#[derive(Default)]
struct Room {
    taken: Mutex<usize>,
    freed: Condvar,
}

struct Taken<'a>(&'a Room, usize);

impl Room {
    fn take(&self, bytes: usize) -> Taken<'_> {
        let mut taken = lock(&self.taken);
        // One that is larger than all of it goes alone.
        while *taken > 0 && *taken + bytes > IN_FLIGHT {
            taken = self.freed.wait(taken).unwrap_or_else(|e| e.into_inner());
        }
        *taken += bytes;
        Taken(self, bytes)
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        *lock(&self.0.taken) -= self.1;
        self.0.freed.notify_all();
    }
}
