//! What every request says: who asks, and by which right.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use re::{RequestMetadata, ToolDetails};
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, BinaryMetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

use super::super::Settings;
use super::super::address::Address;
use super::re;
use crate::error::{Error, Result};

/// The header in which the API has a client introduce itself.
const INTRODUCTION: &str = "build.bazel.remote.execution.v2.requestmetadata-bin";

/// What every request carries: who asks, and by which right.
#[derive(Clone, Default)]
pub(super) struct Headers {
    named: Arc<Vec<(AsciiMetadataKey, AsciiMetadataValue)>>,
    /// Values that must not be shown.
    secrets: Arc<Vec<String>>,
}

impl Headers {
    pub fn of(address: &Address, settings: &Settings) -> Result<Headers> {
        let (mut headers, mut secrets) = (Vec::new(), Vec::new());
        let mut add = |name: &str, value: &str| {
            let wrong = |why: &str| {
                Error::usage(format!("the header `{name}` cannot be sent to {}", address.shown()))
                    .because(why)
            };
            let key = AsciiMetadataKey::from_bytes(name.to_ascii_lowercase().as_bytes());
            let key = key.map_err(|_| wrong("that is no name of a header of text"))?;
            let mut text = AsciiMetadataValue::try_from(value)
                .map_err(|_| wrong("its value has characters in it that a header cannot have"))?;
            text.set_sensitive(true);
            secrets.push(value.to_string());
            headers.retain(|(known, _)| *known != key);
            headers.push((key, text));
            Ok::<_, Error>(())
        };
        let token = settings.token.as_deref().or(settings.variable("REAPI_TOKEN"));
        match (&address.login, token) {
            (Some((user, secret)), _) => {
                let login = format!("{user}:{}", secret.as_deref().unwrap_or_default());
                add("authorization", &format!("Basic {}", STANDARD.encode(login)))?;
            }
            (None, Some(token)) => add("authorization", &format!("Bearer {}", token.trim()))?,
            (None, None) => {}
        }
        for header in &settings.headers {
            let value = header.value.as_deref().ok_or_else(|| {
                Error::usage(format!("the header `{}` of {} has no value", header.name, address.shown()))
                    .because(format!("the variable {} is not set", header.variable))
            })?;
            add(&header.name, value.trim())?;
        }
        // Servers may tell what comes behind `Bearer` or `Basic` alone.
        let parts =
            secrets.iter().filter_map(|secret| secret.split_once(' ')).map(|(_, part)| part.to_string());
        secrets = secrets.iter().cloned().chain(parts).filter(|secret| !secret.is_empty()).collect();
        Ok(Headers { named: Arc::new(headers), secrets: Arc::new(secrets) })
    }

    /// A text of the server without what it must not tell.
    pub fn without_secrets(&self, mut text: String) -> String {
        for secret in self.secrets.iter() {
            text = text.replace(secret.as_str(), "…");
        }
        text
    }
}

impl Interceptor for Headers {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let tool = ToolDetails {
            tool_name: "isolith".to_string(),
            tool_version: env!("CARGO_PKG_VERSION").to_string(),
        };
        let who = RequestMetadata { tool_details: Some(tool), ..RequestMetadata::default() };
        let who = BinaryMetadataValue::from_bytes(&who.encode_to_vec());
        request.metadata_mut().insert_bin(INTRODUCTION, who);
        for (name, value) in self.named.iter() {
            request.metadata_mut().insert(name.clone(), value.clone());
        }
        Ok(request)
    }
}
