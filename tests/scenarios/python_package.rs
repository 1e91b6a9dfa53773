//! The Python package of deploy/python, installed as its users install it: its own tests, without servers and on
//! real ones.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use palisade_test_support::pki::Authority;
use palisade_test_support::{Coordinator, Postgres, within};
use tokio::process::Command;

/// Longer than its tests take on a busy machine; each of them has a limit of its own.
const LIMIT: Duration = Duration::from_secs(280);

fn environment() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/python-package")
}

/// Runs a program of the package's environment in deploy/python; it must succeed.
async fn run(program: &str, arguments: &[&str], variables: &[(&str, &str)]) {
    let path = environment().join("bin").join(program);
    assert!(
        path.exists(),
        "{} is missing: tests/python-env makes it",
        path.display()
    );
    let child = Command::new(path)
        .args(arguments)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/python"))
        .envs(variables.iter().copied())
        .env("PYTHONPYCACHEPREFIX", environment().join("pycache"))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = within(program, LIMIT, child).await.unwrap().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {told}{complaint}");
}

#[tokio::test]
async fn the_python_package_holds_what_it_says_without_servers() {
    run("pytest", &["-q", "tests/unit"], &[]).await;
}

#[tokio::test]
async fn the_python_package_is_typed_and_tidy() {
    let cache = environment().join("mypy");
    run("mypy", &["--cache-dir", cache.to_str().unwrap()], &[]).await;
    run("ruff", &["check", "--no-cache"], &[]).await;
    run("ruff", &["format", "--no-cache", "--check"], &[]).await;
}

#[tokio::test]
async fn the_python_package_on_real_servers() {
    let coordinator = Coordinator::builder().start().await.unwrap();
    let server = Postgres::start().await.unwrap();
    let url = server.create_database("store").await.unwrap();
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
    palisade_guard::postgres::Guard::new()
        .install(&pool)
        .await
        .unwrap();
    pool.close().await;
    let addr = coordinator.addr();
    let variables = [
        ("PALISADE_TEST_ADDR", addr.as_str()),
        ("PALISADE_TEST_DSN", url.as_str()),
    ];
    run("pytest", &["-q", "tests/servers"], &variables).await;
}

#[tokio::test]
async fn the_python_package_says_who_it_is() {
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name).display().to_string();
    let authority = Authority::new("test");
    let (cert, key) = authority.server().write(home.path(), "server");
    for name in ["alice", "bob"] {
        let identity = authority.client(&[&format!("DNS:{name}")]);
        let (_, _) = identity.write(home.path(), name);
    }
    std::fs::write(path("ca.pem"), authority.pem()).unwrap();
    std::fs::write(path("other.pem"), Authority::new("other").pem()).unwrap();
    let rule = "[[rules]]\nprincipal = \"alice\"\nprefix = \"orders\"\nverbs = [\"acquire\"]\n";
    std::fs::write(path("palisade.toml"), rule).unwrap();
    let coordinator = Coordinator::builder()
        .arg(format!("--config={}", path("palisade.toml")))
        .arg(format!("--tls-cert-file={}", cert.display()))
        .arg(format!("--tls-key-file={}", key.display()))
        .arg(format!("--tls-client-ca-file={}", path("ca.pem")))
        .without_waiting()
        .start()
        .await
        .unwrap();
    let addr = coordinator
        .addr()
        .replace("http://127.0.0.1", "https://localhost");
    let variables = [
        ("PALISADE_TEST_TLS_ADDR", addr.as_str()),
        ("PALISADE_TEST_PKI", home.path().to_str().unwrap()),
    ];
    run("pytest", &["-q", "tests/tls"], &variables).await;
}
