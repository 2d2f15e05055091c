//! What makes layers differ elsewhere (mtimes, mount points, copies, links, ids, archives, checkouts, …) and
//! must not here: each cause is provoked with the program itself, and one layer id comes out, for root and for
//! a user with a range.
//!
//! What no canonical form can or should take away is what a step *writes*: see the last test.

#[path = "../common/mod.rs"]
mod common;
mod outside;
mod steps;

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Busybox, `attr`, and something to change; modes do not depend on the umask of the tests.
fn base() -> &'static Path {
    static BASE: OnceLock<PathBuf> = OnceLock::new();
    BASE.get_or_init(|| {
        let base = common::make_base("canonical");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/canonical/attr.c");
        let mut cc = Command::new("cc");
        cc.args(["-O1", "-static", "-o"]).arg(base.join("bin/attr")).arg(source);
        assert!(cc.status().unwrap().success());
        fs::create_dir_all(base.join("opt/tool/lib")).unwrap();
        for name in ["opt/tool/one", "opt/tool/two", "opt/tool/lib/three"] {
            fs::write(base.join(name), name).unwrap();
            fs::set_permissions(base.join(name), PermissionsExt::from_mode(0o644)).unwrap();
        }
        for name in ["", "etc", "home", "home/kim", "opt", "opt/tool", "opt/tool/lib", "usr"] {
            fs::set_permissions(base.join(name), PermissionsExt::from_mode(0o755)).unwrap();
        }
        for name in ["etc/passwd", "etc/group"] {
            fs::set_permissions(base.join(name), PermissionsExt::from_mode(0o644)).unwrap();
        }
        base
    })
}

/// Names that have to be the same each time.
#[derive(Default)]
struct Seen(RefCell<Vec<(String, String)>>);

impl Seen {
    /// `who` came to `name`.
    fn add(&self, name: impl std::fmt::Debug, who: &str) {
        let mut seen = self.0.borrow_mut();
        let name = format!("{name:?}");
        if let Some((first, of)) = seen.first() {
            assert_eq!(name, *first, "\n{who}\nis not like\n{of}");
        }
        seen.push((name, who.to_owned()));
    }

    fn only(&self) -> String {
        self.0.borrow().first().expect("nothing was seen").0.trim_matches('"').to_owned()
    }
}
