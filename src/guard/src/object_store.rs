//! The guard for object stores (S3 and its kin), through the crate [`object_store`].
//!
//! Each resource has one **manifest**, which names its token, its holder and its current data. Whoever
//! changes it does so by compare-and-swap on its version ([`PutMode::Update`](object_store::PutMode)): a
//! seal to raise the token, a write to publish the path of its data. So a seal that comes between a
//! writer's begin and its commit makes the commit fail. A token in an object's metadata or path is no
//! check: the store compares versions, never tokens.
//!
//! ```no_run
//! # async fn lead(
//! #     store: std::sync::Arc<dyn object_store::ObjectStore>,
//! #     grant: &palisade_token::Grant,
//! # ) -> Result<(), palisade_guard::GuardError> {
//! use palisade_guard::object_store::Guard;
//!
//! let guard = Guard::new(store, "tables");
//! let sealed = guard.seal(grant).await?; // before the first read
//! let mut write = guard.begin(&sealed).await?;
//! // … read `write.published()`, make the next version of it …
//! write.put("the next version").await?;
//! write.commit().await?;
//! # Ok(()) }
//! ```
//!
//! # Objects
//!
//! Under the prefix, with `!` for `/` in the resource's name:
//!
//! | object | is |
//! |---|---|
//! | `<resource>/manifest` | JSON, a few kB; changed by compare-and-swap only |
//! | `<resource>/barrier/<token>-<holder>` | made once by each seal, kept **for ever** |
//! | `<resource>/data/<token>/<number>-<nonce>` | one version of the data; readers follow the manifest only |
//!
//! A manifest that is lost, or set back alone, is found out by the barriers: no token below the greatest
//! barrier seals or begins. Lifecycle rules may delete data that no manifest names; never manifests or
//! barriers.
//!
//! # Answers that are lost
//!
//! Every change carries a number and a nonce, and the manifest keeps the last [`RECENT`] of them: so a
//! client whose own retried request met its own success (an *own 412*) finds out that it has happened. What
//! cannot be found out is [`GuardError::CommitUnknown`]. It may even happen later, but not once another has
//! sealed or published.
//!
//! # What is not covered
//!
//! One write is of one resource. Whoever may write to the bucket can go round the guard, unless a bucket
//! policy demands conditional writes. A store that ignores the condition guards nothing: run
//! [`crate::conformance`] against yours. One that lacks conditional updates (the local file system) is
//! refused at the first seal.

mod manifest;
mod seal;
mod swap;
mod write;

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::path::Path;
use palisade_token::{Grant, ResourceName};

use crate::GuardError;
use crate::decide::Mark;

pub use manifest::RECENT;
#[cfg(any(test, fuzzing))]
pub(crate) use manifest::fuzz_manifest;
pub use write::{Committed, GuardedWrite};

/// The store of [`Sealed`].
///
/// It names the store in types, so that a grant sealed elsewhere is none here:
///
/// ```
/// use palisade_guard::object_store::{Guard, GuardedWrite, Objects};
/// use palisade_guard::{GuardError, Sealed};
///
/// async fn start(guard: &Guard, sealed: &Sealed<Objects>) -> Result<GuardedWrite, GuardError> {
///     guard.begin(sealed).await
/// }
/// ```
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Objects {}

/// A grant that was sealed in an object store; only [`Guard::seal`] makes one.
pub type Sealed = crate::Sealed<Objects>;

/// How often one change is sent before its outcome is called unknown; the store's client tries again
/// by itself besides.
pub const ATTEMPTS: u32 = 4;

/// Seals resources in an object store and begins guarded writes. A clone is cheap.
///
/// ```
/// use palisade_guard::object_store::Guard;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let grant: palisade_token::Grant = "orders#42#000102030405060708090a0b0c0d0e0f".parse()?;
///
/// let store = std::sync::Arc::new(object_store::memory::InMemory::new());
/// let guard = Guard::new(store, "tables");
/// let sealed = guard.seal(&grant).await?; // before the first read
/// assert_eq!(guard.published(&grant.resource).await?, None);
///
/// let mut write = guard.begin(&sealed).await?;
/// let path = write.put("version 1").await?;
/// write.commit().await?;
/// assert_eq!(guard.published(&grant.resource).await?, Some(path));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Guard {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
}

impl Guard {
    /// A guard for the resources under a prefix, which may be empty.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>, prefix: impl Into<Path>) -> Self {
        Self {
            store,
            prefix: prefix.into(),
        }
    }

    /// The path of the resource's current data, `None` if nothing was published. A reader that finds no
    /// object there was overtaken by a clean-up: it asks again.
    ///
    /// # Errors
    /// [`GuardError::Backend`]; [`GuardError::Newer`] if a newer library has written the manifest.
    pub async fn published(&self, resource: &ResourceName) -> Result<Option<Path>, GuardError> {
        let read = self.read(resource).await?;
        Ok(read.and_then(|read| read.manifest.data))
    }

    /// Where the fence of a resource is, `None` if it was never sealed. To look at only. It lists the
    /// barriers above the manifest's token.
    ///
    /// ```
    /// # use palisade_guard::object_store::Guard;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let grant: palisade_token::Grant = "orders#42#000102030405060708090a0b0c0d0e0f".parse()?;
    /// # let store = std::sync::Arc::new(object_store::memory::InMemory::new());
    /// # let guard = Guard::new(store, "tables");
    /// assert_eq!(guard.fence(&grant.resource).await?, None);
    /// guard.seal(&grant).await?;
    /// assert_eq!(guard.fence(&grant.resource).await?.map(|mark| mark.token), Some(grant.token));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Guard::published`].
    pub async fn fence(&self, resource: &ResourceName) -> Result<Option<Mark>, GuardError> {
        let manifest = self.read(resource).await?.map(|read| read.manifest);
        let mark = manifest.and_then(|manifest| manifest.mark);
        let from = mark.map_or(1, |mark| mark.token.get());
        let barriers = self.barriers(resource, from).await?;
        Ok(barriers
            .into_iter()
            .chain(mark)
            .max_by_key(|mark| mark.token))
    }

    fn folder(&self, resource: &ResourceName) -> Path {
        // `!` is in no name, and safe in every store.
        self.prefix
            .clone()
            .join(resource.as_str().replace('/', "!"))
    }

    fn manifest(&self, resource: &ResourceName) -> Path {
        self.folder(resource).join("manifest")
    }

    fn barrier(&self, grant: &Grant) -> Path {
        let name = format!("{:020}-{}", grant.token.get(), grant.holder);
        self.folder(&grant.resource).join("barrier").join(name)
    }
}

fn backend(error: object_store::Error) -> GuardError {
    match error {
        object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. } => {
            GuardError::Misuse(
                "this object store has no conditional update (PutMode::Update): it cannot be guarded",
            )
        }
        other => GuardError::Backend(Box::new(other)),
    }
}
