//! Whoever ends a transaction has the only one.

use palisade_guard::{postgres, sqlite};

pub fn copies(postgres: &postgres::GuardedTx, sqlite: &sqlite::GuardedTx) {
    let _copy: postgres::GuardedTx = postgres.clone();
    let _copy: sqlite::GuardedTx = sqlite.clone();
}
