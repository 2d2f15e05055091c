//! What remotes know of a plan: one record for all of it, then one batch of records for what that leaves open.

use std::collections::{BTreeMap, HashMap};

use super::call::Line;
use super::download::Away;
use super::{Sharing, lock, travels};
use crate::digest::{ActionKey, DefinitionKey};
use crate::engine::OutcomeKind;
use crate::engine::plan::NodeId;
use crate::engine::state::Known;
use crate::remote::{RecordKey, Subject};
use crate::trust::{self, PublicKey, Vote};

/// What was said about each subject.
type Votes = BTreeMap<Subject, Vec<Vote>>;

impl Sharing<'_> {
    /// Asks for `nodes`, each by its DefinitionKey; `goals` are those whose set names the plan. What is found is known
    /// from now on, and its layer stays where it is until [`Sharing::bring`].
    pub fn find(&self, goals: &[NodeId], nodes: &[NodeId]) -> Vec<(NodeId, Known)> {
        let mut open: HashMap<Subject, Vec<NodeId>> = HashMap::new();
        for node in nodes.iter().filter(|node| travels(self.plan, **node)) {
            open.entry(Subject::Definition(self.plan.nodes[*node].key)).or_default().push(*node);
        }
        let mut found = Vec::new();
        for (at, line) in self.lines.iter().enumerate() {
            if open.is_empty() || !line.reads() {
                continue;
            }
            // All of the plan at once, then what that says nothing of.
            let mut votes = Votes::new();
            self.votes(line, line.setup.policy.records(self.subject(goals)).collect(), &mut votes);
            self.settle(at, &votes, &mut open, &mut found);
            let mut rest: Vec<Subject> = open.keys().copied().collect();
            rest.sort_unstable();
            let records = rest.into_iter().flat_map(|subject| line.setup.policy.records(subject));
            self.votes(line, records.collect(), &mut votes);
            self.settle(at, &votes, &mut open, &mut found);
        }
        found
    }

    /// Asks for a step by its ActionKey.
    pub fn find_action(&self, node: NodeId, key: &ActionKey) -> Option<Known> {
        if !travels(self.plan, node) {
            return None;
        }
        let subject = Subject::Action(*key);
        for (at, line) in self.lines.iter().enumerate().filter(|(_, line)| line.reads()) {
            let (mut votes, mut found) = (Votes::new(), Vec::new());
            self.votes(line, line.setup.policy.records(subject).collect(), &mut votes);
            self.settle(at, &votes, &mut HashMap::from([(subject, vec![node])]), &mut found);
            if let Some((_, known)) = found.pop() {
                return Some(Known { action: Some(*key), ..known });
            }
        }
        None
    }

    /// What the plan as a whole is called: by the definitions of all its goals that mean something elsewhere.
    pub(super) fn subject(&self, goals: &[NodeId]) -> Subject {
        let goals = goals.iter().filter(|node| travels(self.plan, **node));
        Subject::plan(goals.map(|node| self.plan.nodes[*node].key))
    }

    /// Asks for records and adds what they say. What is wrong with one is said, and the record counts for nothing.
    fn votes(&self, line: &Line, records: Vec<(RecordKey, PublicKey)>, votes: &mut Votes) {
        if records.is_empty() {
            return;
        }
        for ((name, key), bytes) in self.records(line, records) {
            match trust::read(&bytes, &name, &key) {
                Err(why) => self.refuse(line, &format!("the record {name} is refused: {why}")),
                Ok(claims) => {
                    for (subject, claim) in claims {
                        let said = votes.entry(subject).or_default();
                        if said.iter().all(|vote| vote.key != key) {
                            said.push(Vote { key, claim });
                        }
                    }
                }
            }
        }
    }

    /// The records that are there of those asked for; none of them has been looked at.
    pub(super) fn records(
        &self,
        line: &Line,
        wanted: Vec<(RecordKey, PublicKey)>,
    ) -> Vec<((RecordKey, PublicKey), Vec<u8>)> {
        let names: Vec<RecordKey> = wanted.iter().map(|(name, _)| *name).collect();
        let answers = self.ask(line, move |remote, _| remote.records(&names)).unwrap_or_default();
        let there = wanted.into_iter().zip(answers).filter_map(|(name, bytes)| Some((name, bytes?)));
        there.inspect(|(_, bytes)| line.tally.down(bytes.len() as u64)).collect()
    }

    /// Moves what is decided from `open` to `found`.
    fn settle(
        &self,
        at: usize,
        votes: &Votes,
        open: &mut HashMap<Subject, Vec<NodeId>>,
        found: &mut Vec<(NodeId, Known)>,
    ) {
        let line = &self.lines[at];
        for (subject, votes) in votes {
            let Some(nodes) = open.get(subject) else { continue };
            let weighed = line.setup.policy.weigh(votes);
            let name = &self.plan.nodes[nodes[0]].name;
            if weighed.layers.len() > 1 {
                let layers: Vec<String> = weighed.layers.keys().map(|layer| format!("{layer:#}")).collect();
                let message = format!("builders disagree about {name}: {}", layers.join(", "));
                self.refuse(line, &format!("{message} (`isolith trust status` says who says what)"));
            }
            let Some(agreed) = weighed.agreed else { continue };
            let known = Known {
                layer: agreed.claim.layer,
                action: agreed.claim.action,
                how: OutcomeKind::RemoteHit,
                wall_ms: 0,
                saved_ms: agreed.claim.wall_ms,
                remote: Some(line.setup.name.clone()),
            };
            for node in open.remove(subject).unwrap_or_default() {
                line.tally.hit();
                found.push((node, known.clone()));
            }
            lock(&self.away).entry(known.layer).or_insert(Away { line: at, subject: *subject, agreed });
        }
    }

    /// Definition keys of nodes, as subjects.
    pub(super) fn definition(&self, node: NodeId) -> DefinitionKey {
        self.plan.nodes[node].key
    }
}
