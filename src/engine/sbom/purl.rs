//! Package URLs (ECMA-427, github.com/package-url/purl-spec).

use percent_encoding::utf8_percent_encode;

use crate::net::RESERVED;

/// `pkg:deb/debian/NAME@VERSION?arch=…&distro=…`
pub fn deb(name: &str, version: &str, arch: &str, suite: &str) -> String {
    with(
        format!("pkg:deb/debian/{}@{}", encoded(name), encoded(version)),
        &[("arch", arch.to_string()), ("distro", suite.to_string())],
    )
}

/// `pkg:generic/NAME@VERSION?…`; the qualifiers in the order of their names.
pub fn generic(name: &str, version: Option<&str>, more: &[(&str, String)]) -> String {
    let version = version.map(|version| format!("@{}", encoded(version))).unwrap_or_default();
    with(format!("pkg:generic/{}{version}", encoded(name)), more)
}

/// `pkg:github/OWNER/REPOSITORY@COMMIT` where it is one, else a generic one.
pub fn git(name: &str, url: &str, commit: &str) -> String {
    let rest = ["https://github.com/", "http://github.com/", "git@github.com:", "ssh://git@github.com/"];
    let rest = rest.iter().find_map(|start| url.strip_prefix(start));
    if let Some((owner, repository)) = rest.and_then(|rest| rest.trim_end_matches('/').split_once('/'))
        && !repository.contains('/')
    {
        let repository = repository.trim_end_matches(".git");
        return format!(
            "pkg:github/{}/{}@{commit}",
            encoded(&owner.to_ascii_lowercase()),
            encoded(&repository.to_ascii_lowercase())
        );
    }
    generic(name, Some(commit), &[("vcs_url", format!("git+{url}@{commit}"))])
}

fn with(purl: String, more: &[(&str, String)]) -> String {
    let more: Vec<String> = more.iter().map(|(key, value)| format!("{key}={}", encoded(value))).collect();
    if more.is_empty() { purl } else { format!("{purl}?{}", more.join("&")) }
}

/// Percent-encoded; a colon may stand as it is.
fn encoded(text: &str) -> String {
    utf8_percent_encode(text, const { &RESERVED.remove(b':') }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_urls() {
        assert_eq!(
            deb("g++", "1:2+b1~x", "amd64", "bookworm"),
            "pkg:deb/debian/g%2B%2B@1:2%2Bb1~x?arch=amd64&distro=bookworm"
        );
        assert_eq!(git("src", "https://github.com/Madler/zlib.git", "ab"), "pkg:github/madler/zlib@ab");
        assert_eq!(
            git("src", "https://x.example/zlib", "ab"),
            "pkg:generic/src@ab?vcs_url=git%2Bhttps:%2F%2Fx.example%2Fzlib%40ab"
        );
    }
}
