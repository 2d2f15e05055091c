//! Finished builds as container images.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::pins::Pinning;
use super::plan::{NodeId, Plan, Work};
use super::stack::{manifest, view};
use super::state::Knowledge;
use super::{Built, Event, Observer, Session};
use crate::digest::LayerId;
use crate::error::{Error, Result};
use crate::layer::{Compression, Entry, Manifest, flatten};
use crate::oci::image::config::{Empty, Healthcheck, History, RunConfig};
use crate::oci::image::{Packer, Part, Parts, Reader, write_archive, write_docker_archive, write_layout};
use crate::oci::source::FromImage;
use crate::path::GuestPath;
use crate::recipe::Recipe;
use crate::store::Store;

/// So much of a command is shown in the history of an image.
const MOST_COMMAND: usize = 1000;

/// How a layer of a finished build came to be.
#[derive(Debug, Clone)]
pub struct Made {
    /// The layer.
    pub layer: LayerId,
    /// Name of the recipe that made it.
    pub recipe: String,
    /// `base`, `source src`, `dep openssl`, `step compile`, `output default`.
    pub what: String,
    /// The action key of a step, the definition key of anything else.
    pub key: String,
    /// The command of a step.
    pub command: Option<String>,
    /// Where a layer of an image came from.
    pub original: Option<Arc<FromImage>>,
}

/// How the layers of the finished stack came to be, lowest first, and those of outputs.
pub(super) fn made(plan: &Plan, knowledge: &Knowledge) -> (Vec<Made>, BTreeMap<String, Made>) {
    let root = plan.root();
    let of = |node: &NodeId| of(plan, knowledge, *node);
    let stack = root.finished.nodes().iter().filter_map(of).collect();
    let outputs = root.outputs.iter().filter_map(|(name, node)| Some((name.clone(), of(node)?)));
    (stack, outputs.collect())
}

fn of(plan: &Plan, knowledge: &Knowledge, node: NodeId) -> Option<Made> {
    let known = knowledge.get(node)?;
    let named = plan.recipes.iter().find_map(|planned| {
        let input = planned.inputs.iter().find(|(_, at)| **at == node).map(|(name, _)| name.clone());
        let output = || planned.outputs.iter().find(|(_, at)| **at == node);
        let named = input.or_else(|| output().map(|(name, _)| format!("output {name}")))?;
        Some((planned.recipe.name.clone(), named))
    });
    let (recipe, what, command) = match &plan.nodes[node].work {
        Work::Step(step) => {
            let recipe = plan.recipes.get(step.recipe).map(|planned| planned.recipe.name.clone());
            let mut command = step.step.argv.join(" ");
            if let Some((cut, _)) = command.char_indices().nth(MOST_COMMAND) {
                command.truncate(cut);
                command.push('…');
            }
            (recipe.unwrap_or_default(), format!("step {}", step.step.name), Some(command))
        }
        _ => {
            let (recipe, what) = named.unwrap_or_else(|| (String::new(), plan.nodes[node].name.clone()));
            (recipe, what, None)
        }
    };
    let key = known.action.map_or_else(|| plan.nodes[node].key.to_hex(), |key| key.to_hex());
    let original = match &plan.nodes[node].work {
        Work::ImageLayer(from) => Some(from.clone()),
        _ => None,
    };
    Some(Made { layer: known.layer, recipe, what, key, command, original })
}

/// How many layers an image has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layers {
    /// One with everything.
    One,
    /// One for each layer of the stack: base, deps, sources and steps.
    #[default]
    Step,
}

/// How an image is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageOptions {
    /// How many layers it has.
    pub layers: Layers,
    /// How they are compressed.
    pub compression: Compression,
}

impl Default for ImageOptions {
    fn default() -> Self {
        Self { layers: Layers::Step, compression: Compression::Zstd }
    }
}

/// The file formats of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageForm {
    /// A directory.
    OciLayout,
    /// An archive of one.
    OciArchive,
    /// What `docker load` takes.
    DockerArchive,
}

/// Where an image is written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageTarget {
    /// As what.
    pub form: ImageForm,
    /// Where.
    pub path: PathBuf,
    /// What it is called there: a tag, or for `docker load` a name and tag. The version of the recipe, or `latest`,
    /// when it is not said.
    pub tag: Option<String>,
}

impl Session {
    /// Writes a finished build as an image: the output of this name, or the stack. Gives its digest.
    pub fn export_image(
        &mut self,
        built: &Built,
        output: Option<&str>,
        target: &ImageTarget,
        options: ImageOptions,
        observer: &dyn Observer,
    ) -> Result<String> {
        let parts = self.image_parts(built, output, options)?;
        let version = built.recipe.version.as_deref().filter(|version| is_tag(version)).unwrap_or("latest");
        let tag = target.tag.clone().unwrap_or_else(|| version.to_string());
        if target.form == ImageForm::DockerArchive {
            let named = tag.contains([':', '/']);
            let name = if named { tag } else { format!("{}:{tag}", built.recipe.name) };
            return self.packing(options, observer, |packer| {
                write_docker_archive(&target.path, &parts, &name, packer)
            });
        }
        self.packing(options, observer, |packer| {
            let image = parts.assemble(packer)?;
            match target.form {
                ImageForm::OciArchive => write_archive(&target.path, &image, &tag, packer)?,
                _ => write_layout(&target.path, &image, &tag, packer)?,
            }
            Ok(image.manifest.digest)
        })
    }

