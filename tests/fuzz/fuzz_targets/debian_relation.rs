//! Relations between packages: what is read says what it was read from.
#![no_main]

use isolith::base::debian::relations;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(groups) = relations(text, "amd64") else { return };
    let shown = |group: &Vec<_>| group.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ");
    let again = groups.iter().map(shown).collect::<Vec<_>>().join(", ");
    assert_eq!(relations(&again, "amd64").as_ref(), Ok(&groups), "{again}");
});
