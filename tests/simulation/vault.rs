//! What is protected in a run: data behind the guard's own fence table, and effects that are applied once.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use palisade_coordinator::clock::Clock;
use palisade_guard::GuardError;
use palisade_guard::memory::{FenceTable, OwnedPermit, Volatile};
use palisade_token::{Grant, ResourceName};

use crate::history::{Barred, Guarded, Host, Recorder};

/// Where clients seal, read and write. Whoever implements it writes down what took effect, when it did.
#[async_trait]
pub(crate) trait Vault: fmt::Debug + Send + Sync {
    /// Raises the fence, and waits for the writers of older tokens.
    async fn seal(&self, host: Host, grant: &Grant) -> Result<(), Barred>;

    /// Reads the data: how many writes there were.
    async fn read(&self, host: Host, grant: &Grant) -> Result<u64, Barred>;

    /// Writes, once for a key.
    async fn write(&self, host: Host, grant: &Grant, key: Option<u64>) -> Result<(), Barred>;
}

/// How long a write is under way between the check and its end.
pub(crate) const WRITE_TAKES: Duration = Duration::from_millis(3);

/// The honest one.
pub(crate) struct Fenced {
    table: FenceTable<Volatile>,
    data: Mutex<Data>,
    clock: Arc<dyn Clock>,
    recorder: Recorder,
}

#[derive(Debug, Default)]
struct Data {
    writes: u64,
    applied: BTreeSet<(ResourceName, u64)>,
}

impl fmt::Debug for Fenced {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Fenced").finish_non_exhaustive()
    }
}

impl Fenced {
    /// An empty one; `clock` says how long writes take.
    #[must_use]
    pub(crate) fn new(clock: Arc<dyn Clock>, recorder: Recorder) -> Arc<Self> {
        Arc::new(Self {
            table: FenceTable::new(Volatile),
            data: Mutex::default(),
            clock,
            recorder,
        })
    }

    fn data(&self) -> MutexGuard<'_, Data> {
        self.data.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, host: Host, grant: &Grant) -> Result<OwnedPermit, Barred> {
        self.table.admit_owned(grant).map_err(|error| {
            let barred = barred(&error);
            self.recorder.guarded(host, grant, Guarded::Refused(barred));
            barred
        })
    }
}

#[async_trait]
impl Vault for Fenced {
    async fn seal(&self, host: Host, grant: &Grant) -> Result<(), Barred> {
        let sealed = self.table.seal(grant).await;
        let (what, answer) = match sealed {
            Ok(_) => (Guarded::Sealed, Ok(())),
            Err(error) => {
                let barred = barred(&error);
                (Guarded::Refused(barred), Err(barred))
            }
        };
        self.recorder.guarded(host, grant, what);
        answer
    }

    async fn read(&self, host: Host, grant: &Grant) -> Result<u64, Barred> {
        let _permit = self.enter(host, grant)?;
        self.recorder.guarded(host, grant, Guarded::Read);
        Ok(self.data().writes)
    }

    async fn write(&self, host: Host, grant: &Grant, key: Option<u64>) -> Result<(), Barred> {
        let _permit = self.enter(host, grant)?;
        self.clock.sleep(WRITE_TAKES).await;
        let mut data = self.data();
        let what = match key {
            Some(key) if !data.applied.insert((grant.resource.clone(), key)) => {
                Guarded::Replayed { key }
            }
            key => {
                data.writes += 1;
                Guarded::Wrote { key }
            }
        };
        self.recorder.guarded(host, grant, what);
        Ok(())
    }
}

/// Why the guard refused.
#[must_use]
pub(crate) fn barred(error: &GuardError) -> Barred {
    match error {
        GuardError::Stale { .. } => Barred::Stale,
        GuardError::Unsealed { .. } => Barred::Unsealed,
        GuardError::Collision { .. } => Barred::Collision,
        _ => Barred::Unavailable,
    }
}
