//! TLS on both listeners, over the wire.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use palisade_api::ErrorReason;
use palisade_api::SessionRef;
use palisade_api::v1::{ListLeasesRequest, OpenSessionRequest, RenewSessionRequest};
use palisade_coordinator::access::Verb;
use palisade_coordinator::config::{Settings, TlsFiles};
use palisade_coordinator::serve::{ServeError, Server};
use palisade_test_support::eventually;
use palisade_test_support::pki::{Authority, Identity};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity as ClientIdentity};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::access::rules;
use crate::store::Switch;
use crate::support::{Client, LONG, Serving, memory, opening, refused, settings};

/// What a coordinator serves with, in a directory of its own.
struct Files {
    directory: tempfile::TempDir,
    clients: Authority,
    servers: Authority,
}

impl Files {
    fn new() -> Self {
        let files = Self {
            directory: tempfile::tempdir().unwrap(),
            clients: Authority::new("clients"),
            servers: Authority::new("servers"),
        };
        files.put(&files.servers.server());
        std::fs::write(files.path("clients.pem"), files.clients.pem()).unwrap();
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn put(&self, identity: &Identity) {
        // The directory outlives the test.
        let (_, _) = identity.write(self.directory.path(), "server");
    }

    fn settings(&self, demands_certificates: bool) -> Settings {
        Settings {
            tls: Some(TlsFiles {
                cert: self.path("server.pem"),
                key: self.path("server.key"),
                client_ca: demands_certificates.then(|| self.path("clients.pem")),
            }),
            ..settings()
        }
    }

    async fn serve(&self, settings: Settings) -> Serving {
        Serving::start(Arc::new(Switch::new(memory().await)), settings).await
    }
}

fn trusting(authorities: &[&Authority], identity: Option<&Identity>) -> ClientTlsConfig {
    let pem: String = authorities
        .iter()
        .map(|authority| authority.pem())
        .collect();
    let config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
    match identity {
        None => config,
        Some(Identity { cert, key }) => config.identity(ClientIdentity::from_pem(cert, key)),
    }
}

async fn connect(
    serving: &Serving,
    tls: ClientTlsConfig,
) -> Result<Client, tonic::transport::Error> {
    let url = format!("https://localhost:{}", serving.addresses.grpc.port());
    let address = Channel::from_shared(url).unwrap().tls_config(tls).unwrap();
    Ok(Client::new(address.connect().await?))
}

/// A whole call: TLS 1.3 tells a client that it is not let in only after it believes to be connected.
async fn list(serving: &Serving, tls: ClientTlsConfig) -> Result<(), Status> {
    let mut client = connect(serving, tls)
        .await
        .map_err(|error| Status::unavailable(error.to_string()))?;
    let listed = client.list_leases(ListLeasesRequest::default()).await;
    listed.map(drop)
}

async fn session(client: &Client) -> SessionRef {
    let request = OpenSessionRequest {
        opening: Some(opening("one")),
    };
    let opened = client.clone().open_session(request).await.unwrap();
    SessionRef {
        session_id: opened.into_inner().session_id,
        secret: vec![7; 16],
        epoch: 1,
    }
}

async fn renew(client: &Client, session: &SessionRef) -> Result<(), Status> {
    let request = RenewSessionRequest {
        session: Some(session.clone()),
        ..Default::default()
    };
    client.clone().renew_session(request).await.map(drop)
}

#[tokio::test]
async fn a_certificate_says_who_calls() {
    let files = Files::new();
    let alice = "spiffe://test/alice";
    let mut settings = files.settings(true);
    settings.rules = rules(&[
        (alice, "", &[Verb::Acquire]),
        ("bob.test", "", &[Verb::Acquire, Verb::Read]),
    ]);
    let serving = files.serve(settings).await;
    let connected = async |names: &[&str]| {
        let tls = trusting(&[&files.servers], Some(&files.clients.client(names)));
        connect(&serving, tls).await.unwrap()
    };
    // A URI comes before a DNS name, wherever it stands.
    let alices = connected(&["DNS:bob.test", "URI:spiffe://test/alice"]).await;
    let bobs = connected(&["DNS:bob.test", "DNS:other.test"]).await;
    let others = connected(&["DNS:other.test"]).await;
    let nameless = connected(&["EMAIL:bob.test@test"]).await;

    let hers = session(&alices).await;
    renew(&alices, &hers).await.unwrap();
    refused(
        &renew(&bobs, &hers).await.unwrap_err(),
        Code::PermissionDenied,
        ErrorReason::PermissionDenied,
    );
    let read = async |client: &Client| {
        let mut client = client.clone();
        let listed = client.list_leases(ListLeasesRequest::default()).await;
        listed.map_err(|status| status.code()).map(drop)
    };
    assert_eq!(read(&bobs).await, Ok(()));
    assert_eq!(read(&alices).await, Err(Code::PermissionDenied));
    assert_eq!(read(&others).await, Err(Code::PermissionDenied));
    assert_eq!(read(&nameless).await, Err(Code::Unauthenticated));
}

#[tokio::test]
async fn who_has_no_good_certificate_is_not_connected() {
    let files = Files::new();
    let serving = files.serve(files.settings(true)).await;
    let names = &["DNS:alice.test"][..];
    let good = files.clients.client(names);
    list(&serving, trusting(&[&files.servers], Some(&good)))
        .await
        .unwrap();

    let stranger = Authority::new("clients");
    for (what, identity) in [
        ("none", None),
        ("of another authority", Some(stranger.client(names))),
        ("expired", Some(files.clients.expired_client(names))),
        ("a server's", Some(files.clients.server())),
    ] {
        let tls = trusting(&[&files.servers], identity.as_ref());
        // It is the connection that is refused: no service is reached that could say why.
        let status = list(&serving, tls).await.unwrap_err();
        let told = status.get_error_details().error_info().cloned();
        assert!(told.is_none(), "{what}: {told:?}");
    }
    // A client, too, sees whom it speaks to.
    let tls = trusting(&[&files.clients], Some(&good));
    assert!(connect(&serving, tls).await.is_err());
    // In the clear nothing is answered.
    let plain = format!("http://{}", serving.addresses.grpc);
    let plain = Channel::from_shared(plain).unwrap().connect().await;
    let answered = match plain {
        Ok(channel) => Client::new(channel)
            .list_leases(ListLeasesRequest::default())
            .await
            .is_ok(),
        Err(_) => false,
    };
    assert!(!answered);
}

/// Status of an HTTPS request, by a client without a certificate.
async fn https_get(files: &Files, serving: &Serving, path: &str) -> String {
    https_get_by(None, files, serving, path).await
}

/// Status of an HTTPS request.
async fn https_get_by(
    identity: Option<&Identity>,
    files: &Files,
    serving: &Serving,
    path: &str,
) -> String {
    let mut roots = rustls::RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(files.servers.pem().as_bytes()).unwrap();
    roots.add(root).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match identity {
        None => config.with_no_client_auth(),
        Some(Identity { cert, key }) => {
            let cert = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            config.with_client_auth_cert(vec![cert], key).unwrap()
        }
    };
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = TcpStream::connect(serving.addresses.http).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = connector.connect(name, stream).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.lines().next().unwrap().to_owned()
}

#[tokio::test]
async fn probes_need_no_certificate_but_speak_tls() {
    let files = Files::new();
    let serving = files.serve(files.settings(true)).await;
    assert_eq!(
        https_get(&files, &serving, "/livez").await,
        "HTTP/1.1 200 OK"
    );
    let mut plain = TcpStream::connect(serving.addresses.http).await.unwrap();
    plain
        .write_all(b"GET /livez HTTP/1.1\r\nHost: test\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    // A reset is as good an answer as an alert.
    drop(plain.read_to_end(&mut answer).await);
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
}

#[tokio::test]
async fn over_http_too_a_certificate_says_who_calls() {
    let files = Files::new();
    let mut settings = files.settings(true);
    settings.rules = rules(&[("alice.test", "", &[Verb::Read])]);
    let serving = files.serve(settings).await;
    let list = async |identity: Option<&Identity>| {
        let answered = https_get_by(identity, &files, &serving, "/v1/leases").await;
        answered.split(' ').nth(1).unwrap().to_owned()
    };
    let named = |name: &str| files.clients.client(&[&format!("DNS:{name}")]);
    assert_eq!(list(None).await, "401");
    assert_eq!(list(Some(&named("alice.test"))).await, "200");
    assert_eq!(list(Some(&named("bob.test"))).await, "403");
}

#[tokio::test]
async fn without_client_authorities_everybody_is_connected_and_anonymous() {
    let files = Files::new();
    let serving = files.serve(files.settings(false)).await;
    list(&serving, trusting(&[&files.servers], None))
        .await
        .unwrap();
}

#[tokio::test]
async fn who_does_not_shake_hands_keeps_nobody_out_and_is_let_go() {
    let files = Files::new();
    let mut settings = files.settings(false);
    settings.timeouts.preface = Duration::from_secs(2);
    settings.limits.max_connections = 3;
    let serving = files.serve(settings).await;
    let mut silent = Vec::new();
    for address in [serving.addresses.grpc, serving.addresses.http] {
        for _ in 0..2 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
    }
    list(&serving, trusting(&[&files.servers], None))
        .await
        .unwrap();
    assert_eq!(
        https_get(&files, &serving, "/livez").await,
        "HTTP/1.1 200 OK"
    );
    for mut stream in silent {
        let mut rest = Vec::new();
        let read = palisade_test_support::within("it is let go", LONG, async {
            // Closed or reset, and no matter which.
            drop(stream.read_to_end(&mut rest).await);
        });
        read.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_change_under_load_and_a_broken_one_changes_nothing() {
    let files = Files::new();
    let serving = Arc::new(files.serve(files.settings(false)).await);
    let next = Authority::new("next");
    let done = Arc::new(AtomicBool::new(false));
    let calls = Arc::new(AtomicUsize::new(0));
    let both = trusting(&[&files.servers, &next], None);
    // One that stays connected, and one that comes anew each time.
    let staying = connect(&serving, both.clone()).await.unwrap();
    let load = {
        let (serving, done, calls) = (Arc::clone(&serving), Arc::clone(&done), Arc::clone(&calls));
        let (both, mut staying) = (both.clone(), staying.clone());
        tokio::spawn(async move {
            while !done.load(Ordering::Relaxed) {
                list(&serving, both.clone()).await?;
                staying.list_leases(ListLeasesRequest::default()).await?;
                calls.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, Status>(())
        })
    };
    let old = async || {
        list(&serving, trusting(&[&files.servers], None))
            .await
            .is_ok()
    };
    let new = async || list(&serving, trusting(&[&next], None)).await.is_ok();
    for round in 0..6 {
        let before = calls.load(Ordering::Relaxed);
        eventually("calls go on", LONG, async || {
            calls.load(Ordering::Relaxed) > before
        })
        .await
        .unwrap();
        let to_next = round % 2 == 0;
        let identity = if to_next {
            next.server()
        } else {
            files.servers.server()
        };
        // First the one, then the other: in between they do not belong together.
        std::fs::write(files.path("server.pem"), &identity.cert).unwrap();
        serving.reload.now();
        let stands = if to_next { old().await } else { new().await };
        assert!(stands, "a certificate without its key is not taken");
        std::fs::write(files.path("server.key"), &identity.key).unwrap();
        serving.reload.now();
        let taken = eventually("it is taken", LONG, async || {
            if to_next { new().await } else { old().await }
        });
        taken.await.unwrap();
    }
    for (name, text) in [
        ("server.pem", "oops"),
        ("server.key", ""),
        ("server.pem", ""),
    ] {
        std::fs::write(files.path(name), text).unwrap();
        serving.reload.now();
        assert!(old().await);
    }
    std::fs::remove_file(files.path("server.pem")).unwrap();
    serving.reload.now();
    assert!(old().await && !new().await);
    done.store(true, Ordering::Relaxed);
    load.await.unwrap().unwrap();
    assert!(calls.load(Ordering::Relaxed) >= 6);
}

#[tokio::test]
async fn files_are_looked_at_again_by_themselves() {
    let files = Files::new();
    let mut settings = files.settings(true);
    settings.timeouts.reload = Duration::from_millis(50);
    let serving = files.serve(settings).await;
    let others = Authority::new("other clients");
    let identity = others.client(&["DNS:alice.test"]);
    let tls = || trusting(&[&files.servers], Some(&identity));
    assert!(list(&serving, tls()).await.is_err());
    std::fs::write(files.path("clients.pem"), others.pem()).unwrap();
    eventually("the new authority counts", LONG, async || {
        list(&serving, tls()).await.is_ok()
    })
    .await
    .unwrap();
    let before = files.clients.client(&["DNS:alice.test"]);
    let tls = trusting(&[&files.servers], Some(&before));
    assert!(list(&serving, tls).await.is_err());
}

#[tokio::test]
async fn what_cannot_be_served_with_is_said_at_the_start() {
    let files = Files::new();
    let other = Authority::new("other").server();
    let cases: [(&str, &str, &str); 5] = [
        ("server.pem", "", "no certificate"),
        (
            "server.pem",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "cannot be read",
        ),
        ("server.key", "", "no private key"),
        ("server.key", &other.key, "not that of the certificate"),
        ("clients.pem", "", "no certificate"),
    ];
    for (name, text, said) in cases {
        let good = std::fs::read(files.path(name)).unwrap();
        std::fs::write(files.path(name), text).unwrap();
        let opened = Server::open(files.settings(true)).await;
        std::fs::write(files.path(name), good).unwrap();
        let Err(ServeError::Credentials(error)) = opened else {
            panic!("{name}: {opened:?}");
        };
        assert!(error.to_string().contains(name), "{error}");
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains(said), "{name}: {source}");
    }
    let mut settings = files.settings(true);
    settings.token_file = Some(files.path("none.toml"));
    let opened = Server::open(settings).await;
    assert!(
        matches!(opened, Err(ServeError::Credentials(_))),
        "{opened:?}"
    );
}
