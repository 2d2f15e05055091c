//! Names of images: `[REGISTRY/]REPOSITORY[:TAG][@DIGEST]`.

use oci_spec::distribution::Reference;

/// Reads the name of an image. One without a registry is of `docker.io`, in `library/` when it has one part only; one
/// without a tag and a digest has the tag `latest`. These are Docker's rules, which all tools follow.
///
/// # Errors
/// What is wrong with it.
pub fn parse_reference(text: &str) -> Result<Reference, String> {
    // The expression behind it is linear in time; its memory is not worth more than a name can have.
    if text.len() > 1024 {
        return Err("it is longer than 1024 bytes".to_string());
    }
    let reference: Reference = text.parse().map_err(|why| match why {
        oci_spec::distribution::ParseError::ReferenceInvalidFormat
            if text.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            "a repository has lower-case letters only".to_string()
        }
        why => format!("{why}"),
    })?;
    // The expression takes the first part for a registry, which it may turn out not to be.
    if reference.repository().bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("a repository has lower-case letters only".to_string());
    }
    match reference.digest() {
        Some(digest) if digest.parse::<oci_spec::image::Digest>().is_err() => {
            Err(format!("`{digest}` is not a digest: give `sha256:` and 64 hexadecimal digits"))
        }
        _ => Ok(reference),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_written_out() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (short, whole) in [
            ("debian", "docker.io/library/debian:latest"),
            ("debian:12", "docker.io/library/debian:12"),
            ("team/tool", "docker.io/team/tool:latest"),
            ("localhost/x:y", "localhost/x:y"),
            ("localhost:5000/a/b/c", "localhost:5000/a/b/c:latest"),
            ("registry.example/debian:12", "registry.example/debian:12"),
            (&format!("r.example/x@{digest}"), &format!("r.example/x@{digest}")),
            (&format!("r.example/x:1@{digest}"), &format!("r.example/x:1@{digest}")),
        ] {
            assert_eq!(parse_reference(short).unwrap().to_string(), whole, "{short}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = "a/".repeat(600);
        for bad in
            ["", "x:", "x@", "x y", "X", "Team/tool", "x@sha256:12", "https://x/y", "-x", "x/../y", &long]
        {
            assert!(parse_reference(bad).is_err(), "{bad}");
        }
        let upper = format!("x@sha256:{}", "A".repeat(64));
        assert!(parse_reference(&upper).unwrap_err().contains("not a digest"));
    }
}
