//! Where Debian packages come from: the settings, else what this machine's apt is set up with.

use std::path::{Path, PathBuf};

use crate::base::debian::{Archives, Keyring, Mirror, machine};
use crate::config::Settings;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Reads the files of apt only when the settings leave something open. What cannot be read counts as not there.
pub(super) fn archives(settings: &Settings) -> Archives {
    let said = &settings.inputs.debian;
    let mirrors = match &said.mirrors {
        Some(mirrors) => mirrors
            .value
            .iter()
            .map(|mirror| Mirror {
                url: mirror.url.clone(),
                suites: mirror.suites.clone(),
                signed_by: mirror.keyring.iter().cloned().map(Keyring::File).collect(),
            })
            .collect(),
        None => of_machine(Path::new("/etc/apt")),
    };
    let keyrings = match &said.keyrings {
        Some(keyrings) => keyrings.value.clone(),
        None => {
            let own = Some(PathBuf::from(KEYRING)).filter(|path| path.is_file());
            own.into_iter().chain(files(Path::new("/etc/apt/trusted.gpg.d"), &["gpg", "asc"])).collect()
        }
    };
    Archives {
        mirrors,
        keyrings: keyrings.into_iter().map(Keyring::File).collect(),
        expired_is_good: said.check_valid_until.as_ref().is_some_and(|check| !check.value),
    }
}

fn of_machine(apt: &Path) -> Vec<Mirror> {
    let read = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    let mut mirrors = machine::one_line(&read(apt.join("sources.list")));
    for path in files(&apt.join("sources.list.d"), &["list", "sources"]) {
        let is_list = path.extension().is_some_and(|ending| ending == "list");
        mirrors.extend(if is_list {
            machine::one_line(&read(path))
        } else {
            machine::paragraphs(&read(path))
        });
    }
    mirrors
}

/// The files in a directory with one of these endings, in the order of their names.
fn files(dir: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let all = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let good =
        |path: &PathBuf| path.extension().is_some_and(|has| endings.iter().any(|ending| has == *ending));
    let mut all: Vec<PathBuf> = all.filter(good).collect();
    all.sort();
    all
}
