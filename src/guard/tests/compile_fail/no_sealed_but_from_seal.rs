//! A `Sealed` cannot be made, not for a store of one's own either, and a transaction cannot.

use palisade_guard::postgres::{GuardedTx, Sealed};

pub struct Mine;

pub fn forge(real: &Sealed) {
    let grant = real.grant().clone();
    let _private: Sealed = Sealed::new(grant.clone());
    let _other = palisade_guard::Sealed::<Mine>::new(grant.clone());
    let _default: Sealed = Default::default();
    let _from: Sealed = grant.into();
    let _transaction = GuardedTx::new(panic!(), Vec::new());
}
