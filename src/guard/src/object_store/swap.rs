//! Changing a manifest, and finding out whether that has happened.

use object_store::path::Path;
use object_store::{ObjectStoreExt as _, PutMode, PutOptions, PutPayload};

use super::manifest::{Happened, Manifest, Read};
use super::{ATTEMPTS, Guard, backend};
use crate::GuardError;

/// What became of a change.
#[derive(Debug)]
pub(super) enum Swap {
    Done,
    /// It did not happen and cannot any more: another came first. `None`: the manifest is gone.
    Lost(Option<Manifest>),
    /// It may have happened, or may still.
    Unknown(object_store::Error),
}

impl Guard {
    /// Replaces what was read by the next manifest. Sent again while it may be lost: of all the copies one
    /// at most happens, because each asks for the same version.
    pub(super) async fn swap(
        &self,
        path: &Path,
        from: &Read,
        next: &Manifest,
    ) -> Result<Swap, GuardError> {
        let mut attempt = 1;
        loop {
            let mode = PutMode::Update(from.version.clone());
            let payload = PutPayload::from(next.to_json());
            let sent = self
                .store
                .put_opts(path, payload, PutOptions::from(mode))
                .await;
            let Err(error) = sent else {
                return Ok(Swap::Done);
            };
            // Of an attempt before this one it says nothing.
            if is_final(&error) && attempt == 1 {
                return Err(backend(error));
            }
            // 412 may be one's own success, 409 nobody's, and a timeout anything: the manifest knows.
            match self.read_at(path).await {
                Ok(None) => return Ok(Swap::Lost(None)),
                Ok(Some(now)) => match now.manifest.holds(next) {
                    Happened::Yes => return Ok(Swap::Done),
                    Happened::Forgotten => return Ok(Swap::Unknown(error)),
                    Happened::No if now.version != from.version => {
                        return Ok(Swap::Lost(Some(now.manifest)));
                    }
                    Happened::No => {}
                },
                Err(failed) => {
                    tracing::debug!(error = %failed, "cannot see what became of a change")
                }
            }
            if attempt == ATTEMPTS {
                return Ok(Swap::Unknown(error));
            }
            attempt += 1;
        }
    }

    /// Makes an object that nobody else makes with other contents, unless it is there. A store may
    /// answer "exists" to a mere conflict: so it is looked for.
    pub(super) async fn make(&self, path: &Path, payload: PutPayload) -> Result<(), GuardError> {
        let mut attempt = 1;
        loop {
            let options = PutOptions::from(PutMode::Create);
            let Err(error) = self.store.put_opts(path, payload.clone(), options).await else {
                return Ok(());
            };
            if is_final(&error) {
                return Err(backend(error));
            }
            match self.store.head(path).await {
                Ok(_) => return Ok(()),
                Err(_) if attempt < ATTEMPTS => attempt += 1,
                Err(_) => return Err(backend(error)),
            }
        }
    }
}

/// Refused before anything was done, and again if tried again.
const fn is_final(error: &object_store::Error) -> bool {
    use object_store::Error as E;
    matches!(
        error,
        E::NotImplemented { .. }
            | E::NotSupported { .. }
            | E::InvalidPath { .. }
            | E::PermissionDenied { .. }
            | E::Unauthenticated { .. }
            | E::UnknownConfigurationKey { .. }
    )
}
