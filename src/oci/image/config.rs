//! The JSON documents of an image (OCI image specification 1.1: config.md, manifest.md, image-layout.md).
//!
//! Written with types of our own, since those of the `oci-spec` crate keep labels and annotations in hash maps,
//! whose order differs from run to run, and have no health check.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `application/vnd.oci.image.config.v1+json`.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// `application/vnd.oci.image.manifest.v1+json`.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// `application/vnd.oci.image.index.v1+json`.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What a container of the image starts with: the member `config`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RunConfig {
    /// User, with or without a group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `8080/tcp`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null")]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// `NAME=value`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null")]
    pub env: Vec<String>,
    /// The program, and arguments that are always there.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null")]
    pub entrypoint: Vec<String>,
    /// Arguments, or the program when there is no entrypoint.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null")]
    pub cmd: Vec<String>,
    /// Directories that live outside the image.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null")]
    pub volumes: BTreeMap<String, Empty>,
    /// Working directory.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null")]
    pub labels: BTreeMap<String, String>,
    /// What ends it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Docker's health check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
}

/// Reads `null` as what is empty, as Go writes it.
fn null<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// `{}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// An extension of Docker's; times are in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `CMD` and a program, `CMD-SHELL` and a text, or `NONE`.
    pub test: Vec<String>,
    /// Between two of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<u64>,
    /// For each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
    /// In the beginning failures do not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_period: Option<u64>,
    /// How many have to fail in a row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
}

/// How a layer came to be, or something that made none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// By which command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// By whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Anything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// It made no layer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

/// The configuration of an image.
#[derive(Debug, Clone, Serialize)]
pub struct Config {
    /// When it was made (RFC 3339).
    pub created: String,
    /// Who made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// As Go calls it: `amd64`.
    pub architecture: String,
    /// `linux`.
    pub os: String,
    /// What a container starts with.
    pub config: RunConfig,
    /// Its layers.
    pub rootfs: RootFs,
    /// How they came to be, lowest first.
    pub history: Vec<History>,
}

/// The layers by what they are uncompressed.
#[derive(Debug, Clone, Serialize)]
pub struct RootFs {
    /// `layers`.
    pub r#type: &'static str,
    /// SHA-256 of the plain archives.
    pub diff_ids: Vec<String>,
}

/// Refers to a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refers {
    /// What it is.
    pub media_type: String,
    /// `sha256:<hex>`.
    pub digest: String,
    /// Bytes.
    pub size: u64,
    /// What is known of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A manifest.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageManifest {
    /// 2.
    pub schema_version: u32,
    /// [`MANIFEST`].
    pub media_type: &'static str,
    /// The configuration.
    pub config: Refers,
    /// The layers, lowest first.
    pub layers: Vec<Refers>,
    /// What is known of it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}
