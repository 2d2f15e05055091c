//! A base of Debian packages as nodes of a plan (docs/design/debian.md).
//!
//! What the variant brings becomes one layer and is configured by one step; what `include` adds becomes a layer a
//! package, a layer for the directories they share, and another step. So a package more is one more layer and the
//! second step again. All keys follow from the lock file alone.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::plan::{Fetch, From, NodeId, Planned, Shared, Stack, StepNode, Work};
use super::planner::{Planner, document};
use crate::base::debian::{Package, Packages};
use crate::key::{Definition, Network};
use crate::layer::deb::FORM;
use crate::path::GuestPath;
use crate::recipe::{Recipe, Step};

/// What configures packages.
const SCRIPT: &str = include_str!("../base/debian/configure.sh");

/// The time of what maintainer scripts write, and their SOURCE_DATE_EPOCH. Not the recipe's: recipes share bases.
const EPOCH: i64 = 1;

impl Planner<'_> {
    /// The finished stack of the packages that `recipe` starts from.
    pub(super) fn debian(&mut self, recipe: &Recipe, packages: &Packages) -> Arc<Stack> {
        // Without a variant there is nothing to configure before the rest.
        let (first, later) = match packages.base.is_empty() {
            true => (&packages.added, &[][..]),
            false => (&packages.base, &packages.added[..]),
        };
        let mut own = Own {
            recipe: recipe.name.clone(),
            index: self.recipes.len(),
            inputs: BTreeMap::new(),
            steps: Vec::new(),
            nodes: Vec::new(),
        };
        let archives = first.iter().map(|package| package.sha256.clone()).collect();
        let definition = Definition::Packages { archives, form: FORM };
        let name = "the packages of the base".to_string();
        let layer = self.shared(name.clone(), definition, fetch(&name, From::Packages(first.clone())));
        own.inputs.insert(name, layer);
        let unpacked = Arc::new(Stack { below: None, inputs: vec![layer], steps: Vec::new() });
        let configured = self.configure(&mut own, "base", &unpacked);
        let mut stack = Arc::new(Stack { below: None, inputs: vec![layer], steps: vec![configured] });
        if !later.is_empty() {
            let mut inputs: Vec<NodeId> =
                later.iter().map(|package| self.package(&mut own, package)).collect();
            let names = later.iter().map(|package| package.name.clone());
            let keys = inputs.iter().map(|node| self.nodes[*node].key.to_hex()).collect();
            let definition = Definition::Directories { stack: self.keys(&stack), packages: keys, form: FORM };
            let shared = Shared {
                below: stack.clone(),
                installed: layer,
                packages: names.zip(inputs.iter().copied()).collect(),
            };
            let name = "the directories of the packages".to_string();
            inputs.push(self.shared(name, definition, Work::Directories(Box::new(shared))));
            let unpacked = Arc::new(Stack { below: Some(stack.clone()), inputs, steps: Vec::new() });
            let configured = self.configure(&mut own, "include", &unpacked);
            let inputs = unpacked.inputs.clone();
            stack = Arc::new(Stack { below: Some(stack), inputs, steps: vec![configured] });
        }
        self.recipes.push(Planned {
            recipe: Recipe {
                // Not the path of the recipe, which is another one.
                path: PathBuf::from(format!("{} (base)", recipe.path.display())),
                text: String::new(),
                name: "debian".to_string(),
                version: None,
                epoch: EPOCH,
                args: BTreeMap::new(),
                base: recipe.base.clone(),
                sources: BTreeMap::new(),
                deps: BTreeMap::new(),
                steps: own.steps,
                image: Default::default(),
                outputs: BTreeMap::new(),
            },
            lock: None,
            names: Default::default(),
            run: None,
            host: None,
            inputs: own.inputs,
            steps: own.nodes,
            finished: stack.clone(),
            outputs: BTreeMap::new(),
        });
        stack
    }

    /// One package as a layer of its own.
    fn package(&mut self, own: &mut Own, package: &Package) -> NodeId {
        let name = format!("package `{}`", package.name);
        let definition = Definition::Package { archive: package.sha256.clone(), form: FORM };
        let node = self.shared(name.clone(), definition, fetch(&name, From::Package(package.clone())));
        own.inputs.insert(name, node);
        node
    }

    /// The step that configures what has been unpacked last.
    fn configure(&mut self, own: &mut Own, name: &str, stack: &Arc<Stack>) -> NodeId {
        let env = [
            ("DEBIAN_FRONTEND", "noninteractive"),
            ("DEBCONF_NONINTERACTIVE_SEEN", "true"),
            ("LC_ALL", "C.UTF-8"),
        ];
        let step = Step {
            name: name.to_string(),
            argv: ["/bin/sh", "-euc", SCRIPT].map(String::from).to_vec(),
            env: env.map(|(name, value)| (name.to_string(), value.to_string())).into(),
            cwd: GuestPath::root(),
            uid: 0,
            gid: 0,
            network: Network::None,
            after: Vec::new(),
            sources: Vec::new(),
            deps: Vec::new(),
            limits: Default::default(),
            mounts: Vec::new(),
        };
        let document = document(&step, None, self.keys(stack), EPOCH);
        let definition = Definition::Step { document: Box::new(document.clone()) };
        let work = StepNode {
            recipe: own.index,
            step: step.clone(),
            document,
            stack: stack.clone(),
            after: Vec::new(),
        };
        let called = format!("debian:{name}");
        // Another base of the same plan has one of that name; the same step is found by its key.
        let called = if self.is_step(&called) { format!("{}:{called}", own.recipe) } else { called };
        let node = self.shared(called, definition, Work::Step(Box::new(work)));
        own.steps.push(step);
        own.nodes.push(node);
        node
    }
}

/// The recipe that a Debian base amounts to, as it grows.
struct Own {
    /// The name of the recipe that starts from it.
    recipe: String,
    /// Its position in the plan.
    index: usize,
    inputs: BTreeMap<String, NodeId>,
    steps: Vec<Step>,
    nodes: Vec<NodeId>,
}

fn fetch(what: &str, from: From) -> Work {
    Work::Fetch(Box::new(Fetch { what: what.to_string(), from }))
}
