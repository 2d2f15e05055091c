//! What was made here goes to the remotes, on threads of its own while later steps run.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Scope;

use super::call::Line;
use super::{Sharing, lock, statement, travels};
use crate::digest::LayerId;
use crate::engine::plan::NodeId;
use crate::engine::state::Known;
use crate::error::Result;
use crate::remote::{Blob, RecordKey, Remote, Subject};
use crate::trust::{self, Claim, Envelope, Provenance, SecretKey, Statement};

/// Layers that go out at once: enough to hide how far away a remote is. They are packed into files, not into memory.
const AT_ONCE: usize = 4;

/// How long it is believed that a plan is shared, in seconds: a remote may throw things away.
const BELIEVED: i64 = 24 * 3600;

/// The kind of the notes that say when a plan was shared.
const NOTES: &str = "shared";

/// What is known of a remote that is written to.
struct Target<'a> {
    /// Its place in the order.
    at: usize,
    line: &'a Line,
    signer: &'a SecretKey,
    /// What our own records there say.
    said: Mutex<BTreeMap<Subject, Claim>>,
    /// Layers that were packed before, and whether they were there when all of them were asked for at once.
    there: HashMap<LayerId, bool>,
    /// Something was added.
    changed: AtomicBool,
}

impl Sharing<'_> {
    /// Whether all of these went to every remote not long ago, or need not go.
    pub fn is_shared(&self, goals: &[NodeId]) -> bool {
        let Some(signer) = &self.signer else { return true };
        let now = now();
        self.lines.iter().filter(|line| line.writes()).all(|line| {
            let at: Option<i64> = self.store.get_note(NOTES, &self.note(line, signer, goals));
            at.is_some_and(|at| (0..BELIEVED).contains(&(now - at)))
        })
    }

    fn note(&self, line: &Line, signer: &SecretKey, goals: &[NodeId]) -> String {
        format!("{} {} {}", line.setup.name, signer.public(), self.subject(goals))
    }

    /// Does `work` while what it offers goes out, if anything is to go out. It has gone when this returns.
    pub fn while_sharing<T>(&self, shares: bool, goals: &[NodeId], work: impl FnOnce() -> T) -> T {
        /// Also when `work` panics: nobody waits for a queue that is never closed.
        struct Closing<'a, 'b>(&'a Sharing<'b>);
        impl Drop for Closing<'_, '_> {
            fn drop(&mut self) {
                self.0.close();
            }
        }
        std::thread::scope(|scope| {
            if shares {
                self.start(scope, goals);
            }
            let _closing = Closing(self);
            work()
        })
    }

    /// Starts what empties the queue. `goals` name the plan.
    fn start<'scope, 'env>(&'env self, scope: &'scope Scope<'scope, 'env>, goals: &'env [NodeId]) {
        let Some(signer) = &self.signer else {
            if let Some(line) = self.lines.iter().find(|line| line.writes()) {
                let name = &line.setup.name;
                let hint =
                    "`isolith key generate` makes one; `write = false` or --no-remote ends this warning";
                self.warn(format!(
                    "nothing is put into remote `{name}`, since there is no key to sign with: {hint}"
                ));
            }
            return;
        };
        if self.writes() {
            scope.spawn(move || self.empty(signer, goals));
        }
    }

    fn empty(&self, signer: &SecretKey, goals: &[NodeId]) {
        if !self.any() {
            return; // What is there already is not asked for.
        }
        let written = self.lines.iter().enumerate().filter(|(_, line)| line.writes());
        let mut targets: Vec<Target> =
            written.map(|(at, line)| self.target((at, line), signer, goals)).collect();
        self.ask_for_all(&mut targets);
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(|| {
                    while let Some((node, known)) = self.next() {
                        if let Err(why) = self.share(&targets, node, &known) {
                            let name = &self.plan.nodes[node].name;
                            self.warn(format!("the layer of `{name}` is not shared: {why}"));
                        }
                    }
                });
            }
        });
        for target in &targets {
            self.finish(target, goals);
        }
    }

    /// Finds out what this machine has said before, so that nothing is sent twice.
    fn target<'a>(
        &'a self,
        (at, line): (usize, &'a Line),
        signer: &'a SecretKey,
        goals: &[NodeId],
    ) -> Target<'a> {
        let key = signer.public();
        let own = |subject| (RecordKey { subject, writer: key.writer() }, key);
        let definitions = goals.iter().filter(|node| travels(self.plan, **node));
        let definitions = definitions.map(|node| own(Subject::Definition(self.definition(*node))));
        let plan = own(self.subject(goals));
        let mut said = BTreeMap::new();
        let mut whole = false;
        for ((name, key), bytes) in self.records(line, definitions.chain([plan]).collect()) {
            // What does not count is written anew.
            let claims = trust::read(&bytes, &name, &key).unwrap_or_default();
            if name == plan.0 {
                whole = true;
            } else {
                said.extend(claims);
            }
        }
        let (said, changed) = (Mutex::new(said), AtomicBool::new(!whole));
        Target { at, line, signer, said, there: HashMap::new(), changed }
    }

    /// Asks each remote once for all layers in the queue that were packed before and that it says nothing of.
    fn ask_for_all(&self, targets: &mut [Target]) {
        let waiting = self.waiting();
        for target in targets {
            let mut packed: HashMap<LayerId, Blob> = HashMap::new();
            for (node, known) in &waiting {
                if self.is_new(target, *node, known) && self.takes(target.at, known) {
                    packed.extend(self.packed_before(*node, &known.layer).map(|blob| (known.layer, blob)));
                }
            }
            if packed.len() < 2 {
                continue;
            }
            let (layers, blobs): (Vec<LayerId>, Vec<Blob>) = packed.into_iter().unzip();
            let has = self.ask(target.line, move |remote, _| remote.has_blobs(&blobs)).unwrap_or_default();
            target.there = layers.into_iter().zip(has).collect();
        }
    }

    /// Whether our own records in a remote do not say that a node came to this.
    fn is_new(&self, target: &Target, node: NodeId, known: &Known) -> bool {
        let subject = Subject::Definition(self.definition(node));
        target.line.writes()
            && lock(&target.said).get(&subject).is_none_or(|claim| claim.layer != known.layer)
    }

    /// Puts one layer and its records where they are not yet.
    fn share(&self, targets: &[Target], node: NodeId, known: &Known) -> Result<()> {
        let subject = Subject::Definition(self.definition(node));
        for target in targets.iter().filter(|target| self.is_new(target, node, known)) {
            if !self.takes(target.at, known) {
                continue;
            }
            let there = target.there.get(&known.layer).copied();
            let Some(blob) = self.send(target.line, node, &known.layer, there)? else { continue };
            let put = match known.remote.is_none() {
                true => self.sign(target, node, known, &subject, blob),
                // Whoever made it has signed it; this machine has not seen it being made.
                false => self.pass_on(target, known, &subject, blob),
            };
            if put {
                target.changed.store(true, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Signs and puts the records of a layer that was made here.
    fn sign(
        &self,
        target: &Target,
        node: NodeId,
        known: &Known,
        subject: &Subject,
        blob: Option<Blob>,
    ) -> bool {
        let claim = Claim {
            layer: known.layer,
            blob,
            action: known.action,
            wall_ms: known.wall_ms.max(known.saved_ms),
        };
        let subjects = [Some(*subject), known.action.map(Subject::Action)];
        let statement = statement(self.plan, node, known, &claim, target.signer);
        let bytes = sealed(&statement, target.signer);
        let blobs: Vec<Blob> = claim.blob.iter().cloned().collect();
        let writer = target.signer.public().writer();
        let names = subjects.into_iter().flatten().map(|subject| RecordKey { subject, writer }).collect();
        if !self.put(target.line, names, bytes, blobs) {
            return false;
        }
        lock(&target.said).insert(*subject, claim);
        true
    }

    /// Puts the records of others, as they are, for a layer that came from a remote farther away.
    fn pass_on(&self, target: &Target, known: &Known, subject: &Subject, blob: Option<Blob>) -> bool {
        let from = self.lines.iter().find(|line| Some(&line.setup.name) == known.remote.as_ref());
        let Some(from) = from.filter(|line| line.reads()) else { return false };
        let mut put = false;
        for ((name, key), bytes) in self.records(from, from.setup.policy.records(*subject).collect()) {
            let claims = trust::read(&bytes, &name, &key).unwrap_or_default();
            // Another version packs in another way; then the record does not fit the bytes.
            if claims.get(subject).is_some_and(|claim| claim.layer == known.layer && claim.blob == blob) {
                put |= self.put(target.line, vec![name], bytes, blob.iter().cloned().collect());
            }
        }
        put
    }

    /// Puts the same record under several names.
    fn put(&self, line: &Line, names: Vec<RecordKey>, bytes: Vec<u8>, blobs: Vec<Blob>) -> bool {
        let size = (bytes.len() * names.len()) as u64;
        let put = move |remote: &dyn Remote, _: &_| {
            names.iter().try_for_each(|name| remote.put_record(name, &bytes, &blobs))
        };
        let done = self.ask(line, put).is_some();
        if done {
            line.tally.up(size);
        }
        done
    }

    /// Puts the record that answers the whole plan, and notes that this was done.
    fn finish(&self, target: &Target, goals: &[NodeId]) {
        if !target.line.writes() || self.cancel.load(Ordering::Relaxed) {
            return;
        }
        let said = lock(&target.said);
        let wanted: HashMap<Subject, NodeId> =
            goals.iter().map(|node| (Subject::Definition(self.definition(*node)), *node)).collect();
        let of_plan: Vec<(&Subject, &Claim)> =
            said.iter().filter(|(subject, _)| wanted.contains_key(subject)).collect();
        let plan = self.subject(goals);
        if !of_plan.is_empty() && target.changed.load(Ordering::Relaxed) {
            let mut resources = vec![Claim::plan(&plan)];
            resources.extend(of_plan.iter().map(|(subject, claim)| claim.resource(subject)));
            let statement = Statement::new(resources, of_whole(self, target.signer));
            let bytes = sealed(&statement, target.signer);
            let mut blobs: Vec<Blob> = of_plan.iter().filter_map(|(_, claim)| claim.blob.clone()).collect();
            blobs.sort_by(|a, b| a.digest.as_ref().cmp(b.digest.as_ref()));
            blobs.dedup();
            let name = RecordKey { subject: plan, writer: target.signer.public().writer() };
            // A plan with more layers than fit is answered by their own records.
            if bytes.len() <= crate::remote::MOST_RECORD && !self.put(target.line, vec![name], bytes, blobs) {
                return;
            }
        }
        let _ = self.store.put_note(NOTES, &self.note(target.line, target.signer, goals), &now());
    }
}

/// The provenance of a record about a whole plan: its steps have their own.
fn of_whole(sharing: &Sharing, signer: &SecretKey) -> Provenance {
    super::of_plan(sharing.plan, signer)
}

fn sealed(statement: &Statement, signer: &SecretKey) -> Vec<u8> {
    // Strings, numbers and maps of them cannot fail to become JSON.
    Envelope::sign(&serde_json::to_vec(statement).unwrap_or_default(), signer)
}

fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| since.as_secs() as i64)
}
