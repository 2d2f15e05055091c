//! What a step can still see of the machine is written in docs/reproducibility.md; every line of it is tried.

mod common;

use common::each_mode;

struct Line {
    what: String,
    command: String,
    how: String,
}

/// The table of the page.
fn lines() -> Vec<Line> {
    let page = std::fs::read_to_string("docs/reproducibility.md").unwrap();
    let table =
        page.split("<!-- visible -->").nth(1).unwrap().split("<!-- end of visible -->").next().unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| ")).skip(1);
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        assert_eq!(cells.len(), 4, "{row}");
        let command = cells[1].trim_matches('`').to_owned();
        Line { what: cells[0].to_owned(), command, how: cells[2].to_owned() }
    })
    .collect()
}

#[test]
fn every_line_of_the_page_is_true() {
    let lines = lines();
    assert!(lines.len() >= 20, "the table has {} lines", lines.len());
    each_mode(|world| {
        // Each command twice, some time apart.
        let script: String = lines
            .iter()
            .map(|line| format!("echo '<'; {0}; echo '='; sleep 0.05; {0}; echo '>'\n", line.command))
            .collect();
        world.recipe(&format!("[[step]]\nname = \"look\"\nrun = '''\n{script}'''\n"));
        let log = world.build().ok().log("look").join("\n") + "\n";
        let mut parts = log.split("<\n").skip(1);
        for line in &lines {
            let part = parts.next().unwrap_or_else(|| panic!("{} printed nothing: {log}", line.command));
            let (first, second) = part.trim_end().trim_end_matches('>').split_once("=\n").unwrap();
            assert!(!first.trim().is_empty(), "{}: `{}` shows nothing", line.what, line.command);
            match line.how.as_str() {
                "as outside" => {
                    let outside = std::process::Command::new("busybox")
                        .args(["sh", "-c", &line.command])
                        .output()
                        .unwrap();
                    let outside = String::from_utf8_lossy(&outside.stdout).into_owned();
                    assert_eq!(first, outside, "{} ({})", line.what, world.mode.name);
                }
                "changes" => assert_ne!(first, second, "{}", line.what),
                "shows" => {}
                other => panic!("{}: what is `{other}`?", line.what),
            }
        }
    });
}
