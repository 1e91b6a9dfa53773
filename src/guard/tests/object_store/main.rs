//! The guard for object stores, on one whose answers are lost, late, doubled or wrong.
#![allow(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

mod answers;
mod faulty;
mod lost;

use std::sync::Arc;

use object_store::ObjectStoreExt as _;
use object_store::path::Path;
use palisade_guard::GuardError;
use palisade_guard::object_store::{Guard, Sealed};
use palisade_token::{FencingToken, Grant, HolderId, ResourceName};

use faulty::Faulty;

pub(crate) fn grant(resource: &str, token: u64) -> Grant {
    Grant {
        resource: ResourceName::new(resource).unwrap(),
        token: FencingToken::new(token).unwrap(),
        holder: HolderId::from_bytes([u8::try_from(token % 251).unwrap(); 16]),
    }
}

pub(crate) struct Bucket {
    pub(crate) store: Arc<Faulty>,
    pub(crate) guard: Guard,
}

impl Bucket {
    pub(crate) fn new() -> Self {
        let store = Arc::new(Faulty::default());
        let guard = Guard::new(Arc::<Faulty>::clone(&store), "tables");
        Self { store, guard }
    }

    pub(crate) async fn seal(&self, token: u64) -> Sealed {
        self.guard.seal(&grant("orders/eu", token)).await.unwrap()
    }

    pub(crate) async fn write(&self, sealed: &Sealed, text: &str) -> Result<(), GuardError> {
        let mut write = self.guard.begin(sealed).await?;
        write.put(text.to_owned()).await?;
        write.commit().await.map(drop)
    }

    /// What a reader sees.
    pub(crate) async fn text(&self) -> Option<String> {
        let resource = grant("orders/eu", 1).resource;
        let data = self.guard.published(&resource).await.unwrap()?;
        let found = self.store.get(&data).await.unwrap();
        Some(String::from_utf8(found.bytes().await.unwrap().to_vec()).unwrap())
    }

    pub(crate) async fn fence(&self) -> Option<u64> {
        let resource = grant("orders/eu", 1).resource;
        let fence = self.guard.fence(&resource).await.unwrap();
        fence.map(|fence| fence.token.get())
    }
}

pub(crate) fn manifest() -> Path {
    Path::from("tables/orders!eu/manifest")
}
