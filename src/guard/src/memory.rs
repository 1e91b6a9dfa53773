//! Fences in memory, for people who write their own engine: a file, a log, a cache, a service.
//!
//! The engine holds one [`FenceTable`]. Who wants to write *enters* and gets a permit, holds it over the
//! write **and its durability**, and drops it. A seal raises the fence, keeps it by the engine's
//! [`Durability`], waits for the permits of earlier holders, and only then admits the new one. A bare
//! comparison before the write would be the read hole again: the seal could pass between the two.
//!
//! ```
//! # async fn lead(grant: &palisade_token::Grant) -> Result<(), palisade_guard::GuardError> {
//! use palisade_guard::memory::{FenceTable, Volatile};
//!
//! let table = FenceTable::new(Volatile); // a real engine keeps its fences: see `Durability`
//! let sealed = table.seal(grant).await?; // before the first read
//! let handle = table.resolve(&sealed)?;
//! {
//!     let _permit = handle.enter()?;
//!     // write, and make it durable
//! }
//! # Ok(()) }
//! ```
//!
//! - [`Handle::enter`] is the fast way for a holder in this process: one compare-and-swap.
//! - [`FenceTable::enter`] asks first whether it was this table that has sealed the grant.
//! - [`FenceTable::admit`] decides on a grant that came with a request, sealed by another process: it looks the
//!   resource up by name.
//!
//! # What happens when
//!
//! From the first poll of [`FenceTable::seal`] the fence is raised for those who enter: earlier holders
//! get [`GuardError::Stale`], whatever becomes of the seal. If it fails or is dropped, nobody writes
//! until somebody seals that grant again, or a greater one: it fails closed. A permit that is never dropped
//! keeps the seal waiting; bound that wait by dropping the seal, and the writers by your engine.
//!
//! After a restart the table starts from what [`Durability`] kept: [`FenceTable::recovered`].
//!
//! # Counting
//!
//! Refusals and seals are counted ([`crate::metrics`]); an admission is not, it would cost more than itself.

mod index;
mod permit;
mod slot;
mod word;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use palisade_token::{Grant, ResourceName};
use tracing::Instrument as _;

use crate::decide::Mark;
use crate::metrics::{self, StoreKind, Timer};
use crate::{GuardError, sealed, spans};

use index::Index;
pub use permit::{Handle, OwnedPermit, Permit};
pub use word::MAX_PERMITS;

/// The store of [`Sealed`].
///
/// It names the store in types, so that a grant sealed elsewhere is none here:
///
/// ```
/// use palisade_guard::memory::{FenceTable, Memory, OwnedPermit, Volatile};
/// use palisade_guard::{GuardError, Sealed};
///
/// fn append(
///     table: &FenceTable<Volatile>,
///     sealed: &Sealed<Memory>,
/// ) -> Result<OwnedPermit, GuardError> {
///     table.enter_owned(sealed)
/// }
/// ```
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Memory {}

/// A grant that was sealed in a table; only [`FenceTable::seal`] makes one.
pub type Sealed = crate::Sealed<Memory>;

/// Most resources of one table, unless it is told otherwise: about 300 MB of fences, which are never
/// deleted.
pub const MAX_RESOURCES: usize = 1 << 20;

/// Most resources of one [`FenceTable::enter_all`].
pub const MAX_ENTERED: usize = 10_000;

