//! Images, with programs that nobody here wrote on the other side: `docker-registry`, `skopeo`, `umoci`, `buildah`.

#[path = "../common/mod.rs"]
mod common;

mod bases;
#[cfg(feature = "net")]
mod client;
mod documents;
mod make;
mod originals;
mod out;
mod partial;
mod policy;
mod registries;
mod runs;
mod streaming;
