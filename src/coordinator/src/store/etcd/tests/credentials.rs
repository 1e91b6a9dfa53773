//! etcd over TLS, and with users of its own (F26).

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use palisade_test_support::pki::Authority;
use palisade_test_support::{Etcd, EtcdTls, EtcdVersion, eventually};
use tempfile::TempDir;

use super::TTL;
use crate::clock::SystemClock;
use crate::config::EtcdAccess;
use crate::entropy::SystemEntropy;
use crate::store::conformance::Client;
use crate::store::etcd::{EtcdOptions, EtcdStore};
use crate::store::{Failure, Outcome, Store, StoreError};
use crate::tasks::Tasks;

const LIMIT: Duration = Duration::from_secs(60);

/// An etcd that takes only clients with a certificate, and what they need.
struct Guarded {
    etcd: Etcd,
    home: TempDir,
    authority: Authority,
}

impl Guarded {
    async fn new(version: EtcdVersion) -> Self {
        let home = TempDir::new().unwrap();
        let authority = Authority::new("etcd of a test");
        let ca = home.path().join("ca.pem");
        fs::write(&ca, authority.pem()).unwrap();
        let tls = EtcdTls {
            ca,
            server: authority.server().write(home.path(), "server"),
            client: authority.client(&["DNS:ctl"]).write(home.path(), "ctl"),
        };
        let etcd = Etcd::builder().version(version).tls(tls).start().await;
        Self {
            etcd: etcd.unwrap(),
            home,
            authority,
        }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.home.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn access(&self) -> EtcdAccess {
        let client = self.authority.client(&["DNS:coordinator"]);
        let (cert, key) = client.write(self.home.path(), "coordinator");
        EtcdAccess {
            ca_file: Some(self.home.path().join("ca.pem")),
            cert_file: Some(cert),
            key_file: Some(key),
            ..EtcdAccess::default()
        }
    }

    fn store(&self, access: EtcdAccess) -> Arc<EtcdStore> {
        let mut options = EtcdOptions::new(self.etcd.endpoints());
        options.access = access;
        let (clock, entropy) = (SystemClock::shared(), SystemEntropy::shared());
        EtcdStore::new(options, clock, entropy, &Tasks::default())
    }

    /// Gives etcd users, of whom one may use the keys of coordinators and nothing else.
    async fn ask_for_users(&self) {
        let commands: [&[&str]; 7] = [
            &["user", "add", "root:of a test"],
            &["user", "grant-role", "root", "root"],
            &["role", "add", "coordinators"],
            &[
                "role",
                "grant-permission",
                "coordinators",
                "readwrite",
                "/palisade/v1/",
                "--prefix=true",
            ],
            &["user", "add", "palisade:pass word"],
            &["user", "grant-role", "palisade", "coordinators"],
            &["auth", "enable"],
        ];
        for command in commands {
            // The role of the root may be there or not, by version.
            if let Err(error) = self.etcd.etcdctl(command).await {
                panic!("{command:?}: {error}");
            }
        }
    }

    /// All tokens end.
    async fn forget_tokens(&self) {
        let root = "--user=root:of a test";
        self.etcd.etcdctl(&[root, "auth", "disable"]).await.unwrap();
        self.etcd.etcdctl(&["auth", "enable"]).await.unwrap();
    }
}

async fn is_of_use(store: &Arc<EtcdStore>) {
    eventually("the store is ready", LIMIT, async || {
        store.ready().await.is_ok()
    })
    .await
    .unwrap();
    let shared: Arc<dyn Store> = Arc::<EtcdStore>::clone(store);
    let client = Client::open(&shared, "one", TTL).await;
    let hold = client.take("r", "1").await;
    client.renew().await.unwrap();
    client.give_back(&hold).await;
    client.close().await.unwrap();
}

async fn is_of_no_use(store: &EtcdStore) {
    match store.ready().await {
        Err(StoreError::Failed {
            failure: Failure::Unavailable,
            outcome: Outcome::NotApplied,
            ..
        }) => {}
        other => panic!("it must fail, and yet: {other:?}"),
    }
}

#[tokio::test]
async fn etcd_is_spoken_to_over_tls_with_a_certificate_of_its_authority() {
    let guarded = Guarded::new(EtcdVersion::V3_5).await;
    is_of_use(&guarded.store(guarded.access())).await;

    let unnamed = EtcdAccess {
        cert_file: None,
        key_file: None,
        ..guarded.access()
    };
    is_of_no_use(&guarded.store(unnamed)).await;
    let other = Authority::new("another").pem();
    let deceived = EtcdAccess {
        ca_file: Some(guarded.file("other.pem", &other)),
        ..guarded.access()
    };
    is_of_no_use(&guarded.store(deceived)).await;
    let lost = EtcdAccess {
        ca_file: Some(guarded.home.path().join("nowhere.pem")),
        ..guarded.access()
    };
    is_of_no_use(&guarded.store(lost)).await;
}

/// F26: tokens end while the coordinator runs, and nobody notices.
async fn users_are_logged_in_and_logged_in_again(version: EtcdVersion) {
    let guarded = Guarded::new(version).await;
    guarded.ask_for_users().await;
    let nobody = guarded.store(guarded.access());
    assert!(nobody.ready().await.is_err(), "without a user");
    let as_user = |password: PathBuf| EtcdAccess {
        user: Some("palisade".to_owned()),
        password_file: Some(password),
        ..guarded.access()
    };
    let wrong = guarded.store(as_user(guarded.file("wrong", "pass words")));
    assert!(wrong.ready().await.is_err(), "with a wrong password");

    let store = guarded.store(as_user(guarded.file("right", "pass word\n")));
    is_of_use(&store).await;
    let shared: Arc<dyn Store> = Arc::<EtcdStore>::clone(&store);
    let client = Client::open(&shared, "two", TTL).await;
    client.renew().await.unwrap();
    let link = store.links.get().await.unwrap();
    guarded.forget_tokens().await;
    let hold = client.take("r", "1").await;
    client.renew().await.unwrap();
    client.give_back(&hold).await;
    store.ready().await.unwrap();
    let after = store.links.get().await.unwrap();
    assert!(
        Arc::ptr_eq(&link, &after),
        "it went on without a new connection"
    );
}

#[tokio::test]
async fn users_are_logged_in_and_logged_in_again_on_etcd_3_5() {
    users_are_logged_in_and_logged_in_again(EtcdVersion::V3_5).await;
}

#[tokio::test]
async fn users_are_logged_in_and_logged_in_again_on_etcd_3_4() {
    users_are_logged_in_and_logged_in_again(EtcdVersion::V3_4).await;
}