/// How an engine keeps its fences.
///
/// A log of fences, flushed before the answer (its folder too, once, when it is made):
///
/// ```
/// use std::error::Error;
/// use std::fs::File;
/// use std::io::Write as _;
///
/// use palisade_guard::memory::{Durability, FenceTable};
/// use palisade_token::Grant;
///
/// struct Log(File);
///
/// impl Durability for Log {
///     async fn raise(&self, fence: &Grant) -> Result<(), Box<dyn Error + Send + Sync>> {
///         (&self.0).write_all(format!("{fence}\n").as_bytes())?; // one write for one fence
///         Ok(self.0.sync_data()?) // an engine with other tasks does this in a thread of its own
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("fences");
/// # let grant: palisade_token::Grant = "orders#42#000102030405060708090a0b0c0d0e0f".parse()?;
/// let log = File::options().append(true).create(true).open(&path)?;
/// FenceTable::new(Log(log)).seal(&grant).await?;
///
/// // After a restart.
/// let kept = std::fs::read_to_string(&path)?;
/// let fences = kept.lines().map(str::parse).collect::<Result<Vec<Grant>, _>>()?;
/// let table = FenceTable::recovered(Log(File::options().append(true).open(&path)?), fences)?;
/// let _permit = table.admit(&grant)?;
/// # Ok(()) }
/// ```
pub trait Durability: Send + Sync {
    /// Keeps this fence, over a crash and a loss of power, before it answers `Ok`. The same one may come
    /// again. Those of one resource come one after another, rising, unless a seal was dropped while it
    /// waited here: what that call still does must not undo a later one. Whoever keeps the greatest token
    /// of each resource, or appends to a log and recovers by [`FenceTable::recovered`], is safe.
    ///
    /// After an error it may have been kept or not.
    ///
    /// # Errors
    /// Whatever kept it from being kept: the seal fails with [`GuardError::Backend`].
    fn raise(
        &self,
        fence: &Grant,
    ) -> impl Future<Output = Result<(), Box<dyn std::error::Error + Send + Sync>>> + Send;
}

/// Keeps nothing: for data that ends with the process, and for tests. With data that is kept, a restart
/// would admit whoever seals first.
///
/// ```
/// use palisade_guard::memory::{FenceTable, Volatile};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let grant: palisade_token::Grant = "orders#42#000102030405060708090a0b0c0d0e0f".parse()?;
///
/// let table = FenceTable::new(Volatile);
/// table.seal(&grant).await?;
/// assert!(table.admit(&grant).is_ok());
///
/// // The next process knows nothing of it.
/// let table = FenceTable::new(Volatile);
/// assert_eq!(table.fence(&grant.resource), None);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Volatile;

impl Durability for Volatile {
    async fn raise(&self, _fence: &Grant) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(())
    }
}

/// The fences of an engine. Share it by `Arc`.
///
/// ```
/// use palisade_guard::GuardError;
/// use palisade_guard::memory::{FenceTable, Volatile};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let grant: palisade_token::Grant = "orders#42#000102030405060708090a0b0c0d0e0f".parse()?;
/// # let later: palisade_token::Grant = "orders#43#0f0e0d0c0b0a09080706050403020100".parse()?;
///
/// let table = FenceTable::new(Volatile);
/// let sealed = table.seal(&grant).await?;
/// let permit = table.enter(&sealed)?;
/// // … write, and make it durable …
/// drop(permit); // a seal waits for this
///
/// table.seal(&later).await?;
/// assert!(matches!(table.enter(&sealed), Err(GuardError::Stale { .. })));
/// assert!(!sealed.is_live());
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct FenceTable<D> {
    id: u64,
    index: Index,
    durability: D,
}

impl<D: Durability> FenceTable<D> {
    /// A table without fences, for an engine that has never kept any.
    #[must_use]
    pub fn new(durability: D) -> Self {
        Self::of(durability, Index::new(MAX_RESOURCES))
    }

    /// The table of an engine that has kept these fences: of each resource the greatest counts, in
    /// whatever order they come.
    ///
    /// # Errors
    /// [`GuardError::Collision`] if two holders of one token were kept, [`GuardError::LimitReached`] for
    /// more than [`MAX_RESOURCES`].
    pub fn recovered(
        durability: D,
        fences: impl IntoIterator<Item = Grant>,
    ) -> Result<Self, GuardError> {
        Self::recovered_with(durability, fences, MAX_RESOURCES)
    }

