//! A store behind the guard, in this process: what was written by which grant, in the order in which it was.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use palisade_client::Grant;
use palisade_guard::GuardError;
use palisade_guard::memory::{FenceTable, Sealed, Volatile};

/// The guarded store.
#[derive(Debug)]
pub(super) struct Engine {
    fences: FenceTable<Volatile>,
    writes: Mutex<Vec<Grant>>,
}

impl Engine {
    pub(super) fn new() -> Self {
        Self {
            fences: FenceTable::new(Volatile),
            writes: Mutex::default(),
        }
    }

    pub(super) async fn seal(&self, grant: &Grant) -> Result<Sealed, GuardError> {
        self.fences.seal(grant).await
    }

    /// Writes, if the guard admits it.
    pub(super) fn write(&self, sealed: &Sealed) -> Result<(), GuardError> {
        let permit = self.fences.enter(sealed)?;
        self.writes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(sealed.grant().clone());
        drop(permit);
        Ok(())
    }

    pub(super) fn count(&self) -> usize {
        self.writes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// Tokens of what was written never decrease, and equal ones are of one holder (I2).
    pub(super) fn violations(&self) -> Vec<String> {
        let writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut last: BTreeMap<&str, &Grant> = BTreeMap::new();
        let mut found = Vec::new();
        for grant in &*writes {
            if let Some(before) = last.insert(grant.resource.as_str(), grant)
                && (before.token > grant.token
                    || (before.token == grant.token && before.holder != grant.holder))
            {
                found.push(format!("I2: {grant} wrote after {before}"));
            }
        }
        found
    }
}
