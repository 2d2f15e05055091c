//! SPDX 2.3 in JSON (spdx.github.io/spdx-spec/v2.3).

use serde_json::{Value, json};

use super::{Bill, Part};
use crate::source::Algorithm;

const NONE: &str = "NOASSERTION";

/// The document.
pub fn document(bill: &Bill) -> Value {
    let name = bill.parts.first().map_or("", |part| part.name.as_str());
    let mut relations = vec![relation("SPDXRef-DOCUMENT", "DESCRIBES", &id(0))];
    relations.extend(bill.needs.iter().map(|(by, of)| relation(&id(*by), "DEPENDS_ON", &id(*of))));
    json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": format!("urn:isolith:sbom:{}", bill.digest()),
        "creationInfo": {
            "created": bill.created,
            "creators": [format!("Tool: isolith-{}", env!("CARGO_PKG_VERSION"))],
        },
        "packages": bill.parts.iter().enumerate().map(|(at, part)| package(at, part)).collect::<Vec<_>>(),
        "relationships": relations,
    })
}

fn id(at: usize) -> String {
    format!("SPDXRef-{at}")
}

fn relation(from: &str, kind: &str, to: &str) -> Value {
    json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to })
}

fn package(at: usize, part: &Part) -> Value {
    // Only what the format knows as a place: file URLs are of one machine.
    let place = part.url.as_deref().filter(|url| !url.starts_with("file:"));
    let mut package = json!({
        "SPDXID": id(at),
        "name": part.name,
        "downloadLocation": place.unwrap_or(NONE),
        "filesAnalyzed": false,
        "licenseConcluded": NONE,
        "licenseDeclared": NONE,
        "copyrightText": NONE,
    });
    if let Some(version) = &part.version {
        package["versionInfo"] = json!(version);
    }
    if let Some(purl) = &part.purl {
        package["externalRefs"] = json!([{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": purl,
        }]);
    }
    // The validator of SPDX wants 256 digits of a BLAKE3, which has 64: such a digest is in the package URL alone.
    let checksums = part.pins.iter().filter_map(|pin| {
        let algorithm = match pin.algorithm() {
            Algorithm::Sha256 => "SHA256",
            Algorithm::Sha512 => "SHA512",
            Algorithm::Blake3 => return None,
        };
        Some(json!({ "algorithm": algorithm, "checksumValue": pin.hex() }))
    });
    let checksums: Vec<Value> = checksums.collect();
    if !checksums.is_empty() {
        package["checksums"] = Value::Array(checksums);
    }
    package
}
