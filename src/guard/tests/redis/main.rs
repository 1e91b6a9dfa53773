//! The guard on a real Redis.
#![allow(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

use std::time::Duration;

use palisade_guard::redis::{Guard, MAX_COMMANDS, Sealed, Weakness};
use palisade_guard::{Class, GuardError};
use palisade_test_support::{Proxy, Redis, eventually};
use palisade_token::{FencingToken, Grant, HolderId, ResourceName};
use redis::aio::MultiplexedConnection;
use redis::{Client, Cmd, Value, cmd};
use tokio::task::JoinSet;

const PATIENCE: Duration = Duration::from_secs(30);
const FENCE: &str = "palisade:{orders}:fence";

struct Server {
    redis: Redis,
    guard: Guard,
    connection: MultiplexedConnection,
}

async fn connect(url: &str) -> MultiplexedConnection {
    let client = Client::open(url).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

impl Server {
    async fn start() -> Self {
        let redis = Redis::start().await.unwrap();
        let mut connection = connect(&redis.url()).await;
        let guard = Guard::new();
        // Twice: the second finds its own.
        guard.install(&mut connection).await.unwrap();
        guard.install(&mut connection).await.unwrap();
        Self {
            redis,
            guard,
            connection,
        }
    }

    async fn seal(&self, grant: &Grant) -> Result<Sealed, GuardError> {
        self.guard.seal(&mut self.connection.clone(), grant).await
    }

    async fn write(&self, sealed: &Sealed, commands: &[&Cmd]) -> Result<Vec<Value>, GuardError> {
        let mut write = self.guard.begin(sealed)?;
        for command in commands {
            write.push(command)?;
        }
        write.commit(&mut self.connection.clone()).await
    }

    async fn run<T: redis::FromRedisValue>(&self, command: &Cmd) -> T {
        let mut connection = self.connection.clone();
        command.query_async(&mut connection).await.unwrap()
    }
}

fn grant(resource: &str, token: u64) -> Grant {
    Grant {
        resource: ResourceName::new(resource).unwrap(),
        token: FencingToken::new(token).unwrap(),
        holder: HolderId::from_bytes([u8::try_from(token % 251).unwrap(); 16]),
    }
}

#[track_caller]
fn assert_stale(error: &GuardError, presented: u64, at: u64) {
    assert!(
        matches!(error, GuardError::Stale { presented: p, fence, .. }
            if p.get() == presented && fence.get() == at),
        "{error:?}"
    );
    assert_eq!(error.class(), Class::Fatal);
}

#[tokio::test]
async fn a_stale_write_is_refused_in_the_step_that_would_make_it() {
    let server = Server::start().await;
    let (old, clone) = {
        let sealed = server.seal(&grant("orders", 10)).await.unwrap();
        (sealed.clone(), sealed)
    };
    let set = |value: u64| Cmd::set("register:{orders}", value);
    let replies = server
        .write(&old, &[&set(1), &Cmd::get("x:{orders}")])
        .await;
    assert!(matches!(replies, Err(GuardError::Misuse(_))), "{replies:?}");
    let many = server
        .write(&old, &[&set(1), cmd("SPOP").arg("s:{orders}")])
        .await;
    assert_eq!(many.unwrap(), [Value::Okay, Value::Nil]);
    // Begun before the seal, committed after it: nothing was held in between, so it is stale.
    let mut late = server.guard.begin(&old).unwrap();
    late.push(&set(2)).unwrap();
    let greatest = grant("orders", (1 << 53) - 1);
    server.seal(&greatest).await.unwrap();
    let error = late
        .commit(&mut server.connection.clone())
        .await
        .unwrap_err();
    assert_stale(&error, 10, (1 << 53) - 1);
    assert!(!clone.is_live());
    assert_stale(&server.guard.begin(&clone).unwrap_err(), 10, (1 << 53) - 1);
    assert_stale(
        &server.seal(&grant("orders", 9)).await.unwrap_err(),
        9,
        (1 << 53) - 1,
    );
    let other = Grant {
        holder: HolderId::from_bytes([0xee; 16]),
        ..greatest
    };
    let error = server.seal(&other).await.unwrap_err();
    assert!(matches!(error, GuardError::Collision { .. }), "{error:?}");
    assert_eq!(server.run::<u64>(&Cmd::get("register:{orders}")).await, 1);
}

/// All keys are in one slot, and are the resource's own: not its fence, not another's.
#[tokio::test]
async fn keys_and_commands_that_are_not_the_resources_own_are_refused() {
    let server = Server::start().await;
    let sealed = server.seal(&grant("orders", 10)).await.unwrap();
    server.seal(&grant("bills", 10)).await.unwrap();
    let before: Vec<String> = server.run(cmd("KEYS").arg("*")).await;
    for command in [
        Cmd::set("register", 1),
        Cmd::set("register:{bills}", 1),
        Cmd::set("register:{bills}{orders}", 1),
        Cmd::set("register:{}{orders}", 1),
        Cmd::set("{register:{orders}", 1),
        Cmd::set("register:{orders", 1),
        Cmd::set("register:{orders/eu}", 1),
        Cmd::del(FENCE),
        cmd("HSET").arg(FENCE).arg("token").arg(99).to_owned(),
        cmd("EXPIRE").arg(FENCE).arg(1).to_owned(),
        cmd("DEL").arg("a:{orders}").arg(FENCE).to_owned(),
        cmd("RENAME").arg("a:{orders}").arg(FENCE).to_owned(),
        cmd("FLUSHALL").arg("SYNC").to_owned(),
        cmd("EVAL").arg("return 1").arg(0).to_owned(),
        cmd("BLPOP").arg("a:{orders}").arg(0).to_owned(),
        cmd("FCALL").arg("palisade_seal_1").arg(1).to_owned(),
    ] {
        let good = Cmd::set("register:{orders}", 7);
        let refused = server.write(&sealed, &[&good, &command]).await;
        assert!(
            matches!(refused, Err(GuardError::Misuse(_))),
            "{command:?}: {refused:?}"
        );
    }
    let after: Vec<String> = server.run(cmd("KEYS").arg("*")).await;
    assert_eq!(before.len(), after.len(), "{after:?}");
    let mut write = server.guard.begin(&sealed).unwrap();
    assert!(matches!(
        write.push(&cmd("PING")),
        Err(GuardError::Misuse(_))
    ));
    for value in 0..MAX_COMMANDS {
        write.push(&Cmd::set("register:{orders}", value)).unwrap();
    }
    let more = write.push(&Cmd::set("register:{orders}", 0));
    assert!(matches!(more, Err(GuardError::Misuse(_))));
    let replies = write.commit(&mut server.connection.clone()).await.unwrap();
    assert_eq!(replies.len(), MAX_COMMANDS);
}

/// Redis takes nothing back; who calls is told what may have happened.
#[tokio::test]
async fn a_command_that_fails_after_others_is_unknown_and_the_first_is_not() {
    let server = Server::start().await;
    let sealed = server.seal(&grant("orders", 10)).await.unwrap();
    let (good, bad) = (
        Cmd::set("text:{orders}", "a"),
        cmd("INCR").arg("text:{orders}").to_owned(),
    );
    server.write(&sealed, &[&good]).await.unwrap();
    let error = server.write(&sealed, &[&bad, &good]).await.unwrap_err();
    assert!(
        matches!(error, GuardError::RolledBack(Some(_))),
        "{error:?}"
    );
    let error = server.write(&sealed, &[&good, &bad]).await.unwrap_err();
    assert!(
        matches!(error, GuardError::CommitUnknown { .. }),
        "{error:?}"
    );
    // The answer is lost, the write is not.
    let link = Proxy::start(&server.redis.host_port()).await.unwrap();
    let mut connection = connect(&format!("redis://{}/", link.host_port())).await;
    let mut write = server.guard.begin(&sealed).unwrap();
    write.push(&Cmd::set("lost:{orders}", 1)).unwrap();
    link.drop_replies();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { write.commit(&mut connection).await });
    eventually("the write arrives", PATIENCE, async || {
        server.run::<Option<u64>>(&Cmd::get("lost:{orders}")).await == Some(1)
    })
    .await
    .unwrap();
    link.cut().await.unwrap();
    let error = tasks.join_next().await.unwrap().unwrap().unwrap_err();
    assert!(
        matches!(error, GuardError::CommitUnknown { .. }),
        "{error:?}"
    );
    assert!(sealed.is_live());
}

