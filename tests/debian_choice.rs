//! The packages that are chosen for a base are those that apt chooses for a fresh installation without recommended
//! packages, from the same indexes: those of this machine's own package sources.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use isolith::base::debian::{Debian, Index, Packages, Universe, Variant, choose, compare_versions};

/// apt with directories of its own, and the indexes it has fetched there.
struct Apt {
    dir: tempfile::TempDir,
    suites: Vec<String>,
    arch: String,
    indexes: Vec<Index>,
}

fn apt() -> (&'static Apt, &'static Universe<'static>) {
    static APT: OnceLock<Apt> = OnceLock::new();
    static UNIVERSE: OnceLock<Universe<'static>> = OnceLock::new();
    let apt = APT.get_or_init(Apt::new);
    (apt, UNIVERSE.get_or_init(|| Universe::read(&apt.indexes, &apt.arch)))
}

fn output(command: &mut Command) -> String {
    let out = command.env("LC_ALL", "C.UTF-8").output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{command:?}\n{stdout}{stderr}");
    stdout.into_owned()
}

impl Apt {
    fn new() -> Apt {
        let dir = tempfile::tempdir().unwrap();
        for name in ["lists/partial", "cache/archives/partial", "etc"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("empty"), "").unwrap();
        let arch = output(Command::new("dpkg").arg("--print-architecture")).trim().to_string();
        let mut apt = Apt { dir, suites: Vec::new(), arch, indexes: Vec::new() };
        output(apt.get(Path::new("empty")).args(["-qq", "update"]));
        let format = "$(IDENTIFIER) $(CODENAME) $(SUITE) $(COMPONENT) $(FILENAME)";
        let targets = output(apt.get(Path::new("empty")).args(["indextargets", "--format", format]));
        for line in targets.lines().filter(|line| line.starts_with("Packages ")) {
            let [_, codename, _, component, file] = line.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{line}")
            };
            if component != "main" {
                continue;
            }
            let text = output(Command::new("/usr/lib/apt/apt-helper").args(["cat-file", file]));
            if !apt.suites.iter().any(|suite| suite == codename) {
                apt.suites.push(codename.to_string());
            }
            apt.indexes.push(Index { suite: codename.to_string(), rank: 500, text });
        }
        assert!(!apt.indexes.is_empty(), "apt has no package sources with a component `main`");
        apt
    }

    fn path(&self, name: &Path) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `apt-get` on a system with this status file.
    fn get(&self, status: &Path) -> Command {
        let mut command = Command::new("apt-get");
        for (key, value) in [
            ("Dir::State::Lists", self.path(Path::new("lists"))),
            ("Dir::Cache", self.path(Path::new("cache"))),
            ("Dir::State::Status", self.path(status)),
            // Images of Debian switch it off; without it every run reads all indexes anew.
            ("Dir::Cache::pkgcache", "pkgcache.bin".into()),
            ("Dir::Cache::srcpkgcache", "srcpkgcache.bin".into()),
            ("Dir::State::Extended_States", "/nowhere".into()),
        ] {
            command.arg("-o").arg(format!("{key}={}", value.display()));
        }
        for option in [
            "APT::Sandbox::User=root",
            "APT::Install-Recommends=false",
            "pkgCacheGen::ForceEssential=,",
            "Acquire::Languages=none",
            "APT::Architectures=",
        ] {
            command.arg("-o").arg(option);
        }
        command.arg("-o").arg(format!("APT::Architecture={}", self.arch));
        command
    }

    /// What an installation takes, with versions; none when apt refuses.
    fn simulated(&self, status: &Path, wanted: &[String]) -> Option<BTreeMap<String, String>> {
        let out =
            self.get(status).args(["-s", "install"]).args(wanted).env("LC_ALL", "C.UTF-8").output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout);
        let inst = |line: &str| {
            let rest = line.strip_prefix("Inst ")?;
            let name = rest.split([' ', ':']).next()?.to_string();
            Some((name, rest.split_once('(')?.1.split(' ').next()?.to_string()))
        };
        out.status.success().then(|| text.lines().filter_map(inst).collect())
    }

    /// A status file in which these are installed.
    fn status(&self, name: &str, installed: &BTreeMap<String, String>) -> PathBuf {
        let mut text = String::new();
        let mut left: BTreeSet<(&str, &str)> =
            installed.iter().map(|(name, version)| (name.as_str(), version.as_str())).collect();
        for paragraph in self.indexes.iter().flat_map(|index| index.text.split("\n\n")) {
            let get =
                |key: &str| paragraph.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
            if left.remove(&(get("Package: "), get("Version: "))) {
                text += &format!("Status: install ok installed\n{}\n\n", paragraph.trim());
            }
        }
        assert!(left.is_empty(), "{left:?}");
        fs::write(self.path(Path::new(name)), text).unwrap();
        name.into()
    }

    fn request(&self, variant: Variant, include: &[&str]) -> Debian {
        let mut include: Vec<String> = include.iter().map(ToString::to_string).collect();
        include.sort();
        Debian {
            suites: self.suites.clone(),
            components: vec!["main".to_string()],
            variant,
            include,
            exclude: Vec::new(),
        }
    }
}