    /// The same with another bound on the number of resources.
    ///
    /// ```
    /// use palisade_guard::GuardError;
    /// use palisade_guard::memory::{FenceTable, Volatile};
    /// # let grant: palisade_token::Grant = "orders#42#000102030405060708090a0b0c0d0e0f".parse()?;
    /// # let later: palisade_token::Grant = "orders#43#0f0e0d0c0b0a09080706050403020100".parse()?;
    ///
    /// let table = FenceTable::recovered_with(Volatile, [later.clone(), grant.clone()], 10)?;
    /// assert!(table.admit(&later).is_ok());
    /// assert!(matches!(table.admit(&grant), Err(GuardError::Stale { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`FenceTable::recovered`].
    pub fn recovered_with(
        durability: D,
        fences: impl IntoIterator<Item = Grant>,
        max_resources: usize,
    ) -> Result<Self, GuardError> {
        let index = Index::new(max_resources);
        for fence in fences {
            index.find_or_insert(&fence.resource)?.recover(&fence)?;
        }
        Ok(Self::of(durability, index))
    }

    fn of(durability: D, index: Index) -> Self {
        Self {
            id: TABLES.fetch_add(1, Ordering::Relaxed),
            index,
            durability,
        }
    }

    /// Raises the fence to the grant, keeps it, and waits for the permits of earlier holders: once this
    /// returns, nothing with a lower token is written (I2). Do it before the first read. The same
    /// grant may be sealed any number of times. Dropped before it is ready, it leaves the resource
    /// closed to all until the next seal.
    ///
    /// # Errors
    /// [`GuardError::Stale`] and [`GuardError::Collision`] are final; after [`GuardError::Backend`] it may
    /// have been kept or not: seal again; [`GuardError::LimitReached`] for too many resources.
    pub async fn seal(&self, grant: &Grant) -> Result<Sealed, GuardError> {
        let timer = Timer::start();
        let sealing = async {
            let slot = self.index.find_or_insert(&grant.resource)?;
            let epoch = slot.seal(grant, &self.durability).await?;
            let seat = Seat {
                slot: Slot::clone(slot),
                epoch,
                table: self.id,
            };
            Ok(Sealed::with_seat(grant.clone(), Some(seat)))
        };
        let sealed = sealing
            .instrument(spans::seal(StoreKind::Memory, grant))
            .await;
        metrics::seal(StoreKind::Memory, timer, &sealed);
        sealed
    }

    /// Looks a sealed grant up once, for [`Handle::enter`].
    ///
    /// # Errors
    /// As [`FenceTable::enter`].
    pub fn resolve(&self, sealed: &Sealed) -> Result<Handle, GuardError> {
        sealed.alive()?;
        let resolved = self.index.find(&sealed.grant().resource).map_or_else(
            || Err(slot::unsealed(sealed.grant(), None)),
            |slot| Ok((slot.epoch_of(sealed.grant())?, slot)),
        );
        match resolved {
            Ok((epoch, slot)) => Ok(Handle::new(Slot::clone(slot), epoch, sealed.clone())),
            Err(error) => Err(permit::refused(sealed, error)),
        }
    }

    /// Begins a write. Hold the permit over the write and its durability.
    ///
    /// # Errors
    /// [`GuardError::Stale`], [`GuardError::StoreWentBackwards`] (it was sealed in a table that is
    /// not this one: before a restart that has lost it), [`GuardError::Collision`], which kill every
    /// clone of the [`Sealed`]; [`GuardError::LimitReached`] when [`MAX_PERMITS`] are held.
    #[inline]
    pub fn enter<'a>(&'a self, sealed: &'a Sealed) -> Result<Permit<'a>, GuardError> {
        self.slot_of(sealed).map(|slot| Permit::new(slot))
    }

    /// Begins a write whose permit moves to another task or thread.
    ///
    /// # Errors
    /// As [`FenceTable::enter`].
    pub fn enter_owned(&self, sealed: &Sealed) -> Result<OwnedPermit, GuardError> {
        self.slot_of(sealed)
            .map(|slot| OwnedPermit::new(Slot::clone(slot)))
    }

    /// The slot that this grant has entered.
    #[inline]
    fn slot_of<'a>(&'a self, sealed: &'a Sealed) -> Result<&'a Slot, GuardError> {
        // The seat of another table is none here, whatever that one admits.
        match sealed.seat() {
            Some(seat) if seat.table == self.id && seat.slot.enter(seat.epoch).is_ok() => {
                Ok(&seat.slot)
            }
            _ => self.slot_by_name(sealed),
        }
    }

