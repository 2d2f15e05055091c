//! What the user writes, validated into a typed model with spans.

mod model;

pub use model::{Base, Dep, Mount, Output, Recipe, Source, Step};
