//! Whether calls that overlap fit a sequential specification: Wing & Gong's search, with Lowe's memory of where it has
//! been, bounded.
//!
//! Of the crates that do this none serves here: `stateright` and `todc-utils` search without a bound and without
//! memory, and neither knows calls that may have happened at any time after they were made, or not at all.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;

pub(crate) mod mutex;
#[cfg(test)]
mod tests;

/// What calls do one after the other.
pub(crate) trait Sequential {
    /// What they change.
    type State: Clone + Eq + Hash + Debug + Default;
    /// A call with what it was told.
    type Call: Debug;

    /// The state after it; none where it cannot be told that in this state.
    fn step(state: &Self::State, call: &Self::Call) -> Option<Self::State>;
}

/// A call and when it was under way, by any numbers that order what happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span<C> {
    /// What.
    pub call: C,
    /// When it was made.
    pub from: u64,
    /// When its outcome was told. None where that is unknown: it may have happened at any time since, or may
    /// happen yet, or never.
    pub to: Option<u64>,
}

/// What the search came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// There is an order.
    Fits,
    /// There is none.
    Broken {
        /// Those that could be put in order, at the most.
        placed: Vec<usize>,
        /// One that could not follow them, though it was over before any other.
        stuck: usize,
    },
    /// The search was given up.
    Undecided,
}

/// How many states a search visits: about 30 MB with a hundred calls.
pub(crate) const MOST_VISITED: usize = 200_000;

#[derive(Clone, PartialEq, Eq, Hash)]
struct Set(Box<[u64]>);

impl Set {
    fn empty(size: usize) -> Self {
        Self(vec![0; size.div_ceil(64)].into())
    }

    fn has(&self, index: usize) -> bool {
        self.0[index / 64] >> (index % 64) & 1 == 1
    }

    fn with(&self, index: usize) -> Self {
        let mut set = self.clone();
        set.0[index / 64] |= 1 << (index % 64);
        set
    }

    fn len(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }
}

/// Looks for an order of calls in which each follows those that were over when it was made, and each is told what the
/// specification says.
pub(crate) fn check<S: Sequential>(calls: &[Span<S::Call>], most_visited: usize) -> Verdict {
    let start = (Set::empty(calls.len()), S::State::default());
    let mut seen = HashSet::from([start.clone()]);
    let mut stack = vec![start];
    let mut furthest = Set::empty(calls.len());
    while let Some((done, state)) = stack.pop() {
        let Some(next_over) = next_over(calls, &done) else {
            return Verdict::Fits;
        };
        if done.len() > furthest.len() {
            furthest = done.clone();
        }
        let may_be_next = |index: &usize| !done.has(*index) && calls[*index].from <= next_over.0;
        let mut candidates: Vec<usize> = (0..calls.len()).filter(may_be_next).collect();
        // The stack turns them round: what is over first is tried first, what may never have happened last.
        candidates.sort_by_key(|&index| {
            std::cmp::Reverse((calls[index].to.unwrap_or(u64::MAX), calls[index].from))
        });
        for index in candidates {
            let Some(after) = S::step(&state, &calls[index].call) else {
                continue;
            };
            let next = (done.with(index), after);
            if seen.len() >= most_visited {
                return Verdict::Undecided;
            }
            if seen.insert(next.clone()) {
                stack.push(next);
            }
        }
    }
    let stuck = next_over(calls, &furthest).map_or(0, |(_, index)| index);
    let placed = (0..calls.len()).filter(|&index| furthest.has(index));
    Verdict::Broken {
        placed: placed.collect(),
        stuck,
    }
}

/// Of the calls that certainly happened and have no place yet, the one that is over first.
fn next_over<C>(calls: &[Span<C>], done: &Set) -> Option<(u64, usize)> {
    let open = calls.iter().enumerate();
    let open = open.filter(|(index, _)| !done.has(*index));
    open.filter_map(|(index, span)| Some((span.to?, index)))
        .min()
}