fn set<'a>(packages: impl Iterator<Item = &'a isolith::base::debian::Package>) -> BTreeMap<String, String> {
    packages.map(|package| (package.name.clone(), package.version.clone())).collect()
}

fn all(packages: &Packages) -> BTreeMap<String, String> {
    set(packages.iter())
}

#[track_caller]
fn same(what: &str, ours: &BTreeMap<String, String>, theirs: &BTreeMap<String, String>) {
    let only = |a: &BTreeMap<String, String>, b: &BTreeMap<String, String>| -> Vec<String> {
        let differ = a.iter().filter(|(name, version)| b.get(*name) != Some(version));
        differ.map(|(name, version)| format!("{name} {version}")).collect()
    };
    let (ours_only, theirs_only) = (only(ours, theirs), only(theirs, ours));
    assert!(
        ours_only.is_empty() && theirs_only.is_empty(),
        "{what}: {} packages\n  ours only: {ours_only:?}\n  apt's only: {theirs_only:?}",
        theirs.len()
    );
}

/// Alternatives, virtual packages, versioned provides, conflicts, essential packages and large trees.
const SETS: [&[&str]; 16] = [
    &["hello"],
    &["gcc", "make", "libc6-dev"],
    &["build-essential"],
    &["debhelper"],
    &["python3"],
    &["openjdk-17-jre-headless"],
    &["default-jdk-headless"],
    &["nginx"],
    &["postgresql"],
    &["exim4"],
    &["bsd-mailx"],
    &["ruby-dev", "cmake", "ninja-build"],
    &["rustc", "cargo"],
    &["systemd", "dbus"],
    &["php"],
    &["live-build", "mmdebstrap", "devscripts"],
];

#[test]
fn the_same_packages_as_apt_chooses() {
    let (apt, universe) = apt();
    let mut compared = 0;
    for wanted in SETS {
        // A set of one suite may not be in another.
        if !wanted
            .iter()
            .all(|name| universe.candidate(name).is_some() || !universe.providers(name).is_empty())
        {
            continue;
        }
        let request = apt.request(Variant::Custom, wanted);
        let theirs = apt.simulated(Path::new("empty"), &request.include).expect("apt finds a way");
        let ours = choose(universe, &request, None).unwrap_or_else(|e| panic!("{wanted:?}: {e}"));
        assert!(ours.base.is_empty());
        same(&format!("{wanted:?}"), &all(&ours), &theirs);
        compared += 1;
    }
    assert!(compared >= 15, "only {compared} sets could be compared");
}

/// As mmdebstrap does it: the essential packages first, then on top of them those of priority required and what is
/// included.
#[test]
fn the_same_variants_as_mmdebstrap_makes() {
    let (apt, universe) = apt();
    let first = &apt.suites[0];
    let pattern = |what: &str| {
        format!("?narrow(?or(?archive(^{first}$),?codename(^{first}$)),?architecture({}),{what})", apt.arch)
    };
    let essential = apt.simulated(Path::new("empty"), &[pattern("?essential")]).unwrap();
    let ours = choose(universe, &apt.request(Variant::Essential, &[]), None).unwrap();
    assert!(ours.added.is_empty());
    same("essential", &all(&ours), &essential);
    let status = apt.status("essential", &essential);
    for include in [&[][..], &["gcc", "make", "libc6-dev"], &["python3", "git"], &["gawk", "nginx-light"]] {
        let mut wanted: Vec<String> = include.iter().map(ToString::to_string).collect();
        wanted.push(pattern("?and(?priority(required),?not(?essential))"));
        let mut theirs = apt.simulated(&status, &wanted).unwrap();
        theirs.extend(essential.clone());
        let ours = choose(universe, &apt.request(Variant::Minbase, include), None).unwrap();
        same(&format!("minbase with {include:?}"), &all(&ours), &theirs);
        let alone = choose(universe, &apt.request(Variant::Minbase, &[]), None).unwrap();
        assert_eq!(ours.base, alone.base, "the variant's packages do not depend on {include:?}");
    }
}

