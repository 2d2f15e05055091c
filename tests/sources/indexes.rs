//! Indexes of Debian archives that are not what they should be: signed by the wrong key or not at all, replayed,
//! altered, longer than they say. Keys and signatures are gpg's own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use isolith::base::debian::{Archives, Debian, Keyring, Mirror, Packages, Reader, Variant};
use isolith::error::{Class, Error};
use isolith::source::fetch::Access;
use sha2::{Digest, Sha256};

use crate::server::{Server, head, ok};
use crate::{Ears, Place};

/// 2026-01-02 00:00:00 UTC, when everything here happens.
const NOW: i64 = 1_767_312_000;
const DAY: i64 = 86_400;

/// A directory of keys of gpg's.
struct Gpg(tempfile::TempDir);

impl Gpg {
    fn new() -> Gpg {
        Gpg(tempfile::tempdir().unwrap())
    }

    /// Runs gpg at a time, in seconds since 1970.
    fn at(&self, time: i64, args: &[&str], input: &[u8]) -> Vec<u8> {
        let mut gpg = Command::new("gpg");
        gpg.args(["--homedir", self.0.path().to_str().unwrap(), "--batch", "--quiet", "--yes"]);
        gpg.args(["--pinentry-mode", "loopback", "--passphrase", "", "--trust-model", "always"]);
        gpg.arg(format!("--faked-system-time={time}!")).args(args);
        let mut child =
            gpg.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), input).unwrap();
        let out = child.wait_with_output().unwrap();
        assert!(out.status.success(), "gpg {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        out.stdout
    }

    /// Makes a key; `name` is its only name.
    fn key(&self, name: &str, algorithm: &str, usage: &str, expires: &str) {
        self.at(NOW - 10 * DAY, &["--quick-generate-key", name, algorithm, usage, expires], b"");
    }

    fn fingerprint(&self, name: &str) -> String {
        let text = String::from_utf8(self.at(NOW, &["--with-colons", "--list-keys", name], b"")).unwrap();
        let line = text.lines().find(|line| line.starts_with("fpr:")).unwrap();
        line.split(':').nth(9).unwrap().to_string()
    }

    fn keyring(&self, names: &[&str]) -> Vec<u8> {
        self.at(NOW, &[&["--export"], names].concat(), b"")
    }

    /// The text, signed by a key.
    fn sign(&self, name: &str, text: &str) -> String {
        self.sign_at(NOW - DAY, name, &[], text)
    }

    fn sign_at(&self, time: i64, name: &str, options: &[&str], text: &str) -> String {
        let args = [&["--local-user", name], options, &["--clearsign"]].concat();
        String::from_utf8(self.at(time, &args, text.as_bytes())).unwrap()
    }
}

