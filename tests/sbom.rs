//! Bills of materials: valid by the official schemas, and for the validators of SPDX and CycloneDX. That of CycloneDX
//! brings its schema; the one of SPDX is taken from a crate that was made of it.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sha2::{Digest, Sha256};

const VALIDATORS: [&str; 2] = ["cyclonedx-python-lib[json-validation]==11.12.0", "spdx-tools==0.8.5"];

/// The crate with the JSON schema of SPDX 2.3, and its digest.
const SPDX: (&str, &str) = ("0.10.0", "b975b4a9145bf1b1e01427b3abfdd8bdfb4d6a5fd34ab51115cd5e65df9da931");

const RECIPE: &str = r#"
name = "demo"
version = "1.0"
epoch = 1700000000
[base]
debian = { suite = ["bookworm", "bookworm-security"], include = ["g++"] }
[sources.archive]
url = "https://example.org/hello-1.0.tar.gz?x=1"
sha512 = "SHA512"
unpack = "/src"
[sources.hello]
git = "https://github.com/Example/hello.git"
rev = "0123456789abcdef0123456789abcdef01234567"
unpack = "/hello"
[sources.zlib]
debian = "zlib"
unpack = "/zlib"
[deps.other]
recipe = "other.toml"
"#;

const LOCK: &str = r#"
version = 1
[base.ARCH]
suite = ["bookworm", "bookworm-security"]
components = ["main"]
variant = "minbase"
include = ["g++"]
packages = [
  { name = "dpkg", version = "1:1.21+b1~x", arch = "ARCH", sha256 = "SHA256", size = 1, path = "pool/dpkg.deb" },
]
added = [
  { name = "g++", version = "4:12", arch = "ARCH", sha256 = "SHA256", size = 1, path = "pool/g++.deb", suite = "bookworm-security" },
]
[sources.zlib]
debian = "zlib"
suite = ["bookworm", "bookworm-security"]
components = ["main"]
version = "1:1.2.13.dfsg-1"
from = "bookworm"
files = [{ sha256 = "SHA256", size = 1, path = "pool/zlib_1.dsc" }]
"#;

const OTHER: &str = r#"
name = "other"
base = { tar = { url = "https://example.org/base.tar", blake3 = "SHA256" } }
outputs.default = { from = "/" }
"#;

fn isolith(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isolith"));
    command.current_dir(dir).args(["--store", "store", "--offline"]).args(args).output().unwrap()
}

fn place() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let arch = isolith::base::debian::architecture().unwrap();
    let write = |name: &str, text: &str| {
        let text = text
            .replace("SHA256", &"a1".repeat(32))
            .replace("SHA512", &"b2".repeat(64))
            .replace("ARCH", arch);
        fs::write(dir.path().join(name), text).unwrap();
    };
    write("demo.toml", RECIPE);
    write("demo.lock", LOCK);
    write("other.toml", OTHER);
    dir
}

