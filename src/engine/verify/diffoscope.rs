//! diffoscope's page for two layers, where it is installed (<https://diffoscope.org>).

use std::path::Path;
use std::process::{Command, Stdio};

/// Runs diffoscope on two trees. The page's path relative to `report`; none when it is not installed, fails, or
/// has nothing to show.
pub fn page(report: &Path, step: &str, a: &Path, b: &Path) -> Option<String> {
    let safe: String = step.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let name = format!("diffoscope-{safe}.html");
    let page = report.join(&name);
    if a.as_os_str().is_empty() || b.as_os_str().is_empty() {
        return None; // An empty layer has no tree.
    }
    std::fs::create_dir_all(report).ok()?;
    // Exit code 1 says that there are differences.
    let status = Command::new("diffoscope")
        .args(["--exclude-directory-metadata=yes", "--html"])
        .arg(&page)
        .args([a, b])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .ok()?;
    (status.code() == Some(1) && page.is_file()).then_some(name)
}