    /// Lets `work` pack layers.
    pub(super) fn packing<T>(
        &self,
        options: ImageOptions,
        observer: &dyn Observer,
        work: impl FnOnce(&Packer) -> Result<T>,
    ) -> Result<T> {
        let pinner = self.pinner(Pinning::Required, observer);
        let original = |from: &FromImage, read: Reader| {
            pinner.images.layer(&from.place, &from.layer.blob, &pinner.watch(&from.what), read)
        };
        let tell = |what: &str, bytes, done| {
            observer.event(Event::Packing { what: what.to_string(), bytes, done });
        };
        let wanted = || !self.cancel.load(Ordering::Relaxed);
        let compression = options.compression;
        work(&Packer { store: &self.store, compression, original: &original, tell: &tell, wanted: &wanted })
    }

    /// What the image of an output, or of the stack, is made of.
    pub(super) fn image_parts(
        &mut self,
        built: &Built,
        output: Option<&str>,
        options: ImageOptions,
    ) -> Result<Parts> {
        let recipe = &built.recipe;
        let layers = match output {
            Some(name) => vec![*built.outputs.get(name).ok_or_else(|| Error::machine("no such output"))?],
            None => built.stack.clone(),
        };
        let ids = self.enter_ids()?;
        for layer in &layers {
            if !self.store.ready(layer, ids)? {
                return Err(Error::machine(format!("layer {layer:#} is lost or damaged"))
                    .hint("build again: what is lost is made anew"));
            }
        }
        let of_output = output.and_then(|name| built.made_outputs.get(name));
        let find = |layer: &LayerId| {
            let made = built.made.iter().rev().find(|made| made.layer == *layer);
            of_output.filter(|made| made.layer == *layer).or(made).cloned().unwrap_or_else(|| Made {
                // What joins branches is made by no node.
                layer: *layer,
                recipe: recipe.name.clone(),
                what: "merge".to_string(),
                key: layer.to_hex(),
                command: None,
                original: None,
            })
        };
        let apart = options.layers == Layers::Step && !layers.is_empty();
        let parts = match apart {
            true => layers
                .iter()
                .map(|layer| stored(&self.store, &find(layer), &built.made))
                .collect::<Result<_>>()?,
            false => vec![flattened(&self.store, recipe, &layers)?],
        };
        // What is not seen in the layers is seen in the history all the same.
        let shown: HashSet<LayerId> = if apart { layers.iter().copied().collect() } else { HashSet::new() };
        let empty = Manifest::empty_id();
        let hidden = built.made.iter().filter(|made| !shown.contains(&made.layer) && made.layer != empty);
        let more = hidden.map(|made| History { empty_layer: true, ..history(made) }).collect();
        let of_layers = layers.iter().map(find).collect::<Vec<_>>();
        Ok(Parts {
            created: recipe.epoch,
            author: recipe.image.author.clone(),
            architecture: architecture().to_string(),
            run: run_config(recipe, &of_layers),
            layers: parts,
            more_history: more,
            annotations: about(recipe),
        })
    }
}

/// True for what may be a tag of an image (OCI distribution specification).
pub fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= 128
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

fn history(made: &Made) -> History {
    let by = match &made.command {
        Some(command) => format!("{}: {command}", made.what),
        None => made.what.clone(),
    };
    let comment = format!("isolith {} {}", made.recipe, &made.key[..made.key.len().min(12)]);
    History { created_by: Some(by), comment: Some(comment), ..History::default() }
}

/// A layer of the store.
fn stored(store: &Store, made: &Made, all: &[Made]) -> Result<Part> {
    let fs = store.layer_fs(&made.layer);
    let annotations = [("recipe", &made.recipe), ("made-by", &made.what), ("key", &made.key)];
    let mut annotations: BTreeMap<String, String> =
        annotations.map(|(name, value)| (format!("dev.isolith.{name}"), value.clone())).into();
    annotations.insert("dev.isolith.layer".to_string(), made.layer.to_hex());
    Ok(Part {
        manifest: manifest(store, &made.layer)?,
        content: Arc::new(move |entry: &Entry| Ok(fs.join(entry.path.as_relative()))),
        name: made.what.clone(),
        history: history(made),
        annotations,
        original: original(made, all),
    })
}

