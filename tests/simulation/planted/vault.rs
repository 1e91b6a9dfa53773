//! Guards that do not guard.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use palisade_token::{FencingToken, Grant, HolderId, ResourceName};

use crate::history::{Barred, Guarded, Host, Recorder};
use crate::vault::Vault;

/// What is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    /// It lets every write in.
    LooksAway,
    /// It knows the keys of effects no longer than their holder.
    ForgetsKeys,
}

#[derive(Debug, Default)]
struct Data {
    fences: BTreeMap<ResourceName, (FencingToken, HolderId)>,
    applied: BTreeSet<(ResourceName, u64)>,
    writes: u64,
}

/// A guard with a flaw.
#[derive(Debug)]
pub(super) struct Careless {
    flaw: Flaw,
    recorder: Recorder,
    data: Mutex<Data>,
}

impl Careless {
    pub(super) fn new(flaw: Flaw, recorder: &Recorder) -> Arc<Self> {
        Arc::new(Self {
            flaw,
            recorder: recorder.clone(),
            data: Mutex::default(),
        })
    }

    /// What is done where the grant is the sealed one.
    fn admit(
        &self,
        (host, grant): (Host, &Grant),
        what: impl FnOnce(&mut Data) -> Guarded,
    ) -> Result<(), Barred> {
        let mut data = self.data.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = (grant.token, grant.holder);
        let barred = match data.fences.get(&grant.resource) {
            _ if self.flaw == Flaw::LooksAway => None,
            Some(fence) if *fence == shown => None,
            Some(fence) if fence.0 > shown.0 => Some(Barred::Stale),
            _ => Some(Barred::Unsealed),
        };
        let seen = barred.map_or_else(|| what(&mut data), Guarded::Refused);
        self.recorder.guarded(host, grant, seen);
        barred.map_or(Ok(()), Err)
    }
}

#[async_trait]
impl Vault for Careless {
    async fn seal(&self, host: Host, grant: &Grant) -> Result<(), Barred> {
        let mut data = self.data.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = (grant.token, grant.holder);
        let fence = data.fences.entry(grant.resource.clone()).or_insert(shown);
        if shown.0 < fence.0 {
            let refused = Guarded::Refused(Barred::Stale);
            self.recorder.guarded(host, grant, refused);
            return Err(Barred::Stale);
        }
        let is_new = *fence != shown;
        *fence = shown;
        if is_new && self.flaw == Flaw::ForgetsKeys {
            data.applied.retain(|(name, _)| *name != grant.resource);
        }
        self.recorder.guarded(host, grant, Guarded::Sealed);
        Ok(())
    }

    async fn read(&self, host: Host, grant: &Grant) -> Result<u64, Barred> {
        self.admit((host, grant), |_| Guarded::Read)?;
        let data = self.data.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(data.writes)
    }

    async fn write(&self, host: Host, grant: &Grant, key: Option<u64>) -> Result<(), Barred> {
        self.admit((host, grant), |data| match key {
            Some(key) if !data.applied.insert((grant.resource.clone(), key)) => {
                Guarded::Replayed { key }
            }
            key => {
                data.writes += 1;
                Guarded::Wrote { key }
            }
        })
    }
}
