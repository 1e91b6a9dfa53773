use object_store::PutPayload;
use object_store::path::Path;
use palisade_token::Grant;
use tracing::Instrument as _;

use super::manifest::{Manifest, Read, nonce};
use super::swap::Swap;
use super::{Guard, Sealed};
use crate::decide;
use crate::metrics::{self, StoreKind, Timer, Unended};
use crate::{GuardError, spans};

/// A write of one resource, from [`Guard::begin`]. Until its commit readers see what was published before;
/// dropped, it leaves no more than data that nothing names.
///
/// ```
/// use palisade_guard::GuardError;
/// # use palisade_guard::object_store::Guard;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let grant: palisade_token::Grant = "orders#42#000102030405060708090a0b0c0d0e0f".parse()?;
/// # let later: palisade_token::Grant = "orders#43#0f0e0d0c0b0a09080706050403020100".parse()?;
/// # let store = std::sync::Arc::new(object_store::memory::InMemory::new());
/// # let guard = Guard::new(store, "tables");
/// # let sealed = guard.seal(&grant).await?;
/// let mut write = guard.begin(&sealed).await?;
/// assert_eq!(write.published(), None); // what it replaces
/// write.put("version 1").await?;
///
/// guard.seal(&later).await?; // another holder takes over before the commit
/// assert!(matches!(write.commit().await, Err(GuardError::Stale { .. })));
/// assert_eq!(guard.published(&grant.resource).await?, None);
/// # Ok(()) }
/// ```
#[must_use = "a write that is not committed is not published"]
#[derive(Debug)]
pub struct GuardedWrite {
    guard: Guard,
    sealed: Sealed,
    from: Read,
    data: Option<Path>,
    unended: Unended,
}

/// The commit of a guarded write: it was admitted, and it happened.
///
/// ```
/// # use palisade_guard::object_store::Guard;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let grant: palisade_token::Grant = "orders#42#000102030405060708090a0b0c0d0e0f".parse()?;
/// # let store = std::sync::Arc::new(object_store::memory::InMemory::new());
/// # let guard = Guard::new(store, "tables");
/// # let sealed = guard.seal(&grant).await?;
/// let mut write = guard.begin(&sealed).await?;
/// assert_eq!(write.grant(), &grant);
/// let path = write.put("version 1").await?;
/// let committed = write.commit().await?;
/// assert_eq!(committed.data, Some(path));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Committed {
    /// Where the published data is, if there is any.
    pub data: Option<Path>,
}

impl Guard {
    /// Begins a guarded write: reads the manifest, and lists the barriers above the token.
    ///
    /// # Errors
    /// [`GuardError::Stale`], [`GuardError::StoreWentBackwards`], [`GuardError::Collision`], which kill every
    /// clone of the [`Sealed`]; [`GuardError::Backend`].
    pub async fn begin(&self, sealed: &Sealed) -> Result<GuardedWrite, GuardError> {
        sealed.alive()?;
        let span = spans::begin(StoreKind::ObjectStore, Some(sealed.grant()), 1);
        let begun = self.enter(sealed).instrument(span).await;
        if let Err(error) = &begun {
            metrics::refused(StoreKind::ObjectStore, error);
        }
        begun
    }

    async fn enter(&self, sealed: &Sealed) -> Result<GuardedWrite, GuardError> {
        let timer = Timer::start();
        let grant = sealed.grant();
        let from = self.read(&grant.resource).await?;
        let mark = from.as_ref().and_then(|read| read.manifest.mark);
        let barriers = self.barriers(&grant.resource, grant.token.get()).await?;
        // A manifest that was set back by itself would admit an old holder.
        let later = barriers
            .into_iter()
            .chain(mark)
            .max_by_key(|mark| mark.token);
        admitted(
            sealed,
            later.filter(|later| later.token > grant.token).or(mark),
        )?;
        let from = from.expect("what has a mark is there");
        metrics::store_answered(StoreKind::ObjectStore, metrics::Operation::Begin, timer);
        Ok(GuardedWrite {
            guard: self.clone(),
            sealed: sealed.clone(),
            from,
            data: None,
            unended: Unended::new(StoreKind::ObjectStore),
        })
    }
}

fn admitted(sealed: &Sealed, fence: Option<decide::Mark>) -> Result<(), GuardError> {
    let grant = sealed.grant();
    match decide::refusal(grant, decide::admit(grant.into(), fence)) {
        None => Ok(()),
        Some(refusal) => Err(sealed.learn(refusal)),
    }
}

impl GuardedWrite {
    /// The grant that this write carries.
    #[must_use]
    pub fn grant(&self) -> &Grant {
        self.sealed.grant()
    }

    /// Where the data is that this write replaces: as it was at the begin, and still at a commit that
    /// succeeds.
    #[must_use]
    pub const fn published(&self) -> Option<&Path> {
        self.from.manifest.data.as_ref()
    }

    /// Stores the next version of the data, under a path of its own, and says where. A second one replaces
    /// the first.
    ///
    /// # Errors
    /// [`GuardError::Backend`]: nothing was published; put it again or drop the write.
    pub async fn put(&mut self, data: impl Into<PutPayload>) -> Result<Path, GuardError> {
        let grant = self.sealed.grant();
        let name = format!("{:020}-{}", self.from.manifest.number + 1, nonce()?);
        let folder = self.guard.folder(&grant.resource).join("data");
        let path = folder.join(format!("{:020}", grant.token.get())).join(name);
        self.guard.make(&path, data.into()).await?;
        self.data = Some(path.clone());
        Ok(path)
    }

    /// Publishes what was put. `Ok` means published, and nothing else does.
    ///
    /// # Errors
    /// [`GuardError::Stale`], [`GuardError::StoreWentBackwards`], [`GuardError::Collision`];
    /// [`GuardError::Serialization`]: another write of this holder came first: begin again, and read again;
    /// [`GuardError::CommitUnknown`]: it may have happened, or may still, until another seals or publishes.
    pub async fn commit(mut self) -> Result<Committed, GuardError> {
        self.unended.end();
        let span = spans::commit(StoreKind::ObjectStore, Some(self.sealed.grant()), 1);
        let timer = Timer::start();
        let committed = self.publish().instrument(span).await;
        metrics::store_answered(StoreKind::ObjectStore, metrics::Operation::Commit, timer);
        metrics::settled(StoreKind::ObjectStore, &committed);
        committed
    }

    async fn publish(&self) -> Result<Committed, GuardError> {
        self.sealed.alive()?;
        let grant = self.sealed.grant();
        let before = &self.from.manifest;
        let data = self.data.as_ref().or(before.data.as_ref()).cloned();
        let next = before.then(grant.into(), data.clone(), nonce()?);
        let path = self.guard.manifest(&grant.resource);
        match self.guard.swap(&path, &self.from, &next).await? {
            Swap::Done => Ok(Committed { data }),
            Swap::Lost(now) => Err(self.overtaken(now)),
            Swap::Unknown(source) => Err(GuardError::CommitUnknown {
                transaction: None,
                source: Box::new(source),
            }),
        }
    }

    fn overtaken(&self, now: Option<Manifest>) -> GuardError {
        match admitted(&self.sealed, now.and_then(|now| now.mark)) {
            Err(refused) => refused,
            Ok(()) => GuardError::Serialization(Box::from(
                "another write of this holder was published meanwhile",
            )),
        }
    }
}
