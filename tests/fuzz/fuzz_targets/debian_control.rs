//! Indexes of an archive and `.dsc` files: whatever they say, choosing from them ends.
#![no_main]

use isolith::base::debian::{Debian, Index, Universe, Variant, choose, dsc_of, machine};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = dsc_of(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = (machine::one_line(text), machine::paragraphs(text), isolith::base::debian::Release::parse(text));
    let indexes = [Index { suite: "s".into(), rank: 500, text: text.into() }];
    let universe = Universe::read(&indexes, "amd64");
    let include: Vec<String> = universe.all.iter().take(3).map(|binary| binary.name.to_string()).collect();
    let request = Debian {
        suites: vec!["s".into()],
        components: vec!["main".into()],
        variant: Variant::Minbase,
        include,
        exclude: Vec::new(),
    };
    let _ = choose(&universe, &request, None);
});