#[test]
fn what_cannot_be_is_told_with_its_reason() {
    let (apt, universe) = apt();
    let refused = |variant, include: &[&str], exclude: &[&str]| {
        let mut request = apt.request(variant, include);
        request.exclude = exclude.iter().map(ToString::to_string).collect();
        let error = choose(universe, &request, None).unwrap_err();
        assert_eq!(error.class(), isolith::error::Class::Recipe);
        assert!(error.hint_text().is_some(), "{error}");
        format!("{error} (hint: {})", error.hint_text().unwrap())
    };
    let text = refused(Variant::Minbase, &["gcc"], &["binutils"]);
    for part in ["`gcc` cannot be installed", "`gcc` needs ", "needs `binutils", "`binutils` is excluded"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let text = refused(Variant::Minbase, &["exim4-daemon-light", "postfix"], &[]);
    assert!(text.contains("cannot be there with"), "{text}");
    let text = refused(Variant::Minbase, &["libc6=1"], &[]);
    assert!(text.contains("no version `1` of `libc6`"), "{text}");
    let text = refused(Variant::Minbase, &["no-such-package"], &[]);
    assert!(text.contains("no package `no-such-package`"), "{text}");
    let text = refused(Variant::Minbase, &["mail-transport-agent"], &[]);
    assert!(text.contains("provided by several") && text.contains("postfix"), "{text}");
}

#[test]
fn an_exclusion_takes_the_other_alternative() {
    let (apt, universe) = apt();
    let mut request = apt.request(Variant::Custom, &["debconf"]);
    let with = choose(universe, &request, None).unwrap();
    request.exclude = vec!["cdebconf".to_string()];
    assert_eq!(
        choose(universe, &request, None).unwrap(),
        with,
        "an exclusion that nothing needs changes nothing"
    );
}

/// Generated with a fixed seed; every pair is compared by dpkg itself.
#[test]
fn versions_are_in_the_order_of_dpkg() {
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut below = |n: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % n as u64) as usize
    };
    const PARTS: [&str; 18] = [
        "0", "1", "9", "10", "00", "01", "a", "Z", "~", "~~", "+", ".", "-", "b1", "rc", "deb12u", "2.36",
        ":",
    ];
    let version = |below: &mut dyn FnMut(usize) -> usize| {
        let epoch = ["", "", "", "0:", "1:", "01:"][below(6)];
        let parts: String =
            (0..1 + below(6)).map(|_| PARTS[below(if epoch.is_empty() { 17 } else { 18 })]).collect();
        let revision = ["", "-1", "-0", "-1~bpo1", "-1+b1"][below(5)];
        format!("{epoch}{}{parts}{revision}", below(3))
    };
    let pairs: Vec<(String, String)> =
        (0..6000).map(|_| (version(&mut below), version(&mut below))).collect();
    // dpkg's own module, asked once for all: a process for each comparison would take minutes.
    let program = "use Dpkg::Version; while (<STDIN>) { chomp; my ($a, $b) = map { Dpkg::Version->new($_, check => 0) } \
        split / /; print $a->is_valid && $b->is_valid ? version_compare(\"$a\", \"$b\") : q(none), qq(\\n) }";
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("pairs");
    fs::write(&input, pairs.iter().map(|(a, b)| format!("{a} {b}\n")).collect::<String>()).unwrap();
    let out = output(Command::new("perl").args(["-e", program]).stdin(fs::File::open(&input).unwrap()));
    let mut compared = 0;
    for ((a, b), theirs) in pairs.iter().zip(out.lines()) {
        if theirs != "none" {
            assert_eq!((compare_versions(a, b) as i32).to_string(), theirs, "{a} {b}");
            compared += 1;
        }
    }
    assert!(compared > 3000, "only {compared} pairs were versions");
}
