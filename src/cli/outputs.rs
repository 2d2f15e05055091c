//! Which outputs of a finished build an export writes, and where each goes.

use std::path::Path;

use crate::digest::LayerId;
use crate::engine::{Built, Target};
use crate::error::{Error, Result};

/// One tree to be written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The output; none for the whole stack.
    pub name: Option<String>,
    pub layers: Vec<LayerId>,
    pub target: Target,
}

/// The output called `name`; without a name `default`, or the only one, or the whole stack of a recipe
/// that has none, or each into a directory of its own name.
pub(super) fn choose(built: &Built, name: Option<&str>, target: &Target) -> Result<Vec<Wanted>> {
    let one = |name: &str, layer: LayerId, target: Target| Wanted {
        name: Some(name.to_string()),
        layers: vec![layer],
        target,
    };
    // An image is of what the recipe says, unless the command line says something else.
    let name = match target {
        Target::Image(_) => name.or(built.recipe.image.output.as_deref()),
        _ => name,
    };
    let names = || built.outputs.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if let Some(name) = name {
        let layer = built.outputs.get(name).ok_or_else(|| {
            let error = Error::usage(format!("recipe `{}` has no output `{name}`", built.recipe.name));
            if built.outputs.is_empty() {
                error.hint("it has no [outputs]; without --name the whole stack is exported")
            } else {
                error.hint(format!("its outputs: {}", names()))
            }
        })?;
        return Ok(vec![one(name, *layer, target.clone())]);
    }
    if built.outputs.is_empty() {
        return Ok(vec![Wanted { name: None, layers: built.stack.clone(), target: target.clone() }]);
    }
    if let Some(layer) = built.outputs.get("default") {
        return Ok(vec![one("default", *layer, target.clone())]);
    }
    if built.outputs.len() == 1 {
        return Ok(built.outputs.iter().map(|(name, layer)| one(name, *layer, target.clone())).collect());
    }
    match target {
        Target::Dir(dir) => {
            let below = |name: &str| Target::Dir(Path::new(dir).join(name));
            Ok(built.outputs.iter().map(|(name, layer)| one(name, *layer, below(name))).collect())
        }
        Target::Tar(_) | Target::Image(_) => Err(Error::usage(format!(
            "recipe `{}` has several outputs and `{}` takes one",
            built.recipe.name,
            super::target::path(target).display()
        ))
        .hint(format!("choose with isolith export … --name, one of {}", names()))),
    }
}

/// The finished stack, whatever outputs there are.
pub(super) fn stack(built: &Built, target: &Target) -> Vec<Wanted> {
    vec![Wanted { name: None, layers: built.stack.clone(), target: target.clone() }]
}
