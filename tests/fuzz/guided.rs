//! libFuzzer over the targets of the crates; `PALISADE_FUZZ_TARGET` names the one. `tests/chaos/fuzz` builds and runs it.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

type Target = fn(&[u8]);

fn targets() -> impl Iterator<Item = &'static (&'static str, Target)> {
    let lists: [&'static [(&str, Target)]; 4] = [
        palisade_token::fuzz::TARGETS,
        palisade_guard::fuzz::TARGETS,
        palisade_client::fuzz::TARGETS,
        palisade_coordinator::fuzz::TARGETS,
    ];
    lists.into_iter().flatten()
}

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("PALISADE_FUZZ_TARGET").unwrap_or_default();
    let Some((_, target)) = targets().find(|(known, _)| *known == name) else {
        let known: Vec<_> = targets().map(|(known, _)| *known).collect();
        eprintln!(
            "PALISADE_FUZZ_TARGET is {name:?}; allowed is {}",
            known.join(", ")
        );
        std::process::exit(2);
    };
    *target
});

fuzz_target!(|input: &[u8]| TARGET(input));