impl Drop for Gpg {
    fn drop(&mut self) {
        let _ = Command::new("gpgconf").arg("--homedir").arg(self.0.path()).args(["--kill", "all"]).status();
    }
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A `Release` file with these indexes: path, bytes that are named, and the size that is said.
fn release(indexes: &[(&str, &[u8], usize)]) -> String {
    let mut text = "Origin: Test\nSuite: testing\nCodename: sid\nDate: Thu, 01 Jan 2026 00:00:00 UTC\n\
        Valid-Until: Sun, 04 Jan 2026 00:00:00 UTC\nArchitectures: amd64\nComponents: main\nSHA256:\n"
        .to_string();
    for (path, bytes, size) in indexes {
        text += &format!(" {} {size} {path}\n", sha256(bytes));
    }
    text
}

/// What the archive at `url` gives for the suite `sid` at a time, to somebody who trusts a keyring.
fn read(
    place: &Place,
    url: &str,
    keyring: Keyring,
    now: i64,
    released: Option<&str>,
) -> Result<Packages, Error> {
    let mirror = Mirror { url: url.to_string(), suites: Vec::new(), signed_by: vec![keyring] };
    let archives = Archives { mirrors: vec![mirror], ..Archives::default() };
    let access = Access {
        stall: Duration::from_millis(400),
        pause: Duration::from_millis(5),
        tries: 2,
        ..Access::default()
    };
    let reader =
        Reader { store: &place.store, access: &access, archives: &archives, watch: &Ears::default(), now };
    let request = Debian {
        suites: vec!["sid".to_string()],
        components: vec!["main".to_string()],
        variant: Variant::Custom,
        include: vec!["tool".to_string()],
        exclude: Vec::new(),
    };
    let released = released.map(|date| BTreeMap::from([("sid".to_string(), date.to_string())]));
    let began = Instant::now();
    let choice = reader.choose(&request, "amd64", None, &released.unwrap_or_default());
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    place.assert_clean();
    choice.map(|choice| choice.packages)
}

/// It is refused, with a hint, because of each of `why`.
fn refused(what: &str, result: Result<Packages, Error>, why: &[&str]) -> Error {
    let error = result.expect_err(what);
    assert!(error.hint_text().is_some(), "{what}: {error}");
    for why in why {
        assert!(error.to_string().contains(why), "{what}: `{why}` is not in: {error}");
    }
    error
}

const PACKAGES: &str = "Package: tool\nVersion: 1\nArchitecture: amd64\nFilename: pool/t/tool_1_amd64.deb\nSize: 9\n\
    SHA256: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n";

/// An archive of files, with its index.
struct Files {
    place: Place,
    dir: PathBuf,
}

impl Files {
    fn new() -> Files {
        let place = Place::new();
        let dir = place.path("mirror");
        std::fs::create_dir_all(dir.join("dists/sid/main/binary-amd64")).unwrap();
        std::fs::write(dir.join("dists/sid/main/binary-amd64/Packages"), PACKAGES).unwrap();
        Files { place, dir }
    }

    fn read_at(
        &self,
        signed: &[u8],
        keyring: &[u8],
        now: i64,
        released: Option<&str>,
    ) -> Result<Packages, Error> {
        std::fs::write(self.dir.join("dists/sid/InRelease"), signed).unwrap();
        let file = self.place.path("keyring");
        std::fs::write(&file, keyring).unwrap();
        read(&self.place, &format!("file://{}", self.dir.display()), Keyring::File(file), now, released)
    }

