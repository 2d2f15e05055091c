//! Which service a URL means, and its credentials.

use opendal::Operator;
use opendal::services::{Azblob, Gcs, Ghac, S3, Webdav};

use super::super::Settings;
use super::super::address::Address;
use crate::error::{Error, Result};

/// The service at a URL.
pub(super) fn service(url: &Address, settings: &Settings) -> Result<Operator> {
    let made = match url.scheme.as_str() {
        "s3" => Operator::new(s3(url, settings)?),
        "gs" => Operator::new(gcs(url, settings)?),
        "azblob" => Operator::new(azblob(url, settings)?),
        "ghac" => Operator::new(ghac(url, settings)?),
        _ => Operator::new(webdav(url, settings)?),
    };
    made.map_err(|why| super::said(Error::usage(format!("{} cannot be used", url.shown())), &why))
}

/// The name of a bucket, which has no port.
fn bucket<'a>(url: &'a Address, form: &str) -> Result<&'a str> {
    match url.host.as_str() {
        host if host.is_empty() || host.contains(':') => {
            Err(Error::usage(format!("{} names no bucket", url.shown())).hint(format!("write {form}")))
        }
        host => Ok(host),
    }
}

/// The first that is given: the option of the URL, or one of the variables.
fn given<'a>(url: &'a Address, option: &str, settings: &'a Settings, variables: &[&str]) -> Option<&'a str> {
    url.option(option).or_else(|| variables.iter().find_map(|name| settings.variable(name)))
}

fn s3(url: &Address, settings: &Settings) -> Result<S3> {
    url.expect(&["region", "endpoint", "profile", "anonymous", "virtual-host", "storage-class"], false)?;
    let mut s3 = S3::default().bucket(bucket(url, "s3://bucket/prefix?region=eu-central-1")?).root(&url.path);
    let endpoint = given(url, "endpoint", settings, &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]);
    let region = given(url, "region", settings, &["AWS_REGION", "AWS_DEFAULT_REGION"]);
    let region = region.or(endpoint.map(|_| "us-east-1")).ok_or_else(|| {
        Error::usage(format!("the region of {} is not known", url.shown()))
            .hint("add `?region=eu-central-1` (or which it is) to the URL, or set AWS_REGION")
    })?;
    s3 = s3.region(region);
    if let Some(endpoint) = endpoint {
        s3 = s3.endpoint(endpoint);
    }
    if let Some(class) = url.option("storage-class") {
        s3 = s3.default_storage_class(class);
    }
    if url.flag("virtual-host")? {
        s3 = s3.enable_virtual_host_style();
    }
    let key = settings.variable("AWS_ACCESS_KEY_ID").zip(settings.variable("AWS_SECRET_ACCESS_KEY"));
    let profile = given(url, "profile", settings, &["AWS_PROFILE"]);
    Ok(match (url.flag("anonymous")?, profile, key) {
        (true, ..) => s3.skip_signature().disable_config_load().disable_ec2_metadata(),
        // A profile that was asked for by name is meant; one from the environment gives way to keys, as AWS has it.
        (_, Some(profile), _) if url.option("profile").is_some() => s3.profile(profile),
        (_, _, Some((id, secret))) => {
            s3 = s3.access_key_id(id).secret_access_key(secret);
            if let Some(token) = settings.variable("AWS_SESSION_TOKEN") {
                s3 = s3.session_token(token);
            }
            s3.disable_config_load().disable_ec2_metadata()
        }
        (_, Some(profile), None) => s3.profile(profile),
        (_, None, None) => s3,
    })
}

