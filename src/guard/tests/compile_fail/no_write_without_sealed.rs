//! A grant is not enough: it has to be sealed first.

use palisade_guard::{postgres, sqlite};

pub fn write(sealed: &postgres::Sealed) {
    let grant = sealed.grant();
    let _begin = postgres::Guard::new().begin(panic!(), grant);
    let _begin = sqlite::Guard::new().begin(panic!(), grant);
    let _all = postgres::Guard::new().begin_all(panic!(), &[grant]);
}