/// A fence has no end: not by a TTL, not by a restart, and not by what is no fence in its place.
#[tokio::test]
async fn a_fence_outlives_a_ttl_and_a_kill_and_what_is_no_fence_admits_nobody() {
    let mut server = Server::start().await;
    let sealed = server.seal(&grant("orders", 10)).await.unwrap();
    let good = Cmd::set("register:{orders}", 1);
    for _ in 0..2 {
        server.run::<()>(cmd("EXPIRE").arg(FENCE).arg(1_000)).await;
        server.write(&sealed, &[&good]).await.unwrap();
        assert_eq!(server.run::<i64>(cmd("TTL").arg(FENCE)).await, -1);
        server.run::<()>(cmd("EXPIRE").arg(FENCE).arg(1_000)).await;
        server.seal(&grant("orders", 10)).await.unwrap();
        assert_eq!(server.run::<i64>(cmd("TTL").arg(FENCE)).await, -1);
        server.redis.kill().unwrap();
        server.redis.start_again().await.unwrap();
        server.connection = connect(&server.redis.url()).await;
    }
    let name = grant("orders", 10).resource;
    let fence = server
        .guard
        .fence(&mut server.connection.clone(), &name)
        .await;
    assert_eq!(fence.unwrap().unwrap().token.get(), 10);
    for forged in [
        Cmd::set(FENCE, 10),
        cmd("HSET").arg(FENCE).arg("token").arg("10").to_owned(),
        cmd("HSET")
            .arg(FENCE)
            .arg("token")
            .arg("ten")
            .arg("holder")
            .arg("x")
            .to_owned(),
        cmd("HSET")
            .arg(FENCE)
            .arg("token")
            .arg("1e1")
            .arg("holder")
            .arg(sealed.grant().holder.to_string())
            .to_owned(),
    ] {
        server.run::<()>(&Cmd::del(FENCE)).await;
        server.run::<()>(&forged).await;
        for error in [
            server.write(&sealed, &[&good]).await.map(drop).unwrap_err(),
            server
                .seal(&grant("orders", 99))
                .await
                .map(drop)
                .unwrap_err(),
            server
                .guard
                .fence(&mut server.connection.clone(), &name)
                .await
                .map(drop)
                .unwrap_err(),
        ] {
            assert!(
                matches!(error, GuardError::Backend(_)),
                "{forged:?}: {error:?}"
            );
        }
    }
}

