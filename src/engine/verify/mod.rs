//! Is a recipe reproducible? Builds it again under changed conditions and compares the layers of all steps.
//!
//! Every round is another isolith process with a store of its own, so nothing that is stored is touched and
//! nothing that is stored can hide a difference. This process stays single-threaded and outside of any id
//! mapping until all rounds are built, because it starts them.

mod area;
mod arrange;
mod bisect;
mod blobs;
mod cause;
mod compare;
mod diffoscope;
mod report;
mod round;
mod search;
mod setting;
mod space;
mod variation;
mod words;

use std::ffi::OsString;
use std::path::PathBuf;

use super::plan::Plan;
use super::planner::plan;
use super::session::Silent;
use super::state::look_up;
use super::{Request, Session, What, demand};
use crate::digest::LayerId;
use crate::error::{Class, Error, Result};
use crate::layer::IdShift;

use area::Area;
use blobs::Blobs;
pub use cause::Cause;
pub use report::{Bisect, Choice, Path, Round, Step, Verification};
use round::{Job, Outcome};
use search::Search;
pub use setting::{Outside, Setting};
pub use variation::{Machine, Variation};

/// What to verify, and how.
pub struct VerifyRequest {
    /// The recipe, its values, the step to stop at, and steps at once. Cache, secrets and conditions do not count.
    pub request: Request,
    /// Arguments for the processes that build: the values and secrets of the request as flags.
    pub pass: Vec<OsString>,
    /// How many builds, at least 2 when the reference has to be one of them.
    pub rounds: usize,
    /// The variations that were asked for; none: all that apply.
    pub vary: Option<Vec<Variation>>,
    /// Find the smallest set of variations that makes the first differing step differ.
    pub bisect: bool,
    /// Where a report will be written; diffoscope's pages are put there, if it is installed.
    pub report: Option<PathBuf>,
}

