//! A coordinator that asks who calls, and clients that say so.

use std::fs;
use std::path::{Path, PathBuf};

use palisade_test_support::pki::Authority;
use rustix::process::Signal;
use sha2::{Digest, Sha256};

use crate::program::{Ended, Running, address, palisade};

struct Secured {
    directory: tempfile::TempDir,
    authority: Authority,
    coordinator: Running,
    port: String,
}

impl Secured {
    fn start(more: &[&str], rules: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::new("test");
        let path = |name: &str| directory.path().join(name);
        let (_, _) = authority.server().write(directory.path(), "server");
        fs::write(path("ca.pem"), authority.pem()).unwrap();
        write_token(&path("tokens.toml"), "one");
        fs::write(path("palisade.toml"), rules).unwrap();
        let mut command = palisade(&[
            "serve",
            "--listen=127.0.0.1:0",
            "--http=127.0.0.1:0",
            "--config=palisade.toml",
            "--tls-cert-file=server.pem",
            "--tls-key-file=server.key",
        ]);
        command.args(more).current_dir(directory.path());
        let mut coordinator = Running::start(command);
        let port = address(&mut coordinator);
        let port = port.strip_prefix("https://127.0.0.1:").unwrap().to_owned();
        Self {
            directory,
            authority,
            coordinator,
            port,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn client(&self, arguments: &[&str]) -> Ended {
        let mut command = palisade(arguments);
        command
            .env("PALISADE_ADDR", format!("https://localhost:{}", self.port))
            .args(["--timeout", "5s"])
            .current_dir(self.directory.path());
        command.output().unwrap().into()
    }
}

fn write_token(file: &Path, token: &str) {
    let hash = hex::encode(Sha256::digest(token));
    let text = format!("[[token]]\nprincipal = \"alice\"\nsha256 = \"{hash}\"\n");
    fs::write(file, text).unwrap();
}

const RULES: &str =
    "[[rules]]\nprincipal = \"alice\"\nprefix = \"orders\"\nverbs = [\"acquire\", \"read\"]\n";

#[test]
fn a_client_shows_its_certificate() {
    let secured = Secured::start(&["--tls-client-ca-file=ca.pem"], RULES);
    for (name, principal) in [("alice", "DNS:alice"), ("bob", "DNS:bob")] {
        let identity = secured.authority.client(&[principal]);
        let (_, _) = identity.write(secured.directory.path(), name);
    }
    let acquire = ["acquire", "orders/eu", "--detach", "--ca-file=ca.pem"];
    let by = |who: &[&str]| secured.client(&[&acquire, who].concat());
    let alice = ["--cert-file=alice.pem", "--key-file=alice.key"];
    let granted = by(&alice);
    assert_eq!(granted.code, Some(0), "{granted:?}");
    let denied = by(&["--cert-file=bob.pem", "--key-file=bob.key"]);
    assert_eq!(denied.code, Some(1), "{denied:?}");
    let other = secured.client(&[&["get", "orders-old", "--ca-file=ca.pem"], &alice[..]].concat());
    assert_eq!(other.code, Some(1), "{other:?}");
    // Nobody without a certificate, and no coordinator without one of the client's authorities.
    assert_eq!(by(&[]).code, Some(69));
    let trusting =
        secured.client(&[&["get", "orders/eu", "--ca-file=alice.pem"], &alice[..]].concat());
    assert_eq!(trusting.code, Some(69), "{trusting:?}");
    let halved = by(&["--cert-file=alice.pem"]);
    assert_eq!(halved.code, Some(2), "{halved:?}");
    let none = by(&["--cert-file=none.pem", "--key-file=alice.key"]);
    assert!(none.stderr.contains("none.pem"), "{none:?}");
}

#[test]
fn a_client_shows_its_token_and_sighup_makes_others_count() {
    let mut secured = Secured::start(&["--auth-token-file=tokens.toml"], RULES);
    fs::write(secured.path("one"), "one\n").unwrap();
    fs::write(secured.path("two"), "two\n").unwrap();
    let get = |secured: &Secured, file: &str| {
        let token = format!("--token-file={file}");
        let ended = secured.client(&["get", "orders/eu", "--ca-file=ca.pem", &token]);
        assert!(!ended.stderr.contains("two"), "{ended:?}");
        ended.code
    };
    assert_eq!(get(&secured, "one"), Some(0));
    assert_eq!(get(&secured, "two"), Some(1));
    let without = secured.client(&["get", "orders/eu", "--ca-file=ca.pem"]);
    assert_eq!(without.code, Some(1), "{without:?}");

    write_token(&secured.path("tokens.toml"), "two");
    secured.coordinator.signal(Signal::HUP);
    secured.coordinator.says("new tokens are in use");
    assert_eq!(get(&secured, "two"), Some(0));
    assert_eq!(get(&secured, "one"), Some(1));
    secured.coordinator.signal(Signal::TERM);
    let ended = secured.coordinator.ends();
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[test]
fn who_listens_to_a_network_in_the_clear_is_warned_once() {
    let directory = tempfile::tempdir().unwrap();
    let warned = |more: &[&str]| {
        let mut command = palisade(&["serve", "--http=127.0.0.1:0"]);
        command.args(more).current_dir(directory.path());
        let mut coordinator = Running::start(command);
        address(&mut coordinator);
        coordinator.signal(Signal::TERM);
        let ended = coordinator.ends();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        ended.stderr.matches("may do everything").count()
    };
    assert_eq!(warned(&["--listen=0.0.0.0:0"]), 1);
    assert_eq!(warned(&["--listen=127.0.0.1:0"]), 0);
}
