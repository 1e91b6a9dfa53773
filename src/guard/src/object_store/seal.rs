use futures::TryStreamExt as _;
use object_store::PutPayload;
use palisade_token::{FencingToken, Grant, ResourceName};
use tracing::Instrument as _;

use super::manifest::{Manifest, Read, nonce};
use super::swap::Swap;
use super::{ATTEMPTS, Guard, Sealed, backend};
use crate::decide::{self, Mark, Sealing};
use crate::metrics::{self, StoreKind, Timer};
use crate::{GuardError, spans};

impl Guard {
    /// Raises the fence to the grant: once this returns, no write with a lower token is published (I2). Do it
    /// before the first read. It waits for nobody: a writer that has begun fails at its commit. The same
    /// grant may be sealed any number of times.
    ///
    /// # Errors
    /// [`GuardError::Stale`] and [`GuardError::Collision`] are final; [`GuardError::Serialization`]: others
    /// changed the manifest [`ATTEMPTS`] times meanwhile; [`GuardError::Misuse`]: the store has no conditional
    /// update; after [`GuardError::Backend`] it may be sealed or not: seal again.
    pub async fn seal(&self, grant: &Grant) -> Result<Sealed, GuardError> {
        let timer = Timer::start();
        let sealing = self.raise(grant);
        let sealing = sealing.instrument(spans::seal(StoreKind::ObjectStore, grant));
        let sealed = sealing.await.map(|()| Sealed::new(grant.clone()));
        metrics::seal(StoreKind::ObjectStore, timer, &sealed);
        sealed
    }

    async fn raise(&self, grant: &Grant) -> Result<(), GuardError> {
        // Those of a manifest that was lost, or set back; the greatest first.
        let mut barriers = self.barriers(&grant.resource, grant.token.get()).await?;
        barriers.sort_by_key(|barrier| std::cmp::Reverse(barrier.token));
        for barrier in barriers {
            decided(grant, Some(barrier))?;
        }
        self.raise_manifest(grant).await?;
        // Kept for ever: the manifest may be lost, and is changed by others.
        let contents = PutPayload::from(grant.to_string());
        self.make(&self.barrier(grant), contents).await?;
        // Another may have come between: it is that one's from here on.
        let now = self.read(&grant.resource).await?;
        match decided(grant, now.and_then(|read| read.manifest.mark))? {
            Sealing::Already => Ok(()),
            _ => Err(GuardError::Backend(Box::from(
                "the manifest went backwards during the seal",
            ))),
        }
    }

    async fn raise_manifest(&self, grant: &Grant) -> Result<(), GuardError> {
        let path = self.manifest(&grant.resource);
        let mut unknown = None;
        for _ in 0..ATTEMPTS {
            let from = self.read_or_make(&grant.resource).await?;
            if decided(grant, from.manifest.mark)? == Sealing::Already {
                return Ok(());
            }
            let data = from.manifest.data.clone();
            let next = from.manifest.then(grant.into(), data, nonce()?);
            match self.swap(&path, &from, &next).await? {
                Swap::Done => return Ok(()),
                Swap::Lost(_) => {}
                Swap::Unknown(error) => unknown = Some(error),
            }
        }
        Err(unknown.map_or_else(
            || GuardError::Serialization(Box::from("others changed the manifest each time")),
            backend,
        ))
    }

    /// The manifest; an empty one is made first where there is none, so that every fence is raised by a
    /// conditional update: a store without it is refused before it has one.
    async fn read_or_make(&self, resource: &ResourceName) -> Result<Read, GuardError> {
        if let Some(read) = self.read(resource).await? {
            return Ok(read);
        }
        let empty = PutPayload::from(Manifest::default().to_json());
        self.make(&self.manifest(resource), empty).await?;
        let made = self.read(resource).await?;
        made.ok_or_else(|| GuardError::Backend(Box::from("a manifest that was made is not there")))
    }

    /// The barriers from a token on.
    pub(super) async fn barriers(
        &self,
        resource: &ResourceName,
        from: u64,
    ) -> Result<Vec<Mark>, GuardError> {
        let folder = self.folder(resource).join("barrier");
        // Names after this one: all of the token itself, because a holder follows in them.
        let before = folder.clone().join(format!("{from:020}"));
        let found = self.store.list_with_offset(Some(&folder), &before);
        let marks = found.map_err(backend).try_filter_map(async |meta| {
            let mark = meta.location.filename().and_then(parse);
            if mark.is_none() {
                tracing::warn!(path = %meta.location, "not a barrier, among the barriers");
            }
            Ok(mark)
        });
        // Few: only those that this reader has not heard of.
        marks.try_collect().await
    }
}

fn parse(name: &str) -> Option<Mark> {
    let (token, holder) = name.split_once('-')?;
    Some(Mark {
        token: FencingToken::new(token.parse().ok()?).ok()?,
        holder: holder.parse().ok()?,
    })
}

fn decided(grant: &Grant, fence: Option<Mark>) -> Result<Sealing, GuardError> {
    match decide::seal(grant.into(), fence) {
        Sealing::Stale { fence } => Err(GuardError::Stale {
            resource: grant.resource.clone(),
            presented: grant.token,
            fence,
        }),
        Sealing::Collision => Err(GuardError::Collision {
            resource: grant.resource.clone(),
            token: grant.token,
        }),
        open => Ok(open),
    }
}
