use std::hash::{BuildHasher as _, RandomState};

use palisade_token::Grant;

/// What random texts are made of besides random bytes: what parsers and quoting trip over.
const ODD: &[&str] = &[
    "",
    " ",
    "\0",
    "\n",
    "'",
    "''",
    "\"",
    "`",
    "\\",
    "\\'",
    ";",
    "--",
    "/*",
    "*/",
    "$$",
    "{",
    "}",
    "{}",
    "%s",
    "%",
    "_",
    "/",
    "//",
    "..",
    ".",
    "#",
    ":",
    "-",
    "+",
    "0",
    "00",
    "1e1",
    "0x2a",
    "NaN",
    "inf",
    "-1",
    "42.0",
    "9007199254740991",
    "9007199254740992",
    "18446744073709551616",
    "null",
    "NULL",
    "true",
    "ſ",
    "K",
    "é",
    "\u{202e}",
    "\u{feff}",
    "🦀",
    "orders",
    "ORDERS",
    "orders/eu",
    "{orders}",
    "palisade",
    "fence",
    "'; DROP TABLE orders; --",
    "' OR '1'='1",
    "${jndi}",
    "\r\nx-fence-token: 42",
];

/// A small, seeded source of noise (SplitMix64): the same seed, the same noise.
pub(crate) struct Noise(u64);

impl Noise {
    /// From the environment's seed, or a fresh one, which a failing test shows.
    #[allow(
        clippy::print_stderr,
        reason = "the test runner shows it beside the failure"
    )]
    pub(crate) fn new(of: &str) -> Self {
        let seed = std::env::var("PALISADE_TEST_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok())
            .unwrap_or_else(|| RandomState::new().hash_one(of));
        eprintln!("to see this again: PALISADE_TEST_SEED={seed}");
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound).unwrap()).unwrap()
    }

    pub(crate) fn bytes(&mut self) -> Vec<u8> {
        let length = match self.below(8) {
            0 => 0,
            1 => 300 + self.below(3_000),
            _ => self.below(40),
        };
        (0..length).map(|_| self.next().to_le_bytes()[0]).collect()
    }

    /// A text that has something wrong with it, as often as not near to `good`.
    pub(crate) fn text(&mut self, good: &str) -> String {
        match self.below(7) {
            0 => String::from_utf8_lossy(&self.bytes()).into_owned(),
            1 => self.odd().to_owned(),
            2 => format!("{good}{}", self.odd()),
            3 => format!("{}{good}", self.odd()),
            4 => {
                let mut letters: Vec<char> = good.chars().collect();
                let at = self.below(letters.len());
                match self.below(3) {
                    0 => drop(letters.remove(at)),
                    1 => letters.insert(at, self.letter()),
                    _ => letters[at] = self.letter(),
                }
                letters.into_iter().collect()
            }
            5 => good.repeat(1 + self.below(100)),
            _ => (0..self.below(6)).map(|_| self.odd()).collect(),
        }
    }

    /// A grant's three texts, not all of them those of `good`.
    pub(crate) fn grant(&mut self, good: &Grant) -> [String; 3] {
        let whole = [
            good.resource.to_string(),
            good.token.to_string(),
            good.holder.to_string(),
        ];
        loop {
            let mut texts = whole.clone();
            for text in &mut texts {
                if self.below(2) == 0 {
                    *text = self.text(text);
                }
            }
            if texts != whole {
                return texts;
            }
        }
    }

    fn odd(&mut self) -> &'static str {
        ODD[self.below(ODD.len())]
    }

    fn letter(&mut self) -> char {
        let code = u32::try_from(self.next() % 0x300).unwrap();
        char::from_u32(code).unwrap_or('?')
    }
}

/// Says whether the three texts are a grant by the types of Rust, and which.
pub(crate) fn parsed([resource, token, holder]: &[String; 3]) -> Option<Grant> {
    format!("{resource}#{token}#{holder}").parse().ok()
}
