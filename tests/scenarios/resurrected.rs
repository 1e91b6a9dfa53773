//! A leader is frozen between its read and its write, replaced, and thawed (I2).

use palisade_guard::postgres::Guard;
use palisade_test_support::{Coordinator, Etcd, Postgres};
use rustix::process::Signal;
use sqlx::PgPool;

use crate::setup::{Worker, coordinator, name};

struct Stage {
    _etcd: Etcd,
    coordinator: Coordinator,
    postgres: Postgres,
    pool: PgPool,
}

async fn stage() -> Stage {
    let etcd = Etcd::start().await.unwrap();
    let postgres = Postgres::start().await.unwrap();
    let pool = PgPool::connect(&postgres.url()).await.unwrap();
    sqlx::query("CREATE TABLE account (balance bigint NOT NULL, writes bigint NOT NULL)")
        .execute(&pool)
        .await
        .unwrap();
    sqlx::query("INSERT INTO account VALUES (100, 0)")
        .execute(&pool)
        .await
        .unwrap();
    Stage {
        coordinator: coordinator(&etcd.endpoints()).await,
        _etcd: etcd,
        postgres,
        pool,
    }
}

impl Stage {
    fn worker(&self, mode: &str) -> Worker {
        let (coordinator, postgres) = (self.coordinator.addr(), self.postgres.url());
        Worker::start(&[&coordinator, &postgres, "account", "account", mode])
    }

    async fn account(&self) -> (i64, i64) {
        sqlx::query_as("SELECT balance, writes FROM account")
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    /// The old leader reads 100 and is frozen; the new one adds 50; the old one wakes and adds 10 to the
    /// 100 it has read. Returns both tokens and the old leader's last answer.
    async fn resurrect(&self, mode: &str) -> (u64, u64, String) {
        let (mut old, mut new) = (self.worker(mode), self.worker(mode));
        let old_token = token(&old.ask("lead").await);
        assert_eq!(old.ask("read").await, "read 100");
        old.signal(Signal::STOP);
        old.send("write 110").await;
        let new_token = token(&new.ask("lead").await);
        assert!(
            new_token > old_token,
            "{new_token} is not above {old_token}"
        );
        assert_eq!(new.ask("read").await, "read 100");
        assert_eq!(new.ask("write 150").await, format!("wrote {new_token}"));
        old.signal(Signal::CONT);
        (old_token, new_token, old.answer().await)
    }
}

fn token(answer: &str) -> u64 {
    let number = answer.strip_prefix("leading ");
    number
        .unwrap_or_else(|| panic!("not leading: {answer}"))
        .parse()
        .unwrap()
}

#[tokio::test]
async fn a_resurrected_leader_is_refused_and_the_data_is_intact() {
    let stage = stage().await;
    Guard::new().install(&stage.pool).await.unwrap();
    Guard::new()
        .protect(&stage.pool, "account", &name("account"))
        .await
        .unwrap();
    let (old, new, answer) = stage.resurrect("guarded").await;
    assert_eq!(answer, format!("stale {old} {new}"));
    assert_eq!(stage.account().await, (150, 1));
}

/// The same without the guard loses the new leader's write: the lease alone protects nothing.
#[tokio::test]
async fn without_the_guard_a_resurrected_leader_loses_an_update() {
    let stage = stage().await;
    let (old, _new, answer) = stage.resurrect("unguarded").await;
    assert_eq!(answer, format!("wrote {old}"));
    assert_eq!(stage.account().await, (110, 2));
}
