//! How etcd stands, for people: each endpoint is asked, and none is waited for.

use std::time::Duration;

use futures::future::join_all;

use super::EtcdStore;
use super::connect;
use crate::clock::within;
use crate::store::{Endpoint, Status, StoreKind};

/// How long an endpoint may take to open a connection and to answer on it.
const ENDPOINT_LIMIT: Duration = Duration::from_secs(1);

impl EtcdStore {
    pub(super) async fn do_status(&self) -> Status {
        let (generation, revision) = self.links.seen();
        let asked = self.links.endpoints().iter().map(|url| self.endpoint(url));
        Status {
            kind: StoreKind::Etcd,
            cluster: self.links.cluster(),
            endpoints: join_all(asked).await,
            generation,
            revision,
            in_flight: 0,
        }
    }

    async fn endpoint(&self, url: &str) -> Endpoint {
        let asked = async {
            let client = connect::open(url).await.ok()?;
            let status = client.client.maintenance_client().status().await.ok()?;
            let cluster = status.header().map(etcd_client::ResponseHeader::cluster_id);
            Some((cluster, status.version().to_owned()))
        };
        let answer = within(self.links.clock(), ENDPOINT_LIMIT, Box::pin(asked)).await;
        let answer = answer.ok().flatten();
        Endpoint {
            address: bare(url),
            is_healthy: answer.is_some(),
            cluster: answer.as_ref().and_then(|(cluster, _)| *cluster),
            version: answer.map(|(_, version)| version),
        }
    }
}

/// A URL without what it may carry of credentials.
fn bare(url: &str) -> String {
    match url.parse::<http::Uri>() {
        Ok(uri) => {
            let port = uri
                .port()
                .map(|port| format!(":{port}"))
                .unwrap_or_default();
            let scheme = uri.scheme_str().unwrap_or("http");
            format!("{scheme}://{}{port}", uri.host().unwrap_or_default())
        }
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::bare;

    #[test]
    fn credentials_are_not_shown() {
        assert_eq!(bare("http://user:word@[::1]:2379/x"), "http://[::1]:2379");
        assert_eq!(bare("http://etcd"), "http://etcd");
    }
}