fn gcs(url: &Address, settings: &Settings) -> Result<Gcs> {
    url.expect(&["endpoint", "anonymous", "storage-class"], false)?;
    let mut gcs = Gcs::default().bucket(bucket(url, "gs://bucket/prefix")?).root(&url.path);
    if let Some(endpoint) = given(url, "endpoint", settings, &["STORAGE_EMULATOR_HOST"]) {
        gcs = gcs.endpoint(endpoint);
    }
    if let Some(class) = url.option("storage-class") {
        gcs = gcs.default_storage_class(class);
    }
    if url.flag("anonymous")? {
        return Ok(gcs.skip_signature().disable_config_load().disable_vm_metadata());
    }
    if let Some(token) = settings.variable("GOOGLE_OAUTH_ACCESS_TOKEN") {
        return Ok(gcs.token(token.to_string()).disable_config_load().disable_vm_metadata());
    }
    if let Some(path) = settings.variable("GOOGLE_APPLICATION_CREDENTIALS") {
        gcs = gcs.credential_path(path).disable_vm_metadata();
    }
    Ok(gcs)
}

fn azblob(url: &Address, settings: &Settings) -> Result<Azblob> {
    url.expect(&["account", "endpoint"], false)?;
    let mut azblob =
        Azblob::default().container(bucket(url, "azblob://container/prefix?account=name")?).root(&url.path);
    let account = given(url, "account", settings, &["AZURE_STORAGE_ACCOUNT_NAME"]);
    let endpoint = given(url, "endpoint", settings, &["AZBLOB_ENDPOINT", "AZURE_STORAGE_ENDPOINT"]);
    azblob = match (endpoint, account) {
        (Some(endpoint), _) => azblob.endpoint(endpoint),
        (None, Some(account)) => azblob.endpoint(&format!("https://{account}.blob.core.windows.net")),
        (None, None) => {
            return Err(Error::usage(format!("the account of {} is not known", url.shown()))
                .hint("add `?account=name` to the URL, or set AZURE_STORAGE_ACCOUNT_NAME"));
        }
    };
    if let Some(account) = account {
        azblob = azblob.account_name(account);
    }
    if let Some(key) = settings.variable("AZURE_STORAGE_ACCOUNT_KEY") {
        azblob = azblob.account_key(key);
    }
    if let Some(token) = settings.variable("AZURE_STORAGE_SAS_TOKEN") {
        azblob = azblob.sas_token(token);
    }
    Ok(azblob)
}

fn ghac(url: &Address, settings: &Settings) -> Result<Ghac> {
    url.expect(&["version"], false)?;
    let prefix = format!("{}/{}", url.host, url.path);
    // The flag says which protocol opendal speaks, so the address has to be that of the same one.
    let place = match settings.variable("ACTIONS_CACHE_SERVICE_V2") {
        Some(_) => "ACTIONS_RESULTS_URL",
        None => "ACTIONS_CACHE_URL",
    };
    let (endpoint, token) = (settings.variable(place), settings.variable("ACTIONS_RUNTIME_TOKEN"));
    let (Some(endpoint), Some(token)) = (endpoint, token) else {
        return Err(Error::usage("the cache of GitHub Actions is not to be had here")
            .because(format!("{place} and ACTIONS_RUNTIME_TOKEN are not both set"))
            .hint("it is there in jobs of GitHub Actions only, where an action hands ACTIONS_CACHE_SERVICE_V2, ACTIONS_RESULTS_URL and ACTIONS_RUNTIME_TOKEN on to the step: docs/ci.md shows how"));
    };
    let version = url.option("version").unwrap_or("isolith");
    Ok(Ghac::default().root(&prefix).version(version).endpoint(endpoint).runtime_token(token))
}

fn webdav(url: &Address, settings: &Settings) -> Result<Webdav> {
    url.expect(&[], true)?;
    let mut webdav = Webdav::default().endpoint(&origin(url)?).root(&url.path);
    let (user, secret, token) = login(url, settings);
    if let Some(user) = user {
        webdav = webdav.username(user);
    }
    if let Some(secret) = secret {
        webdav = webdav.password(secret);
    }
    if let Some(token) = token {
        webdav = webdav.token(token);
    }
    Ok(webdav)
}

