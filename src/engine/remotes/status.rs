//! Who says what about the steps of a recipe, and where they disagree.

use std::collections::BTreeMap;

use serde::Serialize;

use super::download::Away;
use super::{Sharing, lock, travels};
use crate::digest::{DefinitionKey, LayerId};
use crate::engine::plan::NodeId;
use crate::engine::{Observer, Request, Session, demand};
use crate::error::{Error, Result};
use crate::remote::Subject;
use crate::trust::{self, Agreed, Vote};

/// What is said about one step or output.
#[derive(Debug, Clone, Serialize)]
pub struct Opinion {
    /// What it is called in the plan.
    pub name: String,
    /// Its definition key.
    pub definition: DefinitionKey,
    /// Every layer that somebody speaks for; more than one is a disagreement.
    pub layers: Vec<Said>,
    /// The layer that each remote's policy takes; none where not enough agree.
    pub taken: BTreeMap<String, Option<LayerId>>,
    /// Records that do not count, and why.
    pub refused: Vec<String>,
}

/// A layer and who speaks for it.
#[derive(Debug, Clone, Serialize)]
pub struct Said {
    /// The layer.
    pub layer: LayerId,
    /// Who.
    pub by: Vec<Voice>,
}

/// Somebody who says something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Voice {
    /// The remote that it is said in; none for this machine's own store.
    pub remote: Option<String>,
    /// The key that it is signed with.
    pub key: Option<String>,
}

impl Session {
    /// Asks every remote about every step and output of a recipe. The layers that builders disagree about are brought
    /// into the store, so that they can be compared.
    pub fn opinions(&mut self, request: &Request, observer: &dyn Observer) -> Result<Vec<Opinion>> {
        let plan = self.plan(request, request.pinning(), observer)?;
        self.prepare()?;
        let (store, remotes, cancel) = (self.store.clone(), self.remotes.clone(), self.cancel.clone());
        let sharing = Sharing::new(&remotes, (&store, &plan), observer, &cancel);
        if !sharing.reads() {
            return Err(Error::usage("there is no remote to ask whose records would count")
                .hint("name one with --remote or in the settings, and trust a key (`trusted-keys`)"));
        }
        let goals = demand::goals(&plan, None);
        let opinions = sharing.opinions(&goals)?;
        let differing: Vec<LayerId> = opinions
            .iter()
            .filter(|opinion| opinion.layers.len() > 1)
            .flat_map(|opinion| opinion.layers.iter().map(|said| said.layer))
            .collect();
        let most = self.inputs.unpack.bytes;
        let (_, _, ids) = self.parts()?;
        sharing.bring(&differing, ids, most);
        Ok(opinions)
    }
}

impl Sharing<'_> {
    fn opinions(&self, goals: &[NodeId]) -> Result<Vec<Opinion>> {
        let nodes: Vec<NodeId> = goals.iter().copied().filter(|node| travels(self.plan, *node)).collect();
        let subjects: Vec<Subject> =
            nodes.iter().map(|node| Subject::Definition(self.plan.nodes[*node].key)).collect();
        let mut opinions: Vec<Opinion> = Vec::new();
        for node in &nodes {
            let key = self.plan.nodes[*node].key;
            let mut layers = Vec::new();
            if let Some(record) = self.store.definition(&key)?.filter(|record| record.from.is_none())
                && let [layer] = record.layers[..]
            {
                layers.push(Said { layer, by: vec![Voice { remote: None, key: None }] });
            }
            let name = self.plan.nodes[*node].name.clone();
            opinions.push(Opinion {
                name,
                definition: key,
                layers,
                taken: BTreeMap::new(),
                refused: Vec::new(),
            });
        }
        for (at, line) in self.lines.iter().enumerate().filter(|(_, line)| line.reads()) {
            let name = &line.setup.name;
            let wanted = subjects.iter().flat_map(|subject| line.setup.policy.records(*subject)).collect();
            let mut votes: BTreeMap<Subject, Vec<Vote>> = BTreeMap::new();
            for ((record, key), bytes) in self.records(line, wanted) {
                match trust::read(&bytes, &record, &key) {
                    Ok(claims) => {
                        for (subject, claim) in claims {
                            votes.entry(subject).or_default().push(Vote { key, claim });
                        }
                    }
                    Err(why) => {
                        let about = subjects.iter().position(|subject| *subject == record.subject);
                        if let Some(opinion) = about.and_then(|at| opinions.get_mut(at)) {
                            opinion.refused.push(format!("remote `{name}`: the record {record}: {why}"));
                        }
                    }
                }
            }
            for (subject, opinion) in subjects.iter().zip(&mut opinions) {
                let Some(votes) = votes.get(subject) else { continue };
                let weighed = line.setup.policy.weigh(votes);
                opinion.taken.insert(name.clone(), weighed.agreed.map(|agreed| agreed.claim.layer));
                for vote in votes {
                    let voice = Voice { remote: Some(name.clone()), key: Some(vote.key.to_string()) };
                    let layer = vote.claim.layer;
                    match opinion.layers.iter_mut().find(|said| said.layer == layer) {
                        Some(said) => said.by.push(voice),
                        None => opinion.layers.push(Said { layer, by: vec![voice] }),
                    }
                    let agreed = Agreed { claim: vote.claim.clone(), by: vec![vote.key] };
                    lock(&self.away).entry(layer).or_insert(Away { line: at, subject: *subject, agreed });
                }
            }
        }
        Ok(opinions)
    }
}
