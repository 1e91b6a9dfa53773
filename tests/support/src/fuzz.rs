//! Fuzzing that any test can do: a corpus is replayed, then edited at random, for a bounded number of inputs.
//!
//! `tests/chaos/fuzz` runs the same targets under the guidance of coverage, for as long as one likes.

use std::fs;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

/// How many edited inputs one run tries, unless `PALISADE_FUZZ_RUNS` says otherwise: a second or so in a debug build.
const RUNS: u32 = 3_000;
/// The longest input: longer ones find what is not bounded, and that is looked for where it is allocated.
const MOST_BYTES: usize = 16 * 1024;
/// The most edits of one input.
const MOST_EDITS: usize = 8;
/// Numbers at which bounds lie.
const NUMBERS: [&str; 16] = [
    "0",
    "1",
    "-1",
    "255",
    "256",
    "257",
    "4096",
    "65535",
    "4294967296",
    "9007199254740991",
    "9007199254740992",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1e308",
];

/// One change of an input.
#[derive(Debug, Clone)]
enum Edit {
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Set(Index, u8),
    Flip(Index, u8),
    /// A part of some entry of the corpus.
    Splice(Index, Index, Index, usize),
    /// A part of itself, many times.
    Repeat(Index, usize, usize),
    /// A number in place of the digits there.
    Number(Index, Index),
}

fn edit() -> impl Strategy<Value = Edit> {
    let at = any::<Index>;
    prop_oneof![
        (at(), prop::collection::vec(any::<u8>(), 1..8))
            .prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        (at(), 1..16_usize).prop_map(|(at, length)| Edit::Remove(at, length)),
        (at(), any::<u8>()).prop_map(|(at, byte)| Edit::Set(at, byte)),
        (at(), 0..8_u8).prop_map(|(at, bit)| Edit::Flip(at, bit)),
        (at(), at(), at(), 1..64_usize)
            .prop_map(|(at, of, from, length)| Edit::Splice(at, of, from, length)),
        (at(), 1..32_usize, 2..64_usize)
            .prop_map(|(at, length, times)| Edit::Repeat(at, length, times)),
        (at(), at()).prop_map(|(at, number)| Edit::Number(at, number)),
    ]
}

impl Edit {
    fn apply(&self, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        let (Self::Insert(at, _)
        | Self::Remove(at, _)
        | Self::Set(at, _)
        | Self::Flip(at, _)
        | Self::Splice(at, ..)
        | Self::Repeat(at, ..)
        | Self::Number(at, _)) = self;
        let at = at.index(input.len() + 1);
        let part =
            |of: &[u8], from: usize, length: usize| of[from..of.len().min(from + length)].to_vec();
        let (until, with) = match self {
            Self::Insert(_, bytes) => (at, bytes.clone()),
            Self::Remove(_, length) => (at + length, Vec::new()),
            Self::Set(_, byte) => (at + 1, vec![*byte]),
            Self::Flip(_, bit) => (
                at + 1,
                input
                    .get(at)
                    .map(|byte| byte ^ (1 << bit))
                    .into_iter()
                    .collect(),
            ),
            Self::Splice(_, of, from, length) => {
                let of = &corpus[of.index(corpus.len())];
                (at, part(of, from.index(of.len() + 1), *length))
            }
            Self::Repeat(_, length, times) => (at, part(input, at, *length).repeat(*times)),
            Self::Number(_, number) => {
                let digits = input[at..]
                    .iter()
                    .take_while(|byte| byte.is_ascii_digit())
                    .count();
                (
                    at + digits,
                    NUMBERS[number.index(NUMBERS.len())].as_bytes().to_vec(),
                )
            }
        };
        let until = until.min(input.len());
        drop(input.splice(at..until, with));
        input.truncate(MOST_BYTES);
    }
}

fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(name)
}

/// The entries of a corpus, in order, and an empty one.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let directory = directory(name);
    let entries =
        fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    let mut corpus = vec![Vec::new()];
    corpus.extend(
        files
            .iter()
            .map(|file| fs::read(file).expect("an entry can be read")),
    );
    corpus
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Runs a target, which panics where a property does not hold, on every entry of `tests/fuzz/corpus/NAME`, and on 3,000
/// edited ones: the same each time, or as many as `PALISADE_FUZZ_RUNS` says, from a seed of chance that a failure names
/// (`PALISADE_SEED`).
///
/// # Panics
///
/// When the target does: with the smallest input for which it was seen to, kept in `tests/logs` of the workspace. Put it
/// into the corpus with the fix.
pub fn fuzz(name: &str, target: fn(&[u8])) {
    let corpus = corpus(name);
    for entry in &corpus {
        if catch_unwind(AssertUnwindSafe(|| target(entry))).is_err() {
            panic!(
                "{name}: fails for the corpus' entry {}",
                entry.escape_ascii()
            );
        }
    }
    let runs = number("PALISADE_FUZZ_RUNS").and_then(|runs| u32::try_from(runs).ok());
    let config = Config {
        cases: runs.unwrap_or(RUNS),
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..Config::default()
    };
    // What the gate says of one state of the sources is the same each time; a longer search is always another.
    let chosen = if runs.is_some() {
        RandomState::new().build_hasher().finish()
    } else {
        0
    };
    let seed = number("PALISADE_SEED").unwrap_or(chosen);
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let edits = (any::<Index>(), prop::collection::vec(edit(), 1..MOST_EDITS));
    let inputs = edits.prop_map(|(entry, edits)| {
        let mut input = corpus[entry.index(corpus.len())].clone();
        edits
            .iter()
            .for_each(|edit| edit.apply(&mut input, &corpus));
        input
    });
    let result = TestRunner::new_with_rng(config, rng).run(&inputs, |input| {
        target(&input);
        Ok(())
    });
    match result {
        Ok(()) => {}
        Err(TestError::Fail(why, input)) => {
            let kept = keep(name, seed, &input);
            panic!(
                "{name}, PALISADE_SEED={seed}: {why}: for {} (kept in {kept})",
                input.escape_ascii()
            );
        }
        Err(TestError::Abort(why)) => panic!("{name}: {why}"),
    }
}

fn keep(name: &str, seed: u64, input: &[u8]) -> String {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../logs/fuzz");
    let file = directory.join(format!("{name}-{seed}"));
    let written = fs::create_dir_all(&directory).and_then(|()| fs::write(&file, input));
    written.map_or_else(|error| error.to_string(), |()| file.display().to_string())
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::fuzz;

    /// A text with its length before it; the length is believed.
    fn believes_a_length(input: &[u8]) {
        if let Some((b'#', rest)) = input.split_first()
            && let Some((length, text)) = rest.split_first()
        {
            let _text = &text[..usize::from(*length)];
        }
    }

    /// The same, with the length checked.
    fn checks_a_length(input: &[u8]) {
        if let Some((b'#', rest)) = input.split_first()
            && let Some((length, text)) = rest.split_first()
        {
            let _text = text.get(..usize::from(*length));
        }
    }

    #[test]
    fn a_parser_that_indexes_without_a_check_is_found() {
        let found = catch_unwind(|| fuzz("planted", believes_a_length));
        let cause = found.expect_err("it is found");
        let said = cause.downcast_ref::<String>().expect("a panic with words");
        assert!(
            said.contains("PALISADE_SEED=") && said.contains("kept in"),
            "{said}"
        );
        fuzz("planted", checks_a_length);
    }
}
