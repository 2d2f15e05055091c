//! The graph of layers that a recipe asks for: a node for each input, step and output, of the recipe itself
//! and of every recipe it uses.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use crate::base::debian::{Package, SourcePackage};
use crate::digest::{ContentDigest, DefinitionKey, LayerId};
use crate::key::{ActionDocument, Definition, HostView};
use crate::layer::Manifest;
use crate::oci::image::config::RunConfig;
use crate::oci::source::FromImage;
use crate::path::GuestPath;
use crate::recipe::{Git, Recipe, Remote, Step};
use crate::source::{Lay, Pin};

/// Position of a node in [`Plan::nodes`]. What a node needs comes before it.
pub type NodeId = usize;

/// Everything that may have to be made.
pub struct Plan {
    /// Needed ones first.
    pub nodes: Vec<Node>,
    /// The recipes, the one that was asked for last.
    pub recipes: Vec<Planned>,
}

/// One layer to come by.
pub struct Node {
    /// For messages: `step`, `recipe:step`, `source src`.
    pub name: String,
    /// Known before anything runs.
    pub key: DefinitionKey,
    /// What the key is made of.
    pub definition: Definition,
    /// How it is made.
    pub work: Work,
}

/// How a layer is made.
pub enum Work {
    /// Its id is known from its input; it is copied in when something has to see it.
    Input {
        /// The layer.
        id: LayerId,
        /// Its manifest.
        manifest: Arc<Manifest>,
        /// Where the bytes are.
        files: BTreeMap<GuestPath, PathBuf>,
    },
    /// It was made of files of this machine for an earlier build, and is in the store or lost.
    Kept {
        /// The layer.
        id: LayerId,
        /// For messages: "source `src` of `x.toml`".
        what: String,
    },
    /// Fetch, and lay in what came.
    Fetch(Box<Fetch>),
    /// Unpack an archive.
    Tar {
        /// For messages: "the base of `x.toml`, line 4".
        what: String,
        /// The archive.
        path: PathBuf,
        /// Of its bytes.
        digest: ContentDigest,
    },
    /// Find what directories that several packages have in common look like.
    Directories(Box<Shared>),
    /// Get a layer of an image.
    ImageLayer(Arc<FromImage>),
    /// Put right what the layers of an image leave open.
    ImageTop {
        /// The layers, lowest first.
        layers: Vec<NodeId>,
    },
    /// Run a command.
    Step(Box<StepNode>),
    /// Take a subtree of a finished stack.
    Output {
        /// What becomes its root.
        from: GuestPath,
        /// Of what.
        stack: Arc<Stack>,
        /// Time of a root that nothing made.
        epoch: i64,
    },
}

/// Something to fetch and lay in.
pub struct Fetch {
    /// For messages: "source `src` of `x.toml`".
    pub what: String,
    /// What, and as what.
    pub from: From,
}

/// Packages that are stacked each as a layer of its own.
pub struct Shared {
    /// What they are stacked on.
    pub below: Arc<Stack>,
    /// What in that was made of packages.
    pub installed: NodeId,
    /// The packages with their names, lowest first.
    pub packages: Vec<(String, NodeId)>,
}

/// What is fetched, and how it is laid in.
pub enum From {
    /// Debian packages, unpacked together.
    Packages(Vec<Package>),
    /// A Debian package, unpacked on its own.
    Package(Package),
    /// A tar archive as a base.
    Base(Remote, Pin),
    /// An archive whose names lose so many leading components.
    Archive(Remote, Pin, usize, Lay),
    /// A file.
    File(Remote, Pin, Lay),
    /// The tree of a commit.
    Git(Git, String, Lay),
    /// The tree of a source package of Debian.
    SourcePackage(SourcePackage, Lay),
}

/// A step in its place.
pub struct StepNode {
    /// Position in [`Plan::recipes`].
    pub recipe: usize,
    /// What the recipe says.
    pub step: Step,
    /// The action document, with definition keys in its stack.
    pub document: ActionDocument,
    /// What it runs on.
    pub stack: Arc<Stack>,
    /// The steps of the same recipe that come before it, near and far.
    pub after: Vec<NodeId>,
}

