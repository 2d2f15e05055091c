//! `attest`: signed provenance of what a finished build left.

use std::path::Path;

use super::remotes::{inputs, of_plan};
use super::{Built, Observer, Request, Session, Target};
use crate::digest::LayerId;
use crate::error::{Error, Result};
use crate::oci::Hasher;
use crate::trust::{Envelope, Resource, SecretKey, Statement};

impl Session {
    /// An in-toto statement with SLSA provenance in a DSSE envelope, about some outputs of a finished build, or its stack
    /// (no name). The SHA-256 of each is that of the archive that an export as `tar:` writes.
    pub fn attest(
        &mut self,
        request: &Request,
        built: &Built,
        about: &[(Option<String>, Vec<LayerId>)],
        signer: &SecretKey,
        observer: &dyn Observer,
    ) -> Result<Vec<u8>> {
        let plan = self.plan(request, request.pinning(), observer)?;
        let mut subjects = Vec::new();
        for (output, layers) in about {
            let scratch = self.store.clone();
            let scratch = scratch.scratch()?;
            let archive = scratch.path().join("archive");
            self.export(layers, &Target::Tar(archive.clone()))?;
            let name = match output {
                Some(output) => format!("{}:{output}", built.recipe.name),
                None => built.recipe.name.clone(),
            };
            let mut subject = Resource::new(name, "sha256", sha256(&archive)?);
            if let [layer] = layers[..] {
                subject.digest.insert("isolithLayer".to_string(), layer.to_hex());
            }
            subjects.push(subject);
        }
        let mut provenance = of_plan(&plan, signer);
        provenance.build_definition.resolved_dependencies.extend(inputs(&plan));
        let statement = serde_json::to_vec(&Statement::new(subjects, provenance))
            .map_err(|why| Error::machine("a statement has no JSON form").because(why))?;
        Ok(Envelope::sign(&statement, signer))
    }
}

fn sha256(path: &Path) -> Result<String> {
    let failed = |why| Error::io("read", path, why);
    let mut hasher = Hasher::sha256();
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match std::io::Read::read(&mut file, &mut buffer).map_err(failed)? {
            0 => break,
            n => hasher.update(&buffer[..n]),
        }
    }
    Ok(hasher.text().trim_start_matches("sha256:").to_string())
}
