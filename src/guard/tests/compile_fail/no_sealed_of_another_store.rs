//! What was sealed in one store says nothing of another.

use palisade_guard::{postgres, sqlite};

pub fn cross(postgres: &postgres::Sealed, sqlite: &sqlite::Sealed) {
    let _begin = postgres::Guard::new().begin(panic!(), sqlite);
    let _begin = sqlite::Guard::new().begin(panic!(), postgres);
    let _mixed = postgres::Guard::new().begin_all(panic!(), &[postgres, sqlite]);
}