/// What a step runs on, or what a recipe leaves.
#[derive(Debug, Default)]
pub struct Stack {
    /// The finished stack of another recipe, below all else.
    pub below: Option<Arc<Stack>>,
    /// Base layer, deps, sources.
    pub inputs: Vec<NodeId>,
    /// Layers of steps, in an order that respects `after`.
    pub steps: Vec<NodeId>,
}

impl Stack {
    /// Every node of it, lowest first.
    pub fn nodes(&self) -> Vec<NodeId> {
        let mut nodes = self.below.as_ref().map(|below| below.nodes()).unwrap_or_default();
        nodes.extend(&self.inputs);
        nodes.extend(&self.steps);
        nodes
    }
}

/// A recipe with its place in the graph.
pub struct Planned {
    /// The recipe.
    pub recipe: Recipe,
    /// The host base, its own or that of the recipe it starts from.
    pub host: Option<HostView>,
    /// The text of its lock file, where that says something that counts.
    pub lock: Option<String>,
    /// How it is called where it is asked for.
    pub names: BTreeSet<PathBuf>,
    /// What a container of the image it starts from runs, its own or that of the recipe it starts from.
    pub run: Option<RunConfig>,
    /// Base, sources and deps, by what they are called in messages.
    pub inputs: BTreeMap<String, NodeId>,
    /// The node of each step, in the order of the recipe.
    pub steps: Vec<NodeId>,
    /// What is left when all is done.
    pub finished: Arc<Stack>,
    /// The node of each output.
    pub outputs: BTreeMap<String, NodeId>,
}

impl Plan {
    /// The steps of all recipes.
    pub fn steps(&self) -> impl Iterator<Item = &StepNode> {
        (0..self.nodes.len()).filter_map(|node| self.step(node))
    }

    /// The recipe that was asked for.
    pub fn root(&self) -> &Planned {
        self.recipes.last().expect("a plan has at least the recipe it was made for")
    }

    /// The step a node is, if it is one.
    pub fn step(&self, node: NodeId) -> Option<&StepNode> {
        match &self.nodes[node].work {
            Work::Step(step) => Some(step),
            _ => None,
        }
    }

    /// What must be there before a node can be made, lowest first.
    pub fn needs(&self, node: NodeId) -> Vec<NodeId> {
        match &self.nodes[node].work {
            Work::Input { .. }
            | Work::Kept { .. }
            | Work::Tar { .. }
            | Work::Fetch(_)
            | Work::ImageLayer(_) => Vec::new(),
            Work::ImageTop { layers } => layers.clone(),
            Work::Directories(shared) => {
                let packages = shared.packages.iter().map(|(_, node)| *node);
                shared.below.nodes().into_iter().chain(packages).collect()
            }
            Work::Step(step) => step.stack.nodes(),
            Work::Output { stack, .. } => stack.nodes(),
        }
    }

    /// The node of a step of the recipe that was asked for.
    pub fn find_step(&self, name: &str) -> crate::Result<NodeId> {
        let root = self.root();
        let at = root.recipe.steps.iter().position(|step| step.name == name);
        at.map(|at| root.steps[at]).ok_or_else(|| {
            let names: Vec<_> = root.recipe.steps.iter().map(|s| format!("`{}`", s.name)).collect();
            crate::Error::usage(format!("`{}` has no step `{name}`", root.recipe.path.display()))
                .hint(format!("its steps are {}", names.join(", ")))
        })
    }

    /// Whether a step of the recipe that was asked for is, or comes after, the named one.
    pub fn is_or_follows(&self, node: NodeId, name: &str) -> bool {
        let Some(step) = self.step(node) else { return false };
        step.recipe + 1 == self.recipes.len()
            && (step.step.name == name
                || step.after.iter().any(|n| self.step(*n).is_some_and(|s| s.step.name == name)))
    }

    /// What a step is called in messages: the recipe is named when it is not the one that was asked for.
    pub fn step_name(recipe: &Recipe, step: &str, is_root: bool) -> String {
        if is_root { step.to_string() } else { format!("{}:{step}", recipe.name) }
    }
}
