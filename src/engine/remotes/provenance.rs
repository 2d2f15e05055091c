//! How a layer came to be, as SLSA provenance (docs/format.md, "Provenance").

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::engine::plan::{Fetch, From, NodeId, Plan, Planned, Work};
use crate::engine::state::Known;
use crate::key::CONTRACT;
use crate::layer::time::rfc3339;
use crate::recipe::Lock;
use crate::remote::Subject;
use crate::source::Pin;
use crate::trust::{BUILD_TYPE, BuildDefinition, Builder, Claim, Metadata, Provenance, Resource, RunDetails};
use crate::trust::{SecretKey, Statement};

/// More inputs are not listed one by one in the record of a step: the recipe, its lock file and the definition key, which
/// stand for all of them, are.
const MOST_LISTED: usize = 64;

/// The statement about a layer that was made here.
pub fn statement(plan: &Plan, node: NodeId, known: &Known, claim: &Claim, signer: &SecretKey) -> Statement {
    let mut subject = vec![claim.resource(&Subject::Definition(plan.nodes[node].key))];
    subject.extend(known.action.map(|action| claim.resource(&Subject::Action(action))));
    let planned = match plan.step(node) {
        Some(step) => plan.recipes.get(step.recipe),
        None => plan.recipes.iter().find(|planned| {
            planned.inputs.values().chain(planned.outputs.values()).any(|other| *other == node)
        }),
    };
    let mut external = planned.map(parameters).unwrap_or_default();
    let what = if plan.step(node).is_some() { "step" } else { "makes" };
    let name = plan.step(node).map_or(&plan.nodes[node].name, |step| &step.step.name);
    external.insert(what.to_string(), name.clone().into());
    let mut internal = BTreeMap::from([
        ("sandboxContract".to_string(), Value::from(CONTRACT)),
        ("architecture".to_string(), std::env::consts::ARCH.into()),
        ("definitionKey".to_string(), plan.nodes[node].key.to_hex().into()),
    ]);
    if let Some(action) = known.action {
        internal.insert("actionKey".to_string(), action.to_hex().into());
    }
    let mut dependencies = planned.map(files).unwrap_or_default();
    let needs = plan.needs(node);
    if needs.len() <= MOST_LISTED {
        dependencies.extend(needs.iter().map(|need| dependency(plan, *need)));
    }
    dependencies.extend(own(plan, node));
    Statement::new(subject, provenance(external, internal, dependencies, signer, known.wall_ms))
}

/// What is said of a whole plan.
pub fn of_plan(plan: &Plan, signer: &SecretKey) -> Provenance {
    let internal = BTreeMap::from([
        ("sandboxContract".to_string(), Value::from(CONTRACT)),
        ("architecture".to_string(), std::env::consts::ARCH.into()),
    ]);
    let root = plan.root();
    provenance(parameters(root), internal, files(root), signer, 0)
}

/// What of a plan was fetched or laid in, for the provenance of what the recipe leaves.
pub fn inputs(plan: &Plan) -> Vec<Resource> {
    let fetched = (0..plan.nodes.len()).filter(|node| {
        !matches!(plan.nodes[*node].work, Work::Step(_) | Work::Output { .. } | Work::Directories(_))
    });
    fetched.map(|node| own(plan, node).unwrap_or_else(|| dependency(plan, node))).collect()
}

fn provenance(
    external_parameters: BTreeMap<String, Value>,
    internal_parameters: BTreeMap<String, Value>,
    resolved_dependencies: Vec<Resource>,
    signer: &SecretKey,
    wall_ms: u64,
) -> Provenance {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
    Provenance {
        build_definition: BuildDefinition {
            build_type: BUILD_TYPE.to_string(),
            external_parameters,
            internal_parameters,
            resolved_dependencies,
        },
        run_details: RunDetails {
            builder: Builder {
                id: format!("https://isolith.dev/builder/{}", signer.public().writer()),
                version: BTreeMap::from([("isolith".to_string(), env!("CARGO_PKG_VERSION").to_string())]),
            },
            metadata: Metadata {
                started_on: rfc3339(now - (wall_ms / 1000) as i64),
                finished_on: rfc3339(now),
            },
        },
    }
}

/// What the caller said.
fn parameters(planned: &Planned) -> BTreeMap<String, Value> {
    let recipe = &planned.recipe;
    let mut external = BTreeMap::from([("recipe".to_string(), Value::from(recipe.name.clone()))]);
    if let Some(version) = &recipe.version {
        external.insert("version".to_string(), version.clone().into());
    }
    let args = recipe.args.iter().map(|(name, value)| (name.clone(), Value::from(value.clone())));
    external.insert("args".to_string(), args.collect::<serde_json::Map<_, _>>().into());
    external
}

/// The recipe and its lock file. Paths of this machine are nobody's business.
fn files(planned: &Planned) -> Vec<Resource> {
    let named = |what: &str, path: &Path| {
        let bytes = std::fs::read(path).ok()?;
        let hex: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Some(Resource::new(what, "sha256", hex))
    };
    let recipe = &planned.recipe.path;
    [named("recipe", recipe), named("lock file", &Lock::path_of(recipe))].into_iter().flatten().collect()
}

/// A node below, by its definition.
fn dependency(plan: &Plan, node: NodeId) -> Resource {
    let node = &plan.nodes[node];
    match &node.work {
        Work::Input { id, .. } => Resource::new(&node.name, "isolithLayer", id.to_hex()),
        _ => Resource::new(&node.name, "isolithDefinition", node.key.to_hex()),
    }
}

/// What a node itself is fetched from.
fn own(plan: &Plan, node: NodeId) -> Option<Resource> {
    let name = &plan.nodes[node].name;
    let pinned = |pin: &Pin, uri: Option<&String>| Resource {
        uri: uri.filter(|uri| !uri.starts_with("file:")).cloned(),
        ..Resource::new(name, pin.algorithm().name(), pin.hex())
    };
    match &plan.nodes[node].work {
        Work::Tar { digest, .. } => Some(Resource::new(name, "blake3", digest.to_hex())),
        Work::Fetch(fetch) => {
            let Fetch { from, .. } = &**fetch;
            match from {
                From::Base(remote, pin) | From::Archive(remote, pin, ..) | From::File(remote, pin, _) => {
                    Some(pinned(pin, remote.urls.first()))
                }
                From::Git(git, commit, _) => {
                    let uri = git.url.contains("://").then(|| git.url.clone());
                    Some(Resource { uri, ..Resource::new(name, "gitCommit", commit) })
                }
                From::Packages(_) | From::Package(_) | From::SourcePackage(..) => None,
            }
        }
        _ => None,
    }
}
