//! Which claims are believed.

use std::collections::BTreeMap;

use super::{Claim, PublicKey};
use crate::digest::LayerId;
use crate::error::{Error, Result};
use crate::remote::{RecordKey, Subject};

/// Whose records count, and how many of them have to agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    keys: Vec<PublicKey>,
    threshold: usize,
}

/// What the holder of a trusted key says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vote {
    /// Who.
    pub key: PublicKey,
    /// What.
    pub claim: Claim,
}

/// A claim that enough trusted keys agree on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreed {
    /// The claim; where those who agree on the layer differ in how it travels, that of the first key of the policy.
    pub claim: Claim,
    /// Who agrees on its layer, in the order of the policy.
    pub by: Vec<PublicKey>,
}

/// What came of weighing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weighed {
    /// What is believed, if anything.
    pub agreed: Option<Agreed>,
    /// Every layer that a trusted key speaks for; more than one is a disagreement.
    pub layers: BTreeMap<LayerId, Vec<PublicKey>>,
}

impl Policy {
    /// A policy.
    ///
    /// # Errors
    /// A threshold of 0, or of more than there are different keys (class `Usage`).
    pub fn new(keys: impl IntoIterator<Item = PublicKey>, threshold: usize) -> Result<Policy> {
        let mut distinct: Vec<PublicKey> = Vec::new();
        for key in keys {
            if !distinct.contains(&key) {
                distinct.push(key);
            }
        }
        let count = distinct.len();
        if threshold == 0 || (threshold > count && threshold > 1) {
            return Err(Error::usage(format!(
                "`threshold` is {threshold}, and {count} different keys are trusted: nothing could ever be used"
            ))
            .hint("list more keys in `trusted-keys`, or choose a threshold from 1 to their number"));
        }
        Ok(Policy { keys: distinct, threshold })
    }

    /// The trusted keys, each once.
    pub fn keys(&self) -> &[PublicKey] {
        &self.keys
    }

    /// How many have to agree.
    pub fn threshold(&self) -> usize {
        self.threshold
    }

    /// The records to ask for about `subject`: one of each trusted key, so nobody else's is ever looked at.
    pub fn records(&self, subject: Subject) -> impl Iterator<Item = (RecordKey, PublicKey)> {
        self.keys.iter().map(move |key| (RecordKey { subject, writer: key.writer() }, *key))
    }

    /// Weighs what was said about one thing. Each key counts once, and only keys of the policy do. Where several
    /// layers reach the threshold, the one that more agree on is believed, then that of the first key.
    pub fn weigh(&self, votes: &[Vote]) -> Weighed {
        let mut layers: BTreeMap<LayerId, Vec<PublicKey>> = BTreeMap::new();
        let said = |key: &PublicKey| votes.iter().find(|vote| vote.key == *key);
        for vote in self.keys.iter().filter_map(said) {
            layers.entry(vote.claim.layer).or_default().push(vote.key);
        }
        let place = |by: &[PublicKey]| self.keys.iter().position(|key| by.first() == Some(key));
        let enough = layers.iter().filter(|(_, by)| by.len() >= self.threshold);
        let best = enough.min_by_key(|(_, by)| (std::cmp::Reverse(by.len()), place(by)));
        let agreed =
            best.and_then(|(_, by)| Some(Agreed { claim: said(by.first()?)?.claim.clone(), by: by.clone() }));
        Weighed { agreed, layers }
    }
}