    fn read(&self, signed: &str, keyring: &[u8]) -> Result<Packages, Error> {
        self.read_at(signed.as_bytes(), keyring, NOW, None)
    }
}

fn good_release() -> String {
    release(&[("main/binary-amd64/Packages", PACKAGES.as_bytes(), PACKAGES.len())])
}

#[test]
fn what_a_good_key_has_signed_is_taken() {
    let (gpg, files, text) = (Gpg::new(), Files::new(), good_release());
    gpg.key("plain", "ed25519", "sign", "never");
    gpg.key("rsa", "rsa3072", "sign", "never");
    gpg.key("parent", "ed25519", "cert", "never");
    gpg.at(NOW - 9 * DAY, &["--quick-add-key", &gpg.fingerprint("parent"), "ed25519", "sign", "0"], b"");
    gpg.key("other", "ed25519", "sign", "never");
    let all = gpg.keyring(&["plain", "rsa", "parent"]);
    for name in ["plain", "rsa", "parent"] {
        let packages = files.read(&gpg.sign(name, &text), &all).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(packages.added[0].path, "pool/t/tool_1_amd64.deb");
    }
    let armored = gpg.at(NOW, &["--armor", "--export", "plain"], b"");
    files.read(&gpg.sign("plain", &text), &armored).unwrap();
    // One good signature of several is enough, as while an archive changes its key.
    let both = gpg.at(
        NOW - DAY,
        &["--local-user", "other", "--local-user", "plain", "--clearsign"],
        text.as_bytes(),
    );
    files.read_at(&both, &all, NOW, None).unwrap();
    // What was signed once and replayed is not.
    let signed = gpg.sign("plain", &text);
    files.read_at(signed.as_bytes(), &all, NOW, Some("2026-01-01T00:00:00Z")).unwrap();
    let why = ["before the one that is locked (2026-01-01T00:00:01Z)"];
    refused("rollback", files.read_at(signed.as_bytes(), &all, NOW, Some("2026-01-01T00:00:01Z")), &why);
    refused(
        "expired",
        files.read_at(signed.as_bytes(), &all, NOW + 3 * DAY, None),
        &["valid until 2026-01-04"],
    );
    refused("a wrong clock", files.read_at(signed.as_bytes(), &all, NOW - 3 * DAY, None), &["in the future"]);
    let other_suite = gpg.sign("plain", &text.replace("testing", "stable").replace("sid", "bookworm"));
    refused("another suite", files.read(&other_suite, &all), &["not of `sid`"]);
}

#[test]
fn what_no_good_key_has_signed_is_refused() {
    let (gpg, files, text) = (Gpg::new(), Files::new(), good_release());
    gpg.key("good", "ed25519", "sign", "never");
    gpg.key("stranger", "ed25519", "sign", "never");
    gpg.key("short", "ed25519", "sign", "5d");
    gpg.key("revoked", "ed25519", "sign", "never");
    gpg.key("certifier", "ed25519", "cert", "never");
    gpg.at(NOW - 9 * DAY, &["--quick-add-key", &gpg.fingerprint("certifier"), "ed25519", "sign", "3d"], b"");
    gpg.key("weak", "rsa1024", "sign", "never");
    gpg.key("rsa", "rsa2048", "sign", "never");
    gpg.key("dsa", "dsa2048", "sign", "never");
    let keys = gpg.keyring(&["good", "short", "revoked", "certifier", "weak", "rsa", "dsa"]);
    let signed = gpg.sign("good", &text);
    files.read(&signed, &keys).expect("the good one");

    let by_revoked = gpg.sign("revoked", &text);
    let print = gpg.fingerprint("revoked");
    let certificate = gpg.0.path().join(format!("openpgp-revocs.d/{print}.rev"));
    // gpg puts a colon in front of it, so that nobody imports it by accident.
    let certificate = std::fs::read_to_string(certificate).unwrap().replace(":-----BEGIN", "-----BEGIN");
    gpg.at(NOW - DAY, &["--import"], certificate.as_bytes());
    let with_revoked = gpg.keyring(&["good", "revoked"]);

    let (_, signature) = signed.split_once("-----BEGIN PGP SIGNATURE-----").unwrap();
    let other = gpg.sign("good", "Suite: sid\n");
    let other_text = other.split_once("-----BEGIN PGP SIGNATURE-----").unwrap().0;
    let evil = text.replace("Origin: Test", "Origin: Evil");
    let armored = |args: &[&str]| {
        let args = [&["--local-user", "good", "--armor"], args].concat();
        String::from_utf8(gpg.at(NOW - DAY, &args, text.as_bytes())).unwrap()
    };
    let cases: Vec<(&str, String, &[u8], &str)> = vec![
        ("unsigned", text.clone(), &keys, "not a signed message"),
        ("empty", String::new(), &keys, "not a signed message"),
        ("the wrong key", gpg.sign("stranger", &text), &keys, "is not in the keyring"),
        ("altered text", signed.replace("Origin: Test", "Origin: Tesu"), &keys, "not one of this text"),
        ("another text in its place", signed.replace(&text, &evil), &keys, "not one of this text"),
        (
            "the signature of another text",
            format!("{other_text}-----BEGIN PGP SIGNATURE-----{signature}"),
            &keys,
            "not one of this text",
        ),
        ("two messages", format!("{signed}{signed}"), &keys, "not a signed message"),
        ("two messages, one of them evil", format!("{}{signed}", gpg.sign("stranger", &evil)), &keys, ""),
        ("text in front", format!("{evil}\n{signed}"), &keys, "not a signed message"),
        ("text behind", format!("{signed}\n{evil}"), &keys, "not a signed message"),
        ("a paragraph in front of the text", signed.replacen("\n\n", "\nOrigin: Evil\n\n", 1), &keys, ""),
        ("a signature alone", armored(&["--detach-sign"]), &keys, "not a signed message"),
        ("signed inside", armored(&["--sign"]), &keys, "not a signed message"),
        ("a key", armored(&["--export", "good"]), &keys, "not a signed message"),
        ("no signature block", other_text.to_string(), &keys, "not a signed message"),
        ("a cut signature", signed[..signed.len() - 80].to_string(), &keys, ""),
        ("a key that has expired", gpg.sign_at(NOW - 8 * DAY, "short", &[], &text), &keys, "expired at"),
        (
            "a subkey that has expired",
            gpg.sign_at(NOW - 8 * DAY, "certifier", &[], &text),
            &keys,
            "expired at",
        ),
        (
            "a signature that has expired",
            gpg.sign_at(NOW - 8 * DAY, "good", &["--default-sig-expire", "1d"], &text),
            &keys,
            "a signature has expired",
        ),
        (
            "a signature from the future",
            gpg.sign_at(NOW + 2 * DAY, "good", &[], &text),
            &keys,
            "made in the future",
        ),
        ("a revoked key", by_revoked, &with_revoked, "has been revoked"),
        (
            "a weak digest",
            gpg.sign_at(NOW - DAY, "rsa", &["--digest-algo", "SHA1"], &text),
            &keys,
            "weak digest",
        ),
        ("a short key", gpg.sign("weak", &text), &keys, "too weak"),
        ("a DSA key", gpg.sign("dsa", &text), &keys, "too weak"),
        (
            "an unknown critical notation",
            gpg.sign_at(NOW - DAY, "good", &["--sig-notation", "!x@example.org=y"], &text),
            &keys,
            "condition that is not known",
        ),
        ("no keyring", signed.clone(), b"", "is not a keyring"),
        ("a keyring that is text", signed.clone(), b"trust me", "is not a keyring"),
        ("a keyring without the key", signed.clone(), &with_revoked[..0], "is not a keyring"),
    ];
    for (what, message, keyring, why) in &cases {
        let error = refused(what, files.read(message, keyring), &[why]);
        assert_eq!(error.class(), Class::Machine, "{what}");
    }
    // What is not text is not one either.
    refused("bytes", files.read_at(&[0xff, 0xfe, 0], &keys, NOW, None), &["not text"]);
    // A detached signature beside an unsigned index is not asked for.
    std::fs::remove_file(files.dir.join("dists/sid/InRelease")).unwrap();
    std::fs::write(files.dir.join("dists/sid/Release"), &text).unwrap();
    std::fs::write(files.dir.join("dists/sid/Release.gpg"), armored(&["--detach-sign"])).unwrap();
    let url = format!("file://{}", files.dir.display());
    let keyring = || Keyring::File(files.place.path("keyring"));
    refused("detached", read(&files.place, &url, keyring(), NOW, None), &["cannot fetch the index of `sid`"]);
    // Nor is a keyring that is not there.
    std::fs::write(files.dir.join("dists/sid/InRelease"), &signed).unwrap();
    std::fs::remove_file(files.place.path("keyring")).unwrap();
    refused("no file", read(&files.place, &url, keyring(), NOW, None), &["cannot read the keyring"]);
}

/// What a mirror gives for a path; none is a 404.
type Answers = BTreeMap<String, Vec<u8>>;

fn mirror(answers: Answers) -> Server {
    Server::new(move |asked, stream| match answers.get(asked.path.trim_start_matches('/')) {
        Some(bytes) => ok(stream, bytes),
        None => head(stream, "404 Not Found", &["Content-Length: 0"]),
    })
}

#[test]
fn mirrors_that_lie_about_their_indexes() {
    use std::io::Write;
    let gpg = Gpg::new();
    gpg.key("good", "ed25519", "sign", "never");
    let keyring = String::from_utf8(gpg.at(NOW, &["--armor", "--export", "good"], b"")).unwrap();
    let gzip = |bytes: &[u8]| {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    };
    let plain = PACKAGES.as_bytes();
    let packed = gzip(plain);
    let bomb = gzip(&vec![b'\n'; 64 << 20]);
    let garbage = PACKAGES.replace("Filename: ", "Filename: ../../../../etc/");
    let nameless = PACKAGES.replace("Package: tool", "Package: ../tool");
    const PATH: &str = "main/binary-amd64/Packages";
    let gz = format!("{PATH}.gz");
    let of = |indexes: &[(&str, &[u8], usize)], answers: &[(&str, &[u8])]| {
        let mut all: Answers =
            answers.iter().map(|(path, bytes)| (format!("dists/sid/{path}"), bytes.to_vec())).collect();
        all.insert("dists/sid/InRelease".into(), gpg.sign("good", &release(indexes)).into_bytes());
        all
    };
    let named: &[(&str, &[u8], usize)] = &[(PATH, plain, plain.len())];
    let place = Place::new();
    let cases: Vec<(&str, Answers, &str)> = vec![
        ("no index", of(named, &[]), "404"),
        ("another index", of(named, &[(PATH, &[b'x'; 20])]), "not the pinned ones"),
        ("a longer one", of(named, &[(PATH, &[plain, plain].concat())]), "the limit is"),
        ("a shorter one", of(named, &[(PATH, &plain[..9])]), "not the pinned ones"),
        ("larger than it says", of(&[(PATH, plain, 10)], &[(PATH, plain)]), "the limit is"),
        (
            "larger when unpacked than it says",
            of(&[(&gz, &packed, packed.len()), (PATH, plain, 10)], &[(&gz, &packed)]),
            "more than 10 bytes when it is unpacked",
        ),
        (
            "a bomb",
            of(&[(&gz, &bomb, bomb.len()), (PATH, plain, 1000)], &[(&gz, &bomb)]),
            "more than 1000 bytes when it is unpacked",
        ),
        (
            "gzip, cut off",
            of(&[(&gz, &packed[..50], 50), (PATH, plain, plain.len())], &[(&gz, &packed[..50])]),
            "cannot unpack",
        ),
        ("no such component", of(&[], &[]), "has no SHA-256 digests|no packages of `main`"),
        (
            "a path out of the mirror",
            of(&[(PATH, garbage.as_bytes(), garbage.len())], &[(PATH, garbage.as_bytes())]),
            "does not say where `tool` is",
        ),
        (
            "a name that is a path",
            of(&[(PATH, nameless.as_bytes(), nameless.len())], &[(PATH, nameless.as_bytes())]),
            "there is no package `tool`",
        ),
        ("no index at all", Answers::new(), "404"),
    ];
    for (what, answers, why) in cases {
        let place = Place::new();
        let server = mirror(answers);
        let result =
            read(&place, server.url("").trim_end_matches('/'), Keyring::Text(keyring.clone()), NOW, None);
        let error = result.expect_err(what);
        assert!(why.split('|').any(|why| error.to_string().contains(why)), "{what}: {error}");
        assert!(error.hint_text().is_some(), "{what}: {error}");
    }
    // The honest one, found by the hash of the index where the archive offers that.
    let text = release(named).replace("Architectures", "Acquire-By-Hash: yes\nArchitectures");
    let mut answers = of(named, &[(&format!("main/binary-amd64/by-hash/SHA256/{}", sha256(plain)), plain)]);
    answers.insert("dists/sid/InRelease".into(), gpg.sign("good", &text).into_bytes());
    let server = mirror(answers);
    let url = server.url("");
    read(&place, url.trim_end_matches('/'), Keyring::Text(keyring.clone()), NOW, None).unwrap();
    assert!(Path::new(&server.asked()[1].path).starts_with("/dists/sid/main/binary-amd64/by-hash"));
    // One that never ends, and one that stalls.
    let endless = Server::new(|_, stream| {
        head(stream, "200 OK", &[])?;
        loop {
            stream.write_all(&[b' '; 65536])?;
        }
    });
    let result =
        read(&place, endless.url("").trim_end_matches('/'), Keyring::Text(keyring.clone()), NOW, None);
    refused("endless", result, &["the limit is"]);
    let stalled = Server::new(|_, stream| {
        head(stream, "200 OK", &["Content-Length: 1000"])?;
        std::thread::sleep(Duration::from_secs(2));
        Ok(())
    });
    let result = read(&place, stalled.url("").trim_end_matches('/'), Keyring::Text(keyring), NOW, None);
    refused("stalled", result, &["stalled"]);
}
