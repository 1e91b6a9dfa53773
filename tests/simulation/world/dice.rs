//! Chance that can be had again: `SplitMix64`.

use std::sync::Mutex;
use std::time::Duration;

use palisade_coordinator::domain::Nonce;

/// A source of chance of its own.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    /// Equal seeds give equal rolls.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A source of its own for one part, so that a roll more here moves nothing there.
    pub(crate) fn of(seed: u64, part: &str) -> Self {
        let mut dice = Self(seed);
        for byte in part.bytes() {
            dice.0 ^= u64::from(byte);
            dice.0 = dice.roll();
        }
        dice
    }

    /// The next 64 bits.
    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 up to less than this.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound.max(1)
    }

    /// From the one to the other, both among them.
    pub(crate) fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    /// Once in so many times.
    pub(crate) fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }

    /// So many times of 1000.
    pub(crate) fn permille(&mut self, times: u64) -> bool {
        self.below(1000) < times
    }

    /// One of these.
    pub(crate) fn any_of<T: Clone>(&mut self, choices: &[T]) -> T {
        let count = u64::try_from(choices.len()).unwrap();
        choices[usize::try_from(self.below(count)).unwrap()].clone()
    }

    /// An index below this.
    pub(crate) fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(u64::try_from(bound).unwrap())).unwrap()
    }

    /// A time between these, in whole milliseconds.
    pub(crate) fn millis(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.between(least, most))
    }
}

/// Chance of one process.
#[derive(Debug)]
pub(crate) struct Chance(Mutex<Dice>);

impl Chance {
    pub(crate) fn new(dice: Dice) -> Self {
        Self(Mutex::new(dice))
    }
}

impl palisade_client::Entropy for Chance {
    fn fill(&self, bytes: &mut [u8]) {
        let mut dice = self.0.lock().unwrap();
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&dice.roll().to_le_bytes()[..chunk.len()]);
        }
    }
}

impl palisade_coordinator::entropy::Entropy for Chance {
    fn nonce(&self) -> Nonce {
        let mut bytes = [0; 16];
        palisade_client::Entropy::fill(self, &mut bytes);
        Nonce::from_bytes(bytes)
    }
}