/// All layers in one.
fn flattened(store: &Store, recipe: &Recipe, layers: &[LayerId]) -> Result<Part> {
    let (manifest, sources) = flatten(&view(store, layers, |_| None)?, &GuestPath::root(), recipe.epoch)?;
    let roots: Vec<PathBuf> = layers.iter().map(|layer| store.layer_fs(layer)).collect();
    let id = manifest.id().to_hex();
    let content = move |entry: &Entry| match sources.get(&entry.path) {
        Some(source) => Ok(roots[source.layer].join(source.path.as_relative())),
        None => Err(Error::machine(format!("nothing is known of the bytes of `{}`", entry.path))),
    };
    let comment = format!("isolith {} {}", recipe.name, &id[..12]);
    let by = format!("the finished stack of {}", recipe.name);
    Ok(Part {
        manifest: Arc::new(manifest),
        content: Arc::new(content),
        name: "the finished stack".to_string(),
        history: History { created_by: Some(by), comment: Some(comment), ..History::default() },
        annotations: [
            ("dev.isolith.recipe".to_string(), recipe.name.clone()),
            ("dev.isolith.layer".to_string(), id),
        ]
        .into(),
        original: None,
    })
}

/// The archive that a layer goes out with as it came in. Where two archives of different bytes are one layer, because
/// they differ in what layers do not keep or in which directories they leave open, it is packed anew.
fn original(made: &Made, all: &[Made]) -> Option<Arc<FromImage>> {
    let same = all.iter().filter(|other| other.layer == made.layer);
    let originals: Option<Vec<_>> = same.map(|other| other.original.as_ref()).collect();
    let originals = originals?;
    let first = originals.first()?;
    let one = originals.iter().all(|other| other.layer.diff_id == first.layer.diff_id);
    one.then(|| Arc::clone(first))
}

/// Of which recipe an image is.
fn about(recipe: &Recipe) -> BTreeMap<String, String> {
    let mut about: BTreeMap<String, String> =
        [("dev.isolith.recipe".to_string(), recipe.name.clone())].into();
    if let Some(version) = &recipe.version {
        about.insert("dev.isolith.version".to_string(), version.clone());
    }
    about
}

/// `[image]`, and labels that say what made the image.
fn run_config(recipe: &Recipe, layers: &[Made]) -> RunConfig {
    let image = recipe.image.clone();
    let mut labels = about(recipe);
    let list: Vec<_> = layers
        .iter()
        .map(|made| serde_json::json!({ "made-by": made.what, "recipe": made.recipe, "key": made.key, "layer": made.layer.to_hex() }))
        .collect();
    labels.insert("dev.isolith.layers".to_string(), serde_json::Value::from(list).to_string());
    labels.extend(image.labels);
    let seconds = |seconds: u64| seconds.saturating_mul(1_000_000_000);
    RunConfig {
        user: image.user.unwrap_or_default(),
        exposed_ports: image.ports.into_iter().map(|port| (port, Empty {})).collect(),
        env: image.env.iter().map(|(name, value)| format!("{name}={value}")).collect(),
        entrypoint: image.entrypoint.unwrap_or_default(),
        cmd: image.cmd.unwrap_or_default(),
        volumes: image.volumes.iter().map(|path| (path.to_string(), Empty {})).collect(),
        working_dir: image.workdir.map(|path| path.to_string()).unwrap_or_default(),
        labels,
        stop_signal: image.stop_signal.unwrap_or_default(),
        healthcheck: image.healthcheck.map(|check| Healthcheck {
            test: check.test,
            interval: check.interval.map(seconds),
            timeout: check.timeout.map(seconds),
            start_period: check.start_period.map(seconds),
            retries: check.retries,
        }),
    }
}

/// The machine architecture as Go calls it, which is what images say.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "powerpc64" => "ppc64",
        "loongarch64" => "loong64",
        other => other,
    }
}

#[cfg(feature = "net")]
impl Session {
    /// Pushes a finished build to a registry, under the tag of `to`. Gives the digest of the image.
    pub fn push_image(
        &mut self,
        built: &Built,
        output: Option<&str>,
        to: &crate::oci::Reference,
        credentials: crate::oci::registry::Credentials,
        options: ImageOptions,
        observer: &dyn Observer,
    ) -> Result<String> {
        use crate::oci::image::{Told, push};
        use crate::oci::registry::Registry;
        let parts = self.image_parts(built, output, options)?;
        let registry = Registry::new(self.inputs.access.clone(), Arc::new(credentials));
        let tell = |what: &str, progress: crate::net::Progress| {
            let crate::net::Progress { url, bytes, total, rate, done } = progress;
            let (what, total) = (what.to_string(), total.unwrap_or(bytes));
            observer.event(Event::Uploading { what, url, bytes, total, rate, done });
        };
        let cancelled = || self.cancel.load(Ordering::Relaxed);
        let told = Told { tell: &tell, cancelled: &cancelled };
        self.packing(options, observer, |packer| {
            let image = parts.assemble(packer)?;
            push(&registry, to, &image, packer, &told)?;
            Ok(image.manifest.digest)
        })
    }
}