fn sbom(dir: &Path, format: &str) -> String {
    let out = isolith(dir, &["sbom", "demo.toml", "--format", format]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

fn python() -> PathBuf {
    common::python("sbom-validators", "cyclonedx, jsonschema, spdx_tools", &VALIDATORS)
}

/// The schema of SPDX 2.3.
fn spdx_schema() -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("spdx-schema");
    fs::create_dir_all(&dir).unwrap();
    let manifest = format!(
        "[package]\nname = \"schema\"\n[lib]\npath = \"lib.rs\"\n[workspace]\n[dependencies]\nserde-spdx = \"={}\"\n",
        SPDX.0
    );
    fs::write(dir.join("Cargo.toml"), manifest).unwrap();
    fs::write(dir.join("lib.rs"), "").unwrap();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    let out = cargo.args(["metadata", "--format-version", "1"]).current_dir(&dir).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let mut packages = metadata["packages"].as_array().unwrap().iter();
    let package = packages.find(|package| package["name"] == "serde-spdx").unwrap();
    let manifest = Path::new(package["manifest_path"].as_str().unwrap());
    let schema = manifest.with_file_name("schemas").join("spdx_2_3.json");
    let digest = Sha256::digest(fs::read(&schema).unwrap());
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(digest, SPDX.1, "{}", schema.display());
    schema
}

#[test]
fn both_forms_hold_to_their_schemas() {
    let dir = place();
    let python = python();
    let schema = format!(
        "import json, jsonschema, sys\nopened = [json.load(open(path)) for path in ({:?}, sys.argv[1])]\n\
         jsonschema.Draft201909Validator(opened[0], format_checker=jsonschema.FormatChecker()).validate(opened[1])",
        spdx_schema().to_str().unwrap()
    );
    let check = |name: &str, program: &str| {
        let out = Command::new(&python).args(["-c", program]).arg(dir.path().join(name)).output().unwrap();
        let text =
            [out.stdout, out.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        (out.status.success(), text)
    };
    let spdx = "import sys\nfrom spdx_tools.spdx.parser.parse_anything import parse_file\n\
        from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document as validate\n\
        found = validate(parse_file(sys.argv[1]))\nsys.exit('\\n'.join(one.validation_message for one in found) or None)";
    let cyclonedx = "import sys\nfrom cyclonedx.schema import SchemaVersion\nfrom cyclonedx.validation.json import JsonStrictValidator\n\
        sys.exit(JsonStrictValidator(SchemaVersion.V1_6).validate_str(open(sys.argv[1]).read()))";
    for (format, name, program, good, bad) in [
        ("spdx", "a.spdx.json", spdx, "\"SPDX-2.3\"", "\"SPDX-9\""),
        ("spdx", "a.spdx.json", schema.as_str(), "\"PACKAGE-MANAGER\"", "\"PACKAGE-MANGLER\""),
        ("cyclonedx", "a.cdx.json", cyclonedx, "\"SHA-256\"", "\"SHA-257\""),
    ] {
        let text = sbom(dir.path(), format);
        fs::write(dir.path().join(name), &text).unwrap();
        let (valid, said) = check(name, program);
        assert!(valid, "{format}: {said}");
        // The validator would have said so.
        fs::write(dir.path().join(name), text.replace(good, bad)).unwrap();
        assert!(!check(name, program).0, "{format}: {bad} is valid");
    }
}

#[test]
fn everything_that_is_pinned_is_in_it_and_nothing_else_changes_it() {
    let dir = place();
    for format in ["spdx", "cyclonedx"] {
        let text = sbom(dir.path(), format);
        assert_eq!(text, sbom(place().path(), format), "the same in another directory");
        for part in [
            "pkg:deb/debian/dpkg@1:1.21%2Bb1~x?arch=",
            "pkg:deb/debian/g%2B%2B@4:12?arch=",
            "distro=bookworm-security",
            "pkg:deb/debian/zlib@1:1.2.13.dfsg-1?arch=source&distro=bookworm",
            "pkg:github/example/hello@0123456789abcdef0123456789abcdef01234567",
            "pkg:generic/hello-1.0.tar.gz?checksum=sha512:",
            "pkg:generic/base.tar?checksum=blake3:",
            "\"other\"",
            "2023-11-14T22:13:20Z",
        ] {
            assert!(text.contains(part), "{format}: {part}\n{text}");
        }
    }
    let before = sbom(dir.path(), "spdx");
    let lock = fs::read_to_string(dir.path().join("demo.lock")).unwrap();
    fs::write(dir.path().join("demo.lock"), lock.replace("4:12", "4:13")).unwrap();
    let after = sbom(dir.path(), "spdx");
    let namespace =
        |text: &str| text.lines().find(|line| line.contains("documentNamespace")).unwrap().to_owned();
    assert_ne!(namespace(&before), namespace(&after));
    fs::remove_file(dir.path().join("demo.lock")).unwrap();
    let out = isolith(dir.path(), &["sbom", "demo.toml"]);
    assert_eq!(out.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&out.stderr).contains("not pinned"));
}
