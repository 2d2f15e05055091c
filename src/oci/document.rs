//! What stands behind the name of an image: the manifest of one image, or an index of several.

use oci_spec::image::{ImageIndex, ImageManifest, MediaType};
use serde::Deserialize;

/// The largest document that is read, in bytes; registries take none that are larger.
pub const MOST_MANIFEST: u64 = 4 << 20;

/// The media types that are understood, for `Accept`.
pub const MANIFEST_TYPES: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// A manifest or an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// One image.
    Image(Box<ImageManifest>),
    /// Several, for several platforms.
    Index(Box<ImageIndex>),
}

/// What tells the kinds apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outline {
    schema_version: Option<u32>,
    media_type: Option<String>,
    layers: Option<serde::de::IgnoredAny>,
    manifests: Option<serde::de::IgnoredAny>,
    #[serde(rename = "fsLayers")]
    fs_layers: Option<serde::de::IgnoredAny>,
}

impl Document {
    /// Reads a document. `media_type` is what a registry or an index says it is; where it says something itself, that
    /// must be the same. One that could be read as both kinds is refused: two programs would see two images.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(bytes: &[u8], media_type: Option<&str>) -> Result<Document, String> {
        if bytes.len() as u64 > MOST_MANIFEST {
            return Err(format!("it has more than {MOST_MANIFEST} bytes"));
        }
        let wrong = |why: serde_json::Error| format!("it is not a manifest: {why}");
        let outline: Outline = serde_json::from_slice(bytes).map_err(wrong)?;
        if outline.schema_version == Some(1) || outline.fs_layers.is_some() {
            return Err(
                "it is of Docker's old schema 1, which has no digests to rely on: push the image anew \
                        with any program of today"
                    .to_string(),
            );
        }
        if outline.schema_version != Some(2) {
            return Err("it does not have `\"schemaVersion\": 2`".to_string());
        }
        if outline.layers.is_some() && outline.manifests.is_some() {
            return Err("it has both `layers` and `manifests`".to_string());
        }
        // Registries may add parameters, or say what they say of everything.
        let said = media_type.map(|said| said.split(';').next().unwrap_or_default().trim());
        let said = said.filter(|said| MANIFEST_TYPES.contains(said));
        let own = outline.media_type.as_deref();
        if let (Some(own), Some(said)) = (own, said)
            && own != said
        {
            return Err(format!("it is served as `{said}` and calls itself `{own}`"));
        }
        let is_index = match own.or(said) {
            Some(known) if known == MANIFEST_TYPES[0] || known == MANIFEST_TYPES[1] => true,
            Some(known) if known == MANIFEST_TYPES[2] || known == MANIFEST_TYPES[3] => false,
            Some(other) => return Err(format!("it is of the unknown kind `{other}`")),
            None => outline.manifests.is_some(),
        };
        match is_index {
            true => serde_json::from_slice(bytes).map(Box::new).map(Document::Index).map_err(wrong),
            false => serde_json::from_slice(bytes).map(Box::new).map(Document::Image).map_err(wrong),
        }
    }

    /// The media type to push it as.
    pub fn media_type(&self) -> MediaType {
        match self {
            Document::Image(image) => image.media_type().clone().unwrap_or(MediaType::ImageManifest),
            Document::Index(index) => index.media_type().clone().unwrap_or(MediaType::ImageIndex),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEX: &str = r#"{"schemaVersion":2,"manifests":[]}"#;

    fn image(extra: &str) -> String {
        let digest = format!("sha256:{}", "0".repeat(64));
        let part = |kind: &str| format!(r#"{{"mediaType":"{kind}","digest":"{digest}","size":1}}"#);
        let (config, layer) = (part("application/vnd.oci.image.config.v1+json"), part("x/y"));
        format!(r#"{{"schemaVersion":2,{extra}"config":{config},"layers":[{layer}]}}"#)
    }

    #[test]
    fn kinds_are_told_apart() {
        let parse = |text: &str, said| Document::parse(text.as_bytes(), said);
        assert!(matches!(parse(INDEX, None), Ok(Document::Index(_))));
        assert!(matches!(parse(INDEX, Some(MANIFEST_TYPES[1])), Ok(Document::Index(_))));
        assert!(matches!(parse(INDEX, Some("application/json")), Ok(Document::Index(_))));
        assert!(matches!(parse(&image(""), None), Ok(Document::Image(_))));
        let oci = format!("{}; charset=utf-8", MANIFEST_TYPES[2]);
        assert!(matches!(parse(&image(""), Some(&oci)), Ok(Document::Image(_))));
        let named = image(&format!(r#""mediaType":"{}","#, MANIFEST_TYPES[3]));
        assert!(matches!(parse(&named, Some(MANIFEST_TYPES[3])), Ok(Document::Image(_))));
        for (text, said, why) in [
            (named.as_str(), Some(MANIFEST_TYPES[0]), "calls itself"),
            (&image(r#""manifests":[],"#), None, "both"),
            (&image(r#""mediaType":"text/plain","#), None, "unknown kind"),
            (r#"{"schemaVersion":1,"fsLayers":[]}"#, None, "schema 1"),
            (r#"{"layers":[]}"#, None, "schemaVersion"),
            ("[]", None, "not a manifest"),
            ("", None, "not a manifest"),
            (INDEX, Some(MANIFEST_TYPES[2]), "not a manifest"),
        ] {
            let error = parse(text, said).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
