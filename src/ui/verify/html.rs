//! A verification as one page that needs nothing else.

use std::fmt::Write;

use super::{explained, names, statement};
use crate::engine::inspect::Content;
use crate::engine::verify::{Path, Step, Verification};
use crate::ui::diff::change;
use crate::ui::text::duration;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222}\
code,pre{font:13px/1.4 ui-monospace,monospace}pre{background:#f6f6f4;padding:.6rem;overflow-x:auto}\
table{border-collapse:collapse}td,th{text-align:left;padding:.2rem .8rem .2rem 0;vertical-align:top}\
.good{color:#176b2c}.bad{color:#a11}.off{color:#888}section{border-left:3px solid #ddd;padding-left:1rem;margin:1rem 0}\
del{background:#fdd;text-decoration:none}ins{background:#dfd;text-decoration:none}\
@media(prefers-color-scheme:dark){body{background:#181818;color:#ddd}pre{background:#222}del{background:#522}\
ins{background:#252}.good{color:#7c7}.bad{color:#f88}}";

pub(super) fn page(found: &Verification) -> String {
    let mut out = String::new();
    let title =
        format!("{} – {}", found.recipe, if found.identical { "reproducible" } else { "not reproducible" });
    let class = if found.identical { "good" } else { "bad" };
    let _ = writeln!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{0}</title><style>{STYLE}</style>\
         </head><body>\n<h1>{0}</h1>\n<p class=\"{class}\"><strong>{1}</strong></p>",
        escape(&title),
        escape(&statement(found))
    );
    for bisect in &found.bisect {
        let paths: Vec<String> =
            bisect.paths.iter().map(|path| format!("<code>{}</code>", escape(path))).collect();
        let _ = writeln!(
            out,
            "<p>Step <strong>{}</strong> <strong>{}</strong>: {}</p>",
            escape(&bisect.step),
            explained(bisect),
            paths.join(", ")
        );
    }
    for step in found.steps.iter().filter(|step| !step.is_identical()) {
        one(&mut out, step);
    }
    let _ = writeln!(out, "<h2>Steps</h2>\n<table><tr><th>step<th>reference<th>");
    for step in &found.steps {
        let (class, word) = match &step.other {
            None => ("good", "identical".to_string()),
            Some((round, _)) => ("bad", format!("differs in round {round}")),
        };
        let _ = writeln!(
            out,
            "<tr><td>{}<td><code>{}</code><td class=\"{class}\">{word}",
            escape(&step.name),
            step.reference
        );
    }
    let _ = writeln!(out, "</table>\n<h2>Rounds</h2>\n<table><tr><th>round<th>time<th>varied");
    if found.stored_reference {
        let _ = writeln!(out, "<tr><td>reference<td><td class=\"off\">results of the store");
    }
    for round in &found.rounds {
        let _ = writeln!(
            out,
            "<tr><td>{}<td>{}<td>{}",
            round.number,
            duration(round.wall_ms),
            names(&round.variations)
        );
    }
    let _ = writeln!(out, "</table>\n<h2>Variations</h2>\n<table>");
    for choice in &found.variations {
        let why =
            choice.why_not.as_deref().map_or(String::new(), |why| format!("not varied: {}", escape(why)));
        let class = if choice.applied { "" } else { " class=\"off\"" };
        let _ = writeln!(
            out,
            "<tr{class}><td><code>{}</code><td>{}<td>{why}",
            choice.name.name(),
            escape(choice.what)
        );
    }
    let _ = writeln!(out, "</table>\n</body></html>");
    out
}

fn one(out: &mut String, step: &Step) {
    let (round, layer) = step.other.unwrap_or((0, None));
    let other = layer.map_or_else(|| "no layer".to_string(), |layer| layer.to_string());
    let _ = writeln!(
        out,
        "<h2>Step {} differs in round {round}</h2>\n<p><code>{}</code><br><code>{other}</code></p>",
        escape(&step.name),
        step.reference
    );
    if let Some(below) = &step.below {
        let _ = writeln!(out, "<p>It is built on step {}, which differs.</p>", escape(below));
    }
    if !step.log.is_empty() {
        let _ = writeln!(out, "<pre>{}</pre>", escape(&step.log.join("\n")));
    }
    if let Some(page) = &step.diffoscope {
        let _ = writeln!(out, "<p><a href=\"{}\">diffoscope’s page</a></p>", escape(page));
    }
    for found in &step.paths {
        path(out, found);
    }
    if step.more_paths > 0 {
        let _ = writeln!(out, "<p>{} more paths differ.</p>", step.more_paths);
    }
}

fn path(out: &mut String, found: &Path) {
    let difference = &found.difference.difference;
    let changes: Vec<String> = difference.changes.iter().map(|c| escape(&change(c))).collect();
    let _ = writeln!(
        out,
        "<section><h3><code>{}</code></h3>\n<p>{}</p>",
        escape(&difference.path.to_string()),
        changes.join("; ")
    );
    for cause in &found.causes {
        let _ = writeln!(
            out,
            "<p>Likely: <strong>{}</strong> ({})<br>Fix: {}</p>",
            escape(cause.cause),
            escape(&cause.evidence),
            escape(cause.fix)
        );
    }
    if let Some(found) = &found.difference.content {
        content(out, found);
    }
    let _ = writeln!(out, "</section>");
}

fn content(out: &mut String, found: &Content) {
    if let Some(text) = &found.text {
        let line = |line: &str| match line.as_bytes().first() {
            Some(b'-') => format!("<del>{}</del>", escape(line)),
            Some(b'+') => format!("<ins>{}</ins>", escape(line)),
            _ => escape(line),
        };
        let lines: Vec<String> = text.lines().map(line).collect();
        let _ = writeln!(out, "<pre>{}</pre>", lines.join("\n"));
        return;
    }
    if let Some(format) = found.format {
        let _ = writeln!(out, "<p>{format}</p>\n<ul>");
        for member in &found.members {
            let facts: Vec<String> = member
                .facts
                .iter()
                .map(|(fact, a, b)| format!("{fact} {} → {}", escape(a), escape(b)))
                .collect();
            let _ = writeln!(out, "<li><code>{}</code> {}", escape(&member.name), facts.join("; "));
            if let Some(inner) = &member.content {
                content(out, inner);
            }
        }
        for note in &found.notes {
            let _ = writeln!(out, "<li>{}", escape(note));
        }
        let _ = writeln!(out, "</ul>");
        if !found.members.is_empty() || !found.notes.is_empty() {
            return;
        }
    }
    let rows = |rows: &[String]| escape(&rows.join("\n"));
    let _ = writeln!(
        out,
        "<p>First difference at byte {}</p>\n<pre><del>{}</del>\n<ins>{}</ins></pre>",
        found.bytes.offset,
        rows(&found.bytes.rows[0]),
        rows(&found.bytes.rows[1])
    );
}

/// Text as HTML has it; what could move a cursor or turn text around is shown by its number.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control()
                || ('\u{202a}'..='\u{202e}').contains(&c)
                || ('\u{2066}'..='\u{2069}').contains(&c) =>
            {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_build_becomes_markup() {
        assert_eq!(
            escape("<a href=\"x\">&\x1b\u{202e}ü\n"),
            "&lt;a href=&quot;x&quot;&gt;&amp;\\u{1b}\\u{202e}ü\n"
        );
    }
}
