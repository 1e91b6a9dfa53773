//! PostgreSQL is started, killed, frozen and started again, and keeps what it acknowledged.

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use palisade_test_support::{Error, Postgres, eventually, within};
use tempfile::TempDir;

async fn count(server: &Postgres) -> String {
    let rows = server.psql("orders", "SELECT count(*) FROM orders").await;
    rows.expect("the server answers").trim().to_owned()
}

#[tokio::test]
async fn keeps_committed_rows_over_a_kill() {
    let mut server = Postgres::start().await.unwrap();
    assert_eq!(
        server.create_database("orders").await.unwrap(),
        server.url_for("orders")
    );
    server
        .psql(
            "orders",
            "CREATE TABLE orders (id int); INSERT INTO orders VALUES (1)",
        )
        .await
        .unwrap();
    let url = server.url();

    server.kill().unwrap();
    assert!(
        server.psql("orders", "SELECT 1").await.is_err(),
        "a killed server answered"
    );
    server.start_again().await.unwrap();

    assert_eq!(server.url(), url);
    assert_eq!(count(&server).await, "1");
}

#[tokio::test]
async fn kill_ends_sessions_that_are_at_work() {
    let mut server = Postgres::start().await.unwrap();
    server.create_database("orders").await.unwrap();
    server
        .psql("orders", "CREATE TABLE orders (id int)")
        .await
        .unwrap();
    // Commits a second from now, in a backend that does not look for its parent meanwhile.
    let busy = "DO $$ DECLARE t timestamptz := clock_timestamp(); BEGIN
        INSERT INTO orders VALUES (1);
        WHILE clock_timestamp() < t + interval '1 second' LOOP END LOOP; END $$";
    let mut psql = Command::new("psql")
        .args(["-X", "-c", busy, &server.url_for("orders")])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let runs = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'DO%' AND state = 'active'";
    eventually("the write runs", Duration::from_secs(10), async || {
        server
            .psql("postgres", runs)
            .await
            .is_ok_and(|n| n.trim() == "1")
    })
    .await
    .unwrap();

    server.kill().unwrap();
    assert!(
        !psql.wait().unwrap().success(),
        "the write went on after the kill"
    );
    server.start_again().await.unwrap();
    assert_eq!(count(&server).await, "0");
}

#[tokio::test]
async fn answers_nothing_while_paused_and_goes_on_when_resumed() {
    let mut server = Postgres::builder()
        .fsync(false)
        .setting("work_mem", "7MB")
        .start()
        .await
        .unwrap();
    assert_eq!(
        server
            .psql("postgres", "SHOW work_mem")
            .await
            .unwrap()
            .trim(),
        "7MB"
    );
    server.pause().unwrap();
    let question = server.psql("postgres", "SELECT 1");
    let answer = within("an answer", Duration::from_millis(500), question).await;
    assert!(matches!(answer, Err(Error::TimedOut { .. })), "{answer:?}");
    server.resume().unwrap();
    assert_eq!(
        server.psql("postgres", "SELECT 1").await.unwrap().trim(),
        "1"
    );
    server.stop().await.unwrap();
    server.start_again().await.unwrap();
}

#[tokio::test]
async fn a_setting_that_the_server_refuses_is_told_with_its_log() {
    let error = Postgres::builder()
        .setting("work_mem", "much")
        .start()
        .await
        .unwrap_err();
    assert!(
        format!("{error:?}").contains("invalid value for parameter \"work_mem\""),
        "{error:?}"
    );
}

/// System V segments and POSIX shared memory outlive a process that was killed, and the data directory.
#[tokio::test]
async fn leaves_no_shared_memory_behind() {
    let segments = || {
        let list = fs::read_to_string("/proc/sysvipc/shm").unwrap();
        list.lines()
            .skip(1)
            .filter_map(|line| line.split_whitespace().nth(1).map(ToOwned::to_owned))
            .collect::<Vec<_>>()
    };
    for how in ["dropped", "frozen", "killed", "stopped"] {
        let mut server = Postgres::builder().fsync(false).start().await.unwrap();
        let own = server
            .psql("postgres", "SELECT pg_read_file('postmaster.pid')")
            .await
            .unwrap();
        let line: Vec<_> = own.lines().nth(6).unwrap().split_whitespace().collect();
        let [_, id] = line.as_slice() else {
            panic!("{own}");
        };
        assert!(segments().contains(&(*id).to_owned()), "{own}");
        let shared = server
            .psql("postgres", "SHOW dynamic_shared_memory_type")
            .await
            .unwrap();
        assert_eq!(shared.trim(), "mmap");
        match how {
            "frozen" => server.pause().unwrap(),
            "killed" => server.kill().unwrap(),
            "stopped" => server.stop().await.unwrap(),
            _ => {}
        }
        drop(server);
        assert!(!segments().contains(&(*id).to_owned()), "{how}");
    }
}

const INNER: &str = "PALISADE_TEST_INNER_POSTGRES";

/// Not a test of its own: what `a_killed_test_takes_its_server_along` starts and kills.
#[tokio::test]
async fn inner_that_starts_a_server_and_is_killed() {
    let Some(file) = env::var_os(INNER) else {
        return;
    };
    let server = Postgres::start().await.unwrap();
    let pid = server
        .psql(
            "postgres",
            "SELECT split_part(pg_read_file('postmaster.pid'), E'\\n', 1)",
        )
        .await
        .unwrap();
    fs::write(
        file,
        format!("{}\n{}\n", pid.trim(), server.socket_dir().display()),
    )
    .unwrap();
    std::future::pending::<()>().await;
}

/// Also where the server runs as another user than the test.
#[tokio::test]
async fn a_killed_test_takes_its_server_along() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("server");
    let mut inner = Command::new(env::current_exe().unwrap())
        .args(["--exact", "inner_that_starts_a_server_and_is_killed"])
        .env(INNER, &file)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let read = || fs::read_to_string(&file).unwrap_or_default();
    let soon = Duration::from_secs(60);
    eventually("the inner server", soon, async || {
        read().lines().count() == 2
    })
    .await
    .unwrap();
    let told = read();
    let (pid, home) = told.trim().split_once('\n').unwrap();
    let server = Path::new("/proc").join(pid);
    assert!(server.exists());
    inner.kill().unwrap();
    inner.wait().unwrap();
    eventually("the end of the inner server", soon, async || {
        !server.exists()
    })
    .await
    .unwrap();
    fs::remove_dir_all(home).unwrap();
}
