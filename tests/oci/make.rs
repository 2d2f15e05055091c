//! Images made byte by byte: an OCI layout of layers that say exactly what a test wants.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use isolith::oci::Hasher;
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

/// A layer's archive, as it grows.
pub struct Layer(Builder<Vec<u8>>);

impl Layer {
    pub fn new() -> Layer {
        Layer(Builder::new(Vec::new()))
    }

    /// One with `.list` (the program) and what sandboxes need a place for.
    pub fn base() -> Layer {
        Layer::new().dir("./", 0o755, 0).dir("var", 0o755, 0).dir("etc", 0o755, 0).put(
            ".list",
            EntryType::Regular,
            0o755,
            (0, 0),
            &fs::read(lister()).unwrap(),
            "",
        )
    }

    /// Any member. Names that are not text are given with `\xNN`.
    pub fn put(
        self,
        name: &str,
        kind: EntryType,
        mode: u32,
        owner: (u64, u64),
        data: &[u8],
        link: &str,
    ) -> Layer {
        self.device(name, kind, mode, owner, data, link, (0, 0))
    }

    #[allow(clippy::too_many_arguments)]
    fn device(
        mut self,
        name: &str,
        kind: EntryType,
        mode: u32,
        (uid, gid): (u64, u64),
        data: &[u8],
        link: &str,
        (major, minor): (u32, u32),
    ) -> Layer {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(uid);
        header.set_gid(gid);
        header.set_mtime(1_000_000_000);
        header.set_size(data.len() as u64);
        let _ = header.set_device_major(major).and_then(|()| header.set_device_minor(minor));
        let name = name.replace("\\xff", "\u{1}").into_bytes();
        let name: Vec<u8> = name.into_iter().map(|b| if b == 1 { 0xff } else { b }).collect();
        assert!(name.len() <= 100 && link.len() <= 100);
        header.as_old_mut().name[..name.len()].copy_from_slice(&name);
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.0.append(&header, data).unwrap();
        self
    }

    pub fn file(self, name: &str, text: &str) -> Layer {
        self.put(name, EntryType::Regular, 0o644, (0, 0), text.as_bytes(), "")
    }

    pub fn dir(self, name: &str, mode: u32, uid: u64) -> Layer {
        self.put(name, EntryType::Directory, mode, (uid, uid), b"", "")
    }

    pub fn symlink(self, name: &str, to: &str) -> Layer {
        self.put(name, EntryType::Symlink, 0o777, (0, 0), b"", to)
    }

    pub fn link(self, name: &str, to: &str) -> Layer {
        self.put(name, EntryType::Link, 0o644, (0, 0), b"", to)
    }

    /// `.wh.NAME`.
    pub fn gone(self, name: &str) -> Layer {
        let (dir, last) = name.rsplit_once('/').map_or(("", name), |(dir, last)| (dir, last));
        let glue = if dir.is_empty() { "" } else { "/" };
        self.file(&format!("{dir}{glue}.wh.{last}"), "")
    }

    pub fn opaque(self, dir: &str) -> Layer {
        self.file(&format!("{dir}/.wh..wh..opq"), "")
    }

    pub fn node(self, name: &str, kind: EntryType, device: (u32, u32)) -> Layer {
        self.device(name, kind, 0o640, (0, 5), b"", "", device)
    }

    /// Attributes for the next member.
    pub fn xattr(mut self, name: &str, value: &[u8]) -> Layer {
        let key = format!("SCHILY.xattr.{name}");
        self.0.append_pax_extensions([(key.as_str(), value)]).unwrap();
        self
    }

    pub fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// Bytes that do not compress.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(word ^ (word >> 31)).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// How layers are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    Plain,
    Gzip,
    Zstd,
}

pub fn pack(bytes: &[u8], packing: Packing) -> Vec<u8> {
    match packing {
        Packing::Plain => bytes.to_vec(),
        Packing::Zstd => zstd::encode_all(bytes, 1).unwrap(),
        Packing::Gzip => {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            out.write_all(bytes).unwrap();
            out.finish().unwrap()
        }
    }
}

pub fn digest(bytes: &[u8]) -> String {
    let mut hasher = Hasher::sha256();
    hasher.update(bytes);
    hasher.text()
}

/// The platform of this machine in Go's words.
pub fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

/// Puts a blob into a layout. Gives its descriptor.
pub fn blob(layout: &Path, bytes: &[u8], kind: &str) -> Value {
    let digest = digest(bytes);
    let path = layout.join("blobs").join(digest.replace(':', "/"));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
    json!({ "mediaType": kind, "digest": digest, "size": bytes.len() })
}

/// Writes an image of these layers. Gives the descriptor of its manifest.
pub fn image(layout: &Path, layers: &[Vec<u8>], packing: Packing, architecture: &str) -> Value {
    image_that(layout, layers, packing, architecture, &json!({ "Env": ["PATH=/nowhere"] }))
}

/// One that says how it runs.
pub fn image_that(
    layout: &Path,
    layers: &[Vec<u8>],
    packing: Packing,
    architecture: &str,
    runs: &Value,
) -> Value {
    let diff_ids: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
    let config = json!({
        "architecture": architecture, "os": "linux", "config": runs,
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let end = match packing {
        Packing::Plain => "",
        Packing::Gzip => "+gzip",
        Packing::Zstd => "+zstd",
    };
    let kind = format!("application/vnd.oci.image.layer.v1.tar{end}");
    let layers: Vec<Value> = layers.iter().map(|layer| blob(layout, &pack(layer, packing), &kind)).collect();
    let config = blob(layout, config.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json");
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({ "schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers });
    blob(layout, manifest.to_string().as_bytes(), kind)
}

/// Writes a layout with one image, called `latest`.
pub fn layout(at: &Path, layers: &[Vec<u8>], packing: Packing) {
    let mut manifest = image(at, layers, packing, architecture());
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": "latest" });
    index(at, &[manifest]);
}

pub fn index(at: &Path, manifests: &[Value]) {
    fs::write(at.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let index = json!({ "schemaVersion": 2, "manifests": manifests });
    fs::write(at.join("index.json"), index.to_string()).unwrap();
}

/// The program that lists trees.
pub fn lister() -> &'static Path {
    static LISTER: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = LISTER.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let (path, source) = (dir.path().join("list"), "tests/oci/list.c");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
        let output = Command::new("cc").args(["-O1", "-static", "-o"]).args([&path, &source]).output();
        let output = output.expect("no C compiler: install the Debian packages `gcc` and `libc6-dev`");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        (dir, path)
    });
    path
}

/// Runs a program of others. Its output.
pub fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let output =
        output.unwrap_or_else(|why| panic!("no {program} ({why}): install the Debian package of that name"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{program} {args:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}
