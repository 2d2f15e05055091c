//! CycloneDX 1.6 in JSON (cyclonedx.org/docs/1.6/json).

use serde_json::{Value, json};

use super::{Bill, Part};
use crate::source::Algorithm;

/// The document.
pub fn document(bill: &Bill) -> Value {
    let components = bill.parts.iter().enumerate().map(|(at, part)| component(at, part));
    let mut components: Vec<Value> = components.collect();
    let main = if components.is_empty() { Value::Null } else { components.remove(0) };
    let dependencies = (0..bill.parts.len()).map(|at| {
        let needs: Vec<String> =
            bill.needs.iter().filter(|(by, _)| *by == at).map(|(_, of)| id(*of)).collect();
        json!({ "ref": id(at), "dependsOn": needs })
    });
    let digest = bill.digest();
    // The form of a UUID whose bits are somebody's own (RFC 9562, version 8).
    let serial = format!(
        "{}-{}-8{}-8{}-{}",
        &digest[..8],
        &digest[8..12],
        &digest[13..16],
        &digest[17..20],
        &digest[20..32]
    );
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": format!("urn:uuid:{serial}"),
        "version": 1,
        "metadata": {
            "timestamp": bill.created,
            "tools": { "components": [{ "type": "application", "name": "isolith", "version": env!("CARGO_PKG_VERSION") }] },
            "component": main,
        },
        "dependencies": dependencies.collect::<Vec<_>>(),
        "components": components,
    })
}

fn id(at: usize) -> String {
    format!("part-{at}")
}

fn component(at: usize, part: &Part) -> Value {
    let kind = match (part.is_recipe, &part.purl) {
        (true, _) => "application",
        (false, Some(purl)) if purl.starts_with("pkg:generic/") => "file",
        _ => "library",
    };
    let mut component = json!({ "type": kind, "bom-ref": id(at), "name": part.name });
    if let Some(version) = &part.version {
        component["version"] = json!(version);
    }
    if let Some(purl) = &part.purl {
        component["purl"] = json!(purl);
    }
    if !part.pins.is_empty() {
        let digest = |algorithm| match algorithm {
            Algorithm::Sha256 => "SHA-256",
            Algorithm::Sha512 => "SHA-512",
            Algorithm::Blake3 => "BLAKE3",
        };
        let pins = part.pins.iter();
        component["hashes"] =
            pins.map(|pin| json!({ "alg": digest(pin.algorithm()), "content": pin.hex() })).collect();
    }
    if let Some(url) = part.url.as_deref().filter(|url| !url.starts_with("file:")) {
        component["externalReferences"] = json!([{ "type": "distribution", "url": url }]);
    }
    component
}