/// Why it is efficiency grade: what Redis forgot is told to the holder whose seal it was, and to nobody else.
#[tokio::test]
async fn a_lost_seal_is_told_to_its_holder_and_admits_an_older_one_as_documented() {
    let server = Server::start().await;
    let old = server.seal(&grant("orders", 10)).await.unwrap();
    let new = server.seal(&grant("orders", 11)).await.unwrap();
    // As a failover to a replica that has not heard of the second seal.
    server.run::<()>(&Cmd::del(FENCE)).await;
    server.seal(old.grant()).await.unwrap();
    let set = Cmd::set("register:{orders}", 1);
    server.write(&old, &[&set]).await.unwrap();
    let error = server.write(&new, &[&set]).await.unwrap_err();
    assert!(
        matches!(error, GuardError::StoreWentBackwards { fence: Some(at), .. } if at.get() == 10),
        "{error:?}"
    );
    assert!(!new.is_live());
}

#[tokio::test]
async fn settings_that_lose_fences_are_found() {
    let server = Server::start().await;
    let mut connection = server.connection.clone();
    let guard = server.guard;
    assert_eq!(
        guard.weaknesses(&mut connection).await.unwrap(),
        [Weakness::NotFlushed]
    );
    let config = |name: &str, value: &str| cmd("CONFIG").arg("SET").arg(name).arg(value).to_owned();
    server.run::<()>(&config("appendfsync", "always")).await;
    assert_eq!(guard.weaknesses(&mut connection).await.unwrap(), []);
    server
        .run::<()>(&config("maxmemory-policy", "volatile-lru"))
        .await;
    assert_eq!(guard.weaknesses(&mut connection).await.unwrap(), []);
    server
        .run::<()>(&config("maxmemory-policy", "allkeys-lru"))
        .await;
    server.run::<()>(&config("appendonly", "no")).await;
    let found = guard.weaknesses(&mut connection).await.unwrap();
    assert_eq!(found, [Weakness::Evicts, Weakness::NoAppendOnlyFile]);
    server
        .run::<()>(cmd("ACL").arg("SETUSER").arg("default").arg("-config"))
        .await;
    assert_eq!(
        guard.weaknesses(&mut connection).await.unwrap(),
        [Weakness::Untold]
    );
    // Without the functions nothing is admitted.
    server.run::<()>(cmd("FUNCTION").arg("FLUSH")).await;
    let error = server.seal(&grant("orders", 1)).await.unwrap_err();
    assert!(matches!(error, GuardError::Backend(_)), "{error:?}");
}
