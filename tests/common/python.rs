//! Programs of other people that are installed from PyPI.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A Python of its own, called `name`, that can import `modules`, which `packages` bring. Without it the test fails: it
/// is there because nothing else can say what it says.
pub fn python(name: &str, modules: &str, packages: &[&str]) -> PathBuf {
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let python = venv.join("bin/python");
    let import = format!("import {modules}");
    if !Command::new(&python).args(["-c", &import]).output().is_ok_and(|out| out.status.success()) {
        let run = |command: &mut Command| {
            let out = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
            assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
        };
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv));
        run(Command::new(&python).args(["-m", "pip", "--quiet", "install"]).args(packages));
    }
    python
}
