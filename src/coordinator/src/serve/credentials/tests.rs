use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::{Extensions, HeaderMap, HeaderValue};
use palisade_test_support::pki::Authority;
use sha2::{Digest, Sha256};

use super::{Credentials, MAX_FILE_BYTES, Watch};
use crate::clock::SystemClock;
use crate::config::{Settings, StoreChoice, TlsFiles};
use crate::serve::tls::Tls;

struct Files {
    directory: tempfile::TempDir,
    credentials: Credentials,
    watch: Watch,
}

fn tokens(directory: &Path, token: &str) {
    let hash = hex::encode(Sha256::digest(token));
    let text = format!("[[token]]\nprincipal = \"alice\"\nsha256 = \"{hash}\"\n");
    fs::write(directory.join("tokens.toml"), text).unwrap();
}

impl Files {
    async fn new(authority: &Authority) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (cert, key) = authority.server().write(directory.path(), "server");
        fs::write(directory.path().join("ca.pem"), authority.pem()).unwrap();
        tokens(directory.path(), "one");
        let settings = Settings {
            tls: Some(TlsFiles {
                cert,
                key,
                client_ca: Some(directory.path().join("ca.pem")),
            }),
            token_file: Some(directory.path().join("tokens.toml")),
            ..Settings::local(StoreChoice::Memory)
        };
        let credentials = Credentials::load(&settings).await.unwrap();
        let clock = SystemClock::shared();
        let mut watch = credentials.watch(&clock, Duration::from_secs(1)).unwrap();
        watch.look().await.unwrap();
        Self {
            directory,
            credentials,
            watch,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What new connections are met with, as an address that stays while it does.
    fn met_with(&self) -> [Arc<rustls::ServerConfig>; 2] {
        let live = self.credentials.tls.as_ref().unwrap();
        [Tls::grpc(live).config(), Tls::http(live).config()]
    }

    fn lets_in(&self, token: &str) -> bool {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
        headers.insert("authorization", value);
        let access = &self.credentials.access;
        access.authenticate(&headers, &Extensions::new()).is_ok()
    }
}

fn same(one: &[Arc<rustls::ServerConfig>; 2], other: &[Arc<rustls::ServerConfig>; 2]) -> bool {
    one.iter()
        .zip(other)
        .all(|(one, other)| Arc::ptr_eq(one, other))
}

#[tokio::test]
async fn a_file_that_cannot_be_used_changes_nothing_and_is_told() {
    let authority = Authority::new("test");
    let mut files = Files::new(&authority).await;
    let other = authority.server();
    let large = "#".repeat(usize::try_from(MAX_FILE_BYTES).unwrap() + 1);
    for (name, broken) in [
        ("server.pem", Some("oops")),
        ("server.pem", Some("")),
        ("server.pem", None),
        // Half of a new pair, as it is between two writes.
        ("server.pem", Some(&*other.cert)),
        ("server.key", Some(&*other.key)),
        ("server.key", Some("")),
        ("ca.pem", Some("")),
        ("ca.pem", None),
        (
            "tokens.toml",
            Some("[[token]]\nprincipal = \"eve\"\nsha256 = \"oops\"\n"),
        ),
        ("tokens.toml", Some("\u{0}")),
        ("tokens.toml", Some(&*large)),
        ("tokens.toml", None),
    ] {
        let before = files.met_with();
        let good = fs::read(files.path(name)).unwrap();
        match broken {
            Some(text) => fs::write(files.path(name), text).unwrap(),
            None => fs::remove_file(files.path(name)).unwrap(),
        }
        let error = files.watch.look().await.unwrap_err();
        // A certificate and a key that do not belong together are told as the key.
        let (stem, _) = name.split_once('.').unwrap();
        assert!(error.to_string().contains(stem), "{error}");
        assert!(same(&before, &files.met_with()), "{name}");
        assert!(files.lets_in("one") && !files.lets_in("eve"));
        fs::write(files.path(name), good).unwrap();
        files.watch.look().await.unwrap();
        assert!(files.lets_in("one"));
    }
}

#[tokio::test]
async fn what_has_not_changed_is_not_made_anew() {
    let mut files = Files::new(&Authority::new("test")).await;
    let before = files.met_with();
    files.watch.look().await.unwrap();
    tokens(files.directory.path(), "two");
    files.watch.look().await.unwrap();
    assert!(same(&before, &files.met_with()));
    assert!(files.lets_in("two") && !files.lets_in("one"));
}

#[tokio::test]
async fn one_broken_file_does_not_keep_the_other_from_being_taken() {
    let authority = Authority::new("test");
    let mut files = Files::new(&authority).await;
    let before = files.met_with();
    fs::write(files.path("server.pem"), "oops").unwrap();
    tokens(files.directory.path(), "two");
    files.watch.look().await.unwrap_err();
    assert!(files.lets_in("two") && same(&before, &files.met_with()));

    let (_, _) = authority.server().write(files.directory.path(), "server");
    fs::write(files.path("tokens.toml"), "oops").unwrap();
    files.watch.look().await.unwrap_err();
    assert!(files.lets_in("two") && !same(&before, &files.met_with()));
}
