//! etcd's own lock service.

use etcd_client::{LeaseClient, LockClient, LockOptions};

use super::failure::etcd_failed;
use crate::failure::Failure;

/// So long that a lease outlives any round without being renewed; it is revoked after the round.
const LEASE_SECONDS: i64 = 15 * 60;

/// One lock, taken again and again under one etcd lease.
pub(crate) struct LockHolder {
    client: LockClient,
    name: String,
    options: LockOptions,
    held: Vec<u8>,
}

impl LockHolder {
    pub(crate) fn new(client: LockClient, name: String, lease: i64) -> Self {
        Self {
            client,
            name,
            options: LockOptions::new().with_lease(lease),
            held: Vec::new(),
        }
    }

    pub(crate) async fn acquire(&mut self) -> Result<(), Failure> {
        let locked = self
            .client
            .lock(self.name.as_str(), Some(self.options.clone()))
            .await
            .map_err(|error| etcd_failed(&error))?;
        self.held = locked.key().to_vec();
        Ok(())
    }

    pub(crate) async fn release(&mut self) -> Result<(), Failure> {
        let unlocked = self.client.unlock(std::mem::take(&mut self.held)).await;
        unlocked.map(drop).map_err(|error| etcd_failed(&error))
    }
}

pub(crate) async fn grant(client: &mut LeaseClient) -> Result<i64, Failure> {
    let granted = client.grant(LEASE_SECONDS, None).await;
    granted
        .map(|lease| lease.id())
        .map_err(|error| etcd_failed(&error))
}

pub(crate) async fn revoke(client: &mut LeaseClient, lease: i64) -> Result<(), Failure> {
    let revoked = client.revoke(lease).await;
    revoked.map(drop).map_err(|error| etcd_failed(&error))
}