    /// Sealed before a restart that has kept it, or refused.
    #[cold]
    fn slot_by_name(&self, sealed: &Sealed) -> Result<&Slot, GuardError> {
        sealed.alive()?;
        self.decide(sealed.grant())
            .map_err(|error| permit::refused(sealed, error))
    }

    /// Begins a write for several resources, 1 to [`MAX_ENTERED`], each once: all of them or none.
    ///
    /// ```
    /// use palisade_guard::memory::{FenceTable, Volatile};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let grant: palisade_token::Grant = "orders#42#000102030405060708090a0b0c0d0e0f".parse()?;
    /// # let stock: palisade_token::Grant = "stock#7#000102030405060708090a0b0c0d0e0f".parse()?;
    /// # let table = FenceTable::new(Volatile);
    /// let (orders, stock) = (table.seal(&grant).await?, table.seal(&stock).await?);
    /// let permits = table.enter_all(&[&orders, &stock])?;
    /// assert_eq!(permits.len(), 2);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`FenceTable::enter`], and [`GuardError::Misuse`] for another number or a resource named twice.
    pub fn enter_all(&self, sealed: &[&Sealed]) -> Result<Vec<OwnedPermit>, GuardError> {
        let sealed = sealed::distinct(sealed, MAX_ENTERED)?;
        let entered = sealed.iter().map(|sealed| self.enter_owned(sealed));
        entered.collect()
    }

    /// Begins a write with a grant that came with a request, and was sealed here by whoever holds it.
    ///
    /// ```
    /// use palisade_guard::GuardError;
    /// use palisade_guard::memory::{FenceTable, Volatile};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let grant: palisade_token::Grant = "orders#42#000102030405060708090a0b0c0d0e0f".parse()?;
    ///
    /// # let table = FenceTable::new(Volatile);
    /// assert!(matches!(table.admit(&grant), Err(GuardError::Unsealed { fence: None, .. })));
    /// table.seal(&grant).await?; // when its holder asks for it
    /// let _permit = table.admit(&grant)?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`GuardError::Stale`], [`GuardError::Unsealed`], [`GuardError::Collision`];
    /// [`GuardError::LimitReached`] when [`MAX_PERMITS`] are held.
    pub fn admit(&self, grant: &Grant) -> Result<Permit<'_>, GuardError> {
        self.admitted(grant).map(|slot| Permit::new(slot))
    }

    /// The same with a permit that moves to another task or thread.
    ///
    /// # Errors
    /// As [`FenceTable::admit`].
    pub fn admit_owned(&self, grant: &Grant) -> Result<OwnedPermit, GuardError> {
        self.admitted(grant)
            .map(|slot| OwnedPermit::new(Slot::clone(slot)))
    }

    fn admitted(&self, grant: &Grant) -> Result<&Slot, GuardError> {
        self.decide(grant)
            .inspect_err(|error| metrics::refused(StoreKind::Memory, error))
    }

    fn decide(&self, grant: &Grant) -> Result<&Slot, GuardError> {
        let Some(slot) = self.index.find(&grant.resource) else {
            return Err(slot::unsealed(grant, None));
        };
        slot.admit(grant)?;
        Ok(slot)
    }

    /// Where the fence of a resource is, `None` if it was never raised. To look at only: it may not be
    /// kept yet, and comparing with it is no check.
    #[must_use]
    pub fn fence(&self, resource: &ResourceName) -> Option<Mark> {
        self.index.find(resource)?.fence()
    }

    /// How the fences are kept.
    #[must_use]
    pub const fn durability(&self) -> &D {
        &self.durability
    }
}

type Slot = Arc<slot::Slot>;

/// Tells the tables of a process apart.
static TABLES: AtomicU64 = AtomicU64::new(0);

/// Where a grant was sealed, so that its holder need not be looked for by name.
pub(crate) struct Seat {
    slot: Slot,
    epoch: u64,
    table: u64,
}