/// Scheme, host and port of a WebDAV server.
pub(super) fn origin(url: &Address) -> Result<String> {
    if url.host.is_empty() {
        return Err(Error::usage(format!("{} names no host", url.shown())));
    }
    let scheme = if url.scheme == "webdavs" { "https" } else { "http" };
    Ok(format!("{scheme}://{}", url.host))
}

/// User, password and token for a WebDAV server.
pub(super) fn login<'a>(
    url: &'a Address,
    settings: &'a Settings,
) -> (Option<&'a str>, Option<&'a str>, Option<&'a str>) {
    if let Some((user, secret)) = &url.login {
        return (Some(user), secret.as_deref().or(settings.variable("WEBDAV_PASSWORD")), None);
    }
    match settings.token.as_deref().or(settings.variable("WEBDAV_TOKEN")) {
        Some(token) => (None, None, Some(token)),
        None => (settings.variable("WEBDAV_USER"), settings.variable("WEBDAV_PASSWORD"), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Settings {
        let variables = variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        Settings { variables, ..Settings::default() }
    }

    fn made(url: &str, variables: &[(&str, &str)]) -> Result<Operator> {
        service(&Address::parse(url).unwrap(), &settings(variables))
    }

    #[test]
    fn urls_and_variables_name_a_service() {
        let azure = [("AZURE_STORAGE_ACCOUNT_NAME", "kim"), ("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0")];
        let github = [("ACTIONS_CACHE_URL", "https://cache.example/"), ("ACTIONS_RUNTIME_TOKEN", "t")];
        for (url, variables, scheme, name, root) in [
            ("s3://b/p/q?region=r", &[][..], "s3", "b", "/p/q/"),
            ("s3://b?endpoint=http://127.0.0.1:1&anonymous=true", &[], "s3", "b", "/"),
            (
                "s3://b/p",
                &[("AWS_REGION", "r"), ("AWS_ACCESS_KEY_ID", "i"), ("AWS_SECRET_ACCESS_KEY", "s")],
                "s3",
                "b",
                "/p/",
            ),
            ("gs://b/p?anonymous=true", &[], "gcs", "b", "/p/"),
            ("gs://b", &[("GOOGLE_OAUTH_ACCESS_TOKEN", "t")], "gcs", "b", "/"),
            ("azblob://c/p", &azure, "azblob", "c", "/p/"),
            ("azblob://c?account=a", &[("AZURE_STORAGE_SAS_TOKEN", "sig=x")], "azblob", "c", "/"),
            ("ghac:team?version=2", &github, "ghac", "", "/team/"),
            ("webdav://h:1/a/b", &[], "webdav", "", "/a/b/"),
            ("webdavs://kim:x@h/a", &[], "webdav", "", "/a/"),
        ] {
            let info = made(url, variables).unwrap().info();
            assert_eq!((info.scheme(), info.root().as_str()), (scheme, root), "{url}");
            if !name.is_empty() {
                assert_eq!(info.name(), name, "{url}");
            }
        }
    }

    #[test]
    fn what_is_missing_is_told() {
        for (url, says) in [
            ("s3://b", "AWS_REGION"),
            ("s3://?region=r", "names no bucket"),
            ("s3://b?regoin=r", "did you mean `region`"),
            ("s3://b?region=r&anonymous=yes", "`true` or `false`"),
            ("s3://me:secret@b?region=r", "a user in it"),
            ("azblob://c", "AZURE_STORAGE_ACCOUNT_NAME"),
            ("gs://", "names no bucket"),
            ("ghac:", "ACTIONS_RUNTIME_TOKEN"),
            ("webdav:///x", "names no host"),
        ] {
            let error = made(url, &[]).map(drop).unwrap_err();
            let text = format!("{error:?}");
            assert!(text.contains(says) && !text.contains("secret"), "{url}: {text}");
            assert_eq!(error.class(), crate::error::Class::Usage);
        }
    }
}
