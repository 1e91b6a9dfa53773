//! How etcd stands, for people.

use super::EtcdStore;
use crate::store::{Status, StoreKind};

impl EtcdStore {
    pub(super) async fn do_status(&self) -> Status {
        self.links.look().await;
        let (generation, revision) = self.links.seen();
        Status {
            kind: StoreKind::Etcd,
            cluster: self.links.cluster(),
            endpoints: self.links.endpoints(),
            generation,
            revision,
            in_flight: self.links.in_flight(),
        }
    }
}