/// How far it is.
pub enum Progress<'a> {
    /// All steps are in the store, which is the reference.
    Stored(usize),
    /// A round starts; without variations it is the reference.
    Round(usize, usize, &'a [Variation]),
    /// A round is built.
    Built(&'a Round),
    /// The search for the smallest set starts for this step.
    Bisect(&'a str),
    /// A set was tried, and whether the step differed.
    Tried(&'a [Variation], bool),
}

/// A build that is kept until it has been compared.
struct Kept {
    outcome: Outcome,
    area: Area,
}

/// Where the layers of the reference are.
struct Reference {
    steps: Vec<(String, LayerId)>,
    /// None: in the session's own store.
    store: Option<PathBuf>,
}

impl Reference {
    fn layer(&self, step: &str) -> Option<LayerId> {
        self.steps.iter().find(|(name, _)| name == step).map(|(_, layer)| *layer)
    }
}

impl Session {
    /// Verifies a recipe.
    ///
    /// # Errors
    /// A variation that was asked for and does not apply (class `Usage`), a reference that cannot be built
    /// (class `Step`), and whatever else stops a build.
    pub fn verify(
        &mut self,
        request: &VerifyRequest,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Verification> {
        area::sweep(&variation::PLACES.map(std::path::Path::new));
        let pinner = self.pinner(request.request.pinning(), &Silent);
        if request.request.what != What::Recipe {
            return Err(Error::usage("only a recipe as it is now can be verified").hint(
                "build the earlier one again, without what is cached: isolith build --no-cache RECIPE@N",
            ));
        }
        let planned = plan(&pinner, &request.request.recipe, &request.request.args)?;
        let mut machine = Machine::look(self.store.root());
        if let Ok(user) = machine.other_user {
            machine.other_user = self.can_read(request, &machine, user);
        }
        if let Some(step) = planned.steps().find(|step| (step.step.uid, step.step.gid) != (0, 0)) {
            machine.one_id = Err(format!("step `{}` runs as another user than 0:0", step.step.name));
        } else if let Ok(Some(user)) = machine.one_id {
            machine.one_id = self.can_read(request, &machine, user).map(Some);
        }
        let blobs = Blobs::fetch(&planned, &pinner)?;
        let choices = choose(request.vary.as_deref(), &machine)?;
        let mut kept = Vec::new();
        let result = self.verify_in((request, &blobs), &planned, &machine, choices, &mut kept, progress);
        // What is left belongs to ids of sandboxes. Their mapping is entered already unless something went wrong.
        let entered = if kept.is_empty() { Ok(IdShift::by(0)) } else { self.enter_ids() };
        let removed: Result<Vec<()>> = kept.into_iter().map(|kept| kept.area.remove()).collect();
        let found = result?;
        entered?;
        removed?;
        Ok(found)
    }

    fn verify_in(
        &mut self,
        (request, blobs): (&VerifyRequest, &Blobs),
        planned: &Plan,
        machine: &Machine,
        mut choices: Vec<Choice>,
        kept: &mut Vec<Kept>,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Verification> {
        let until = request.request.until.as_deref();
        if let Some(step) = until {
            planned.find_step(step)?;
        }
        let cancel = self.cancel.clone();
        let recipe = &request.request.recipe;
        let job = Job { recipe, until, pass: &request.pass, blobs, cancel: &cancel };
        let mut rounds = Vec::new();
        let stored = self.stored(planned, until)?;
        let total = if stored.is_some() { request.rounds.max(1) } else { request.rounds.max(2) };
        let reference = match stored {
            Some(steps) => {
                progress(Progress::Stored(steps.len()));
                Reference { steps, store: None }
            }
            None => {
                progress(Progress::Round(1, total, &[]));
                let built = self.round(request, &job, &[], 0, machine, kept)?;
                if let Some((step, tail)) = &built.outcome.failure {
                    return Err(Error::new(
                        Class::Step,
                        format!("step `{step}` fails, so nothing can be verified"),
                    )
                    .because(tail.join("\n"))
                    .hint("build the recipe first"));
                }
                let wall_ms = built.outcome.wall_ms;
                let round = Round { number: 1, variations: vec![], differing: vec![], failed: None, wall_ms };
                progress(Progress::Built(&round));
                rounds.push(round);
                Reference { steps: built.outcome.steps.clone(), store: Some(built.area.store().to_owned()) }
            }
        };
        space::check(&self.store, planned, &reference, machine, &mut choices)?;
        let on: Vec<Variation> =
            choices.iter().filter(|choice| choice.applied).map(|choice| choice.name).collect();
        let mut numbered: Vec<(usize, usize)> = Vec::new();
        for number in rounds.len() + 1..=total {
            let turn = numbered.len();
            progress(Progress::Round(number, total, &on));
            let built = self.round(request, &job, &on, turn, machine, kept)?;
            let differing = differing(&reference.steps, &built.outcome);
            let failed = built.outcome.failure.as_ref().map(|(step, _)| step.clone());
            let wall_ms = built.outcome.wall_ms;
            let round = Round { number, variations: on.clone(), differing, failed, wall_ms };
            progress(Progress::Built(&round));
            rounds.push(round);
            numbered.push((number, kept.len() - 1));
        }
        let first = reference.steps.iter().find_map(|(step, _)| {
            let at = numbered.iter().position(|(number, _)| rounds[*number - 1].differing.contains(step));
            at.map(|turn| (step.clone(), turn))
        });
        let bisect = match &first {
            Some((step, turn)) if request.bisect => {
                progress(Progress::Bisect(step));
                let built = &kept[numbered[*turn].1];
                let search =
                    Search { session: self, request, job, machine, reference: &reference, turn: *turn, step };
                search.run(&on, built, progress)?
            }
            _ => Vec::new(),
        };
        let steps = if first.is_some() {
            let ids = self.enter_ids()?;
            let builds: Vec<_> = numbered.iter().map(|(number, at)| (*number, &kept[*at])).collect();
            let known = compare::Known { on: &on, bisect: &bisect, cpus: machine.cpus };
            compare::steps(&self.store, ids, planned, &reference, &builds, &known, request.report.as_deref())?
        } else {
            compare::identical(&reference)
        };
        Ok(Verification {
            recipe: planned.root().recipe.name.clone(),
            step: until.map(str::to_owned),
            identical: first.is_none(),
            stored_reference: reference.store.is_none(),
            variations: choices,
            rounds,
            steps,
            bisect,
        })
    }

    /// The user again, when it can read the recipe and everything that belongs to it; else why not.
    fn can_read(
        &self,
        request: &VerifyRequest,
        machine: &Machine,
        user: (u32, u32),
    ) -> std::result::Result<(u32, u32), String> {
        let arrangement = arrange::arrange(&[Variation::User], 0, 1, machine);
        let area = Area::new(&self.store, &arrangement).map_err(|e| e.to_string())?;
        let refused = round::explain_as(user, &request.request.recipe, &request.pass, area.store());
        area.remove_early().map_err(|e| e.to_string())?;
        match refused {
            None => Ok(user),
            Some(why) => Err(format!("user {} cannot read what is built: {why}", user.0)),
        }
    }

    /// The layers of all steps, when the store has them.
    fn stored(&self, planned: &Plan, until: Option<&str>) -> Result<Option<Vec<(String, LayerId)>>> {
        let until = until.map(|step| planned.find_step(step)).transpose()?;
        let mut wanted = vec![false; planned.nodes.len()];
        for goal in demand::goals(planned, until) {
            wanted[goal] = true;
        }
        for node in (0..planned.nodes.len()).rev().filter(|node| wanted[*node]).collect::<Vec<_>>() {
            planned.needs(node).into_iter().for_each(|need| wanted[need] = true);
        }
        let mut steps = Vec::new();
        for node in (0..planned.nodes.len()).filter(|node| wanted[*node] && planned.step(*node).is_some()) {
            match look_up(&self.store, planned, node)? {
                Some(known) => steps.push((planned.nodes[node].name.clone(), known.layer)),
                None => return Ok(None),
            }
        }
        Ok(Some(steps))
    }

    /// Builds one round and keeps it.
    fn round<'k>(
        &self,
        request: &VerifyRequest,
        job: &Job<'_>,
        variations: &[Variation],
        turn: usize,
        machine: &Machine,
        kept: &'k mut Vec<Kept>,
    ) -> Result<&'k Kept> {
        let arrangement = arrange::arrange(variations, turn, request.request.jobs, machine);
        let area = Area::new(&self.store, &arrangement)?;
        // Kept before it runs, so that it is removed whatever happens.
        let empty = Outcome { steps: Vec::new(), failure: None, wall_ms: 0 };
        kept.push(Kept { outcome: empty, area });
        let at = kept.len() - 1;
        let cancelled = || job.cancel.load(std::sync::atomic::Ordering::Relaxed);
        job.blobs.share(&self.store, &kept[at].area, arrangement.setting.outside.user, &cancelled)?;
        kept[at].outcome = job.run(&arrangement, &kept[at].area)?;
        job.blobs.built(&kept[at].area);
        Ok(&kept[at])
    }
}

/// The steps whose layer is not that of the reference.
fn differing(reference: &[(String, LayerId)], built: &Outcome) -> Vec<String> {
    let other = reference.iter().filter(|(step, layer)| built.layer(step) != Some(*layer));
    other.map(|(step, _)| step.clone()).collect()
}

/// Which variations are on. One that was asked for by name has to apply.
fn choose(wanted: Option<&[Variation]>, machine: &Machine) -> Result<Vec<Choice>> {
    Variation::ALL
        .into_iter()
        .map(|variation| {
            let asked = wanted.map(|wanted| wanted.contains(&variation));
            let why_not = match (asked, variation.why_not(machine)) {
                (Some(false), _) => Some("not asked for".to_string()),
                (Some(true), Some(why)) => {
                    return Err(Error::usage(format!(
                        "the variation `{}` does not apply here",
                        variation.name()
                    ))
                    .because(why)
                    .hint("`isolith verify --list` shows which ones do"));
                }
                (_, why) => why,
            };
            Ok(Choice { name: variation, what: variation.describe(), applied: why_not.is_none(), why_not })
        })
        .collect()
}

/// Every variation, and why it does not apply here if so; the store is at `store`.
pub fn list(store: &std::path::Path) -> Vec<Choice> {
    // Nothing was asked for, so nothing can be refused.
    choose(None, &Machine::look(store)).unwrap_or_default()
}
