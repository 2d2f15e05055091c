//! The package sources of a machine, as apt reads them: sources.list(5), in both of its formats.

use std::path::PathBuf;

use super::archive::{Keyring, Mirror};
use super::control::{self, Paragraph};
use crate::source::Url;

/// The mirrors in a file of the form `deb [signed-by=…] URL SUITE COMPONENT…`, one a line. What is not understood is
/// left out, as is what leads to something else than an archive with suites.
pub fn one_line(text: &str) -> Vec<Mirror> {
    let mut mirrors = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let Some(rest) = ["deb", "deb-src"]
            .iter()
            .find_map(|kind| line.strip_prefix(kind).filter(|rest| rest.starts_with([' ', '\t', '['])))
        else {
            continue;
        };
        let rest = rest.trim_start();
        let (options, rest) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((options, rest)) => (options, rest),
            None => ("", rest),
        };
        let signed_by = options.split_ascii_whitespace().find_map(|option| option.strip_prefix("signed-by="));
        let paths = signed_by.into_iter().flat_map(|paths| paths.split(','));
        let mut words = rest.split_ascii_whitespace();
        let (Some(url), Some(suite)) = (words.next(), words.next()) else { continue };
        mirrors.extend(mirror(url, vec![suite.to_string()], keyrings(paths)));
    }
    mirrors
}

/// The mirrors in a file of the form of a control file (`Types:`, `URIs:`, `Suites:`, …).
pub fn paragraphs(text: &str) -> Vec<Mirror> {
    let mut mirrors = Vec::new();
    for paragraph in control::paragraphs(text) {
        if paragraph.get("Enabled").is_some_and(|value| value.eq_ignore_ascii_case("no")) {
            continue;
        }
        let words = |key| paragraph.get(key).map(control::words).into_iter().flatten().map(String::from);
        let suites: Vec<String> = words("Suites").collect();
        for url in words("URIs") {
            mirrors.extend(mirror(&url, suites.clone(), signed_by(paragraph)));
        }
    }
    mirrors
}

fn signed_by(paragraph: Paragraph<'_>) -> Vec<Keyring> {
    let Some(value) = paragraph.get("Signed-By") else { return Vec::new() };
    if !value.contains("-----BEGIN") {
        return keyrings(control::words(value).flat_map(|word| word.split(',')));
    }
    // An empty line is written as a dot.
    let line = |line: &str| match line.trim() {
        "." => String::new(),
        line => line.to_string(),
    };
    vec![Keyring::Text(value.lines().map(line).collect::<Vec<_>>().join("\n"))]
}

/// Files; fingerprints of keys, which may stand there too, are left out.
fn keyrings<'a>(words: impl Iterator<Item = &'a str>) -> Vec<Keyring> {
    words.filter(|word| word.starts_with('/')).map(|path| Keyring::File(PathBuf::from(path))).collect()
}

fn mirror(url: &str, mut suites: Vec<String>, signed_by: Vec<Keyring>) -> Option<Mirror> {
    suites.retain(|suite| !suite.ends_with('/'));
    let url = url.trim_end_matches('/').to_string();
    // `file:/path` is how apt has it.
    let url = match url.strip_prefix("file:/") {
        Some(path) => format!("file:///{}", path.trim_start_matches('/')),
        None => url,
    };
    (!suites.is_empty() && Url::parse(&url).is_ok()).then_some(Mirror { url, suites, signed_by })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_package_sources() {
        let text = "# a note\ndeb http://m.example/debian/ bookworm main contrib # more\n\
            deb [arch=amd64 signed-by=/k/a.gpg,/k/b.gpg] https://n.example/x trixie main\n\
            deb-src file:/srv/debian sid main\ndeb cdrom:[Debian]/ bookworm main\ndeb http://flat.example/x ./\ndebug x y\n";
        let file = |path: &str| Keyring::File(path.into());
        let mirror = |url: &str, suites: &[&str], signed_by: &[Keyring]| Mirror {
            url: url.into(),
            suites: suites.iter().map(ToString::to_string).collect(),
            signed_by: signed_by.to_vec(),
        };
        let wanted = [
            mirror("http://m.example/debian", &["bookworm"], &[]),
            mirror("https://n.example/x", &["trixie"], &[file("/k/a.gpg"), file("/k/b.gpg")]),
            mirror("file:///srv/debian", &["sid"], &[]),
        ];
        assert_eq!(one_line(text), wanted);

        let text = "Types: deb deb-src\n# an old one\nURIs: http://m.example/debian/\nSuites: bookworm bookworm-updates\n\
            Components: main\nSigned-By: /k/a.gpg\n\nEnabled: no\nTypes: deb\nURIs: http://off.example\nSuites: x\n\n\
            Types: deb\nURIs: http://n.example\nSuites: y\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n";
        let key = Keyring::Text("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nabc".into());
        let wanted = [
            mirror("http://m.example/debian", &["bookworm", "bookworm-updates"], &[file("/k/a.gpg")]),
            mirror("http://n.example", &["y"], &[key]),
        ];
        assert_eq!(paragraphs(text), wanted);
    }
}
