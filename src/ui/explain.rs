//! Explanations, for people.

use std::fmt::Write;

use super::style::Style;
use super::text::sanitise_lines;
use crate::engine::{Explanation, Verdict};

/// One block a step: verdict, name, key; then the reasons as a list.
pub(super) fn render(style: Style, explanations: &[Explanation]) -> String {
    let mut out = String::new();
    let width = explanations.iter().map(|e| e.step.chars().count()).max().unwrap_or(0);
    for explanation in explanations {
        let (word, paint): (&str, fn(Style, &str) -> String) = match explanation.verdict {
            Verdict::Hit => ("hit", Style::green),
            Verdict::CutoffHit => ("cutoff-hit", Style::green),
            Verdict::Miss => ("miss", Style::yellow),
            Verdict::Unknown => ("unknown", Style::dim),
        };
        let key = explanation.key.map_or_else(|| "-".to_string(), |key| key.short());
        let name = style.bold(&format!("{:width$}", explanation.step));
        let _ = writeln!(out, "{} {name}  {}", paint(style, &format!("{word:>10}")), style.dim(&key));
        for reason in &explanation.reasons {
            let _ = writeln!(out, "{:>10} - {}", "", sanitise_lines(reason).replace('\n', "\n             "));
        }
        if let Some(nearest) = explanation.nearest
            && explanation.verdict == Verdict::Miss
        {
            let _ =
                writeln!(out, "{:>10}   {}", "", style.dim(&format!("compared with {}", nearest.short())));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::ActionKey;

    #[test]
    fn explanations() {
        let key = |text: &[u8]| Some(ActionKey::of_document(text));
        let explanation = |step: &str, verdict, key, reasons: &[&str]| Explanation {
            step: step.into(),
            verdict,
            key,
            nearest: None,
            reasons: reasons.iter().map(|r| r.to_string()).collect(),
        };
        let compile = Explanation {
            nearest: key(b"old"),
            ..explanation(
                "compile",
                Verdict::Miss,
                key(b"new"),
                &["source `src`: file `main.c` changed", "env `CFLAGS`: `-O2` became\n`-O3`"],
            )
        };
        let shown = render(
            Style::PLAIN,
            &[
                explanation("fetch", Verdict::Hit, key(b"a"), &[]),
                compile,
                explanation("test", Verdict::Unknown, None, &["step `compile` has to run first"]),
                explanation("pack", Verdict::CutoffHit, key(b"b"), &[]),
            ],
        );
        insta::assert_snapshot!(shown);
    }
}
