//! `after`: the order of the steps.

use std::collections::BTreeMap;

use super::context::Context;
use super::model::Step;
use super::reader::Text;
use super::words;

/// What a step says about others, with places.
pub struct Links {
    pub name: Option<Text>,
    /// `None` when it says nothing: then it comes after the step above.
    pub after: Option<Vec<Text>>,
    /// `None` when it says nothing: then it uses everything.
    pub uses: Option<Vec<Text>>,
}

/// Fills in `Step::after`; reports equal names, unknown names and cycles.
pub fn link(cx: &Context<'_>, steps: &mut [Step], links: &[Links]) {
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    for (at, link) in links.iter().enumerate() {
        let Some(name) = &link.name else { continue };
        if let Some(first) = places.get(name.text.as_str()).and_then(|first| links[*first].name.as_ref()) {
            let hint = format!("the other one is on line {}; rename one of them", cx.line(&first.span));
            cx.error(&name.span, format!("two steps are named `{}`", name.text), hint);
        } else {
            places.insert(&name.text, at);
        }
    }
    for (at, link) in links.iter().enumerate() {
        let Some(after) = &link.after else {
            steps[at].after = at.checked_sub(1).into_iter().collect();
            continue;
        };
        for name in after {
            match places.get(name.text.as_str()) {
                Some(other) if *other == at => {
                    let hint = "name the steps it needs, or `after = []` for none";
                    cx.error(&name.span, format!("the step `{}` comes after itself", name.text), hint);
                }
                Some(other) if steps[at].after.contains(other) => {
                    cx.error(
                        &name.span,
                        format!("`{}` is listed twice", name.text),
                        "take one of the two out",
                    );
                }
                Some(other) => steps[at].after.push(*other),
                None => {
                    let hint = words::did_you_mean(&name.text, places.keys().copied());
                    let all: Vec<_> = places.keys().collect();
                    let hint = hint.unwrap_or_else(|| format!("the steps are {}", words::list(&all)));
                    cx.error(&name.span, format!("there is no step `{}`", name.text), hint);
                }
            }
        }
        steps[at].after.sort_unstable();
    }
    if let Some(cycle) = find_cycle(steps) {
        report_cycle(cx, steps, links, &cycle);
    }
}

/// A cycle as positions, each coming after the next and the last after the first.
fn find_cycle(steps: &[Step]) -> Option<Vec<usize>> {
    // Steps all of whose parents are settled settle too, until nothing changes (Kahn).
    let mut settled = vec![false; steps.len()];
    let mut waiting: Vec<usize> = steps.iter().map(|step| step.after.len()).collect();
    let mut children = vec![Vec::new(); steps.len()];
    for (at, step) in steps.iter().enumerate() {
        step.after.iter().for_each(|parent| children[*parent].push(at));
    }
    let mut ready: Vec<usize> = (0..steps.len()).filter(|at| waiting[*at] == 0).collect();
    while let Some(at) = ready.pop() {
        settled[at] = true;
        for child in &children[at] {
            waiting[*child] -= 1;
            if waiting[*child] == 0 {
                ready.push(*child);
            }
        }
    }
    // Every step that is left has a parent that is left, so walking up must come back.
    let mut path = vec![settled.iter().position(|settled| !settled)?];
    loop {
        let last = *path.last()?;
        let parent = *steps[last].after.iter().find(|parent| !settled[**parent])?;
        if let Some(start) = path.iter().position(|at| *at == parent) {
            return Some(path.split_off(start));
        }
        path.push(parent);
    }
}

fn report_cycle(cx: &Context<'_>, steps: &[Step], links: &[Links], cycle: &[usize]) {
    // Told in running order (parents first), starting with the step that is first in the file.
    let mut order: Vec<usize> = cycle.iter().rev().copied().collect();
    let first = order.iter().enumerate().min_by_key(|(_, at)| **at).map_or(0, |(place, _)| place);
    order.rotate_left(first);
    let names: Vec<&str> = order.iter().chain(&order[..1]).map(|at| steps[*at].name.as_str()).collect();
    // Shown at an `after` that was written; defaults alone only point upwards and make no cycle.
    let written = order.iter().find_map(|at| {
        let parents = &steps[*at].after;
        let after = links[*at].after.as_ref()?;
        after.iter().find(|name| parents.iter().any(|p| order.contains(p) && steps[*p].name == name.text))
    });
    let span = written.map_or(0..0, |name| name.span.clone());
    let message = format!("the steps wait for each other: {}", names.join(" -> "));
    cx.error(&span, message, "take one of them out of an `after`");
}
