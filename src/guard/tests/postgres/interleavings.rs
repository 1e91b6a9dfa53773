//! A is a writer with token 10, B seals 11. Every order of their steps, at every isolation level: a stale
//! writer gets ZF001, or 40001 where its snapshot is older than the seal, and after the seal has returned
//! nothing of A commits.

use palisade_token::Grant;
use sqlx::PgConnection;
use tokio::task::JoinSet;

use crate::db::{Db, LEVELS, grant, name, run, sql, words};

/// One table, one resource at token 10, a writer and a sealer.
struct Case {
    /// How it enters: as anybody does, or as the library does.
    enter: fn(&Grant) -> String,
    level: &'static str,
    table: String,
    old: Grant,
    new: Grant,
    a: PgConnection,
    b: PgConnection,
}

impl Case {
    /// Each isolation level, for a table that is one resource, and for one whose rows are, by either entry.
    async fn all(db: &Db) -> Vec<Self> {
        let enter: fn(&Grant) -> String = |held| format!("SELECT palisade.enter({})", sql(held));
        let open: fn(&Grant) -> String = |held| format!("CALL palisade.open({})", words(held));
        let mut kinds = Vec::new();
        for level in LEVELS {
            kinds.extend([(level, false, enter), (level, true, enter)]);
            kinds.extend([(level, false, open), (level, true, open)]);
        }
        let mut cases = Vec::new();
        for (index, (level, is_rows, enter)) in kinds.into_iter().enumerate() {
            let (table, resource) = (format!("orders_{index}"), format!("orders/{index}"));
            db.run(&format!(
                "CREATE TABLE {table} (token bigint, id bigint DEFAULT {index}); \
                 CREATE TABLE free_{table} (token bigint)"
            ))
            .await;
            let protected = if is_rows {
                let prefix = name("orders");
                let rows = db
                    .guard
                    .protect_rows(&db.pool, &table, Some(&prefix), &["id"]);
                rows.await
            } else {
                db.guard.protect(&db.pool, &table, &name(&resource)).await
            };
            protected.unwrap();
            let old = grant(&resource, 10);
            db.seal(&old).await;
            cases.push(Self {
                enter,
                level,
                table,
                old,
                new: grant(&resource, 11),
                a: db.connect().await,
                b: db.connect().await,
            });
        }
        cases
    }

    /// What a stale writer gets whose snapshot is older than the seal.
    fn stale_behind_snapshot(&self) -> Result<(), String> {
        match self.level {
            "READ COMMITTED" => Err("ZF001".to_owned()),
            _ => Err("40001".to_owned()),
        }
    }

    async fn a(&mut self, text: &str) -> Result<(), String> {
        let text = self.fill(text);
        run(&mut self.a, &text).await
    }

    async fn b(&mut self, text: &str) -> Result<(), String> {
        let text = self.fill(text);
        run(&mut self.b, &text).await
    }

    fn fill(&self, text: &str) -> String {
        text.replace("BEGIN!", &format!("BEGIN ISOLATION LEVEL {}", self.level))
            .replace("ENTER", &(self.enter)(&self.old))
            .replace(
                "CHECK",
                &format!("SELECT palisade.check({})", sql(&self.old)),
            )
            .replace("WRITE", &format!("INSERT INTO {} VALUES (10)", self.table))
            .replace(
                "FREE",
                &format!("INSERT INTO free_{} VALUES (10)", self.table),
            )
            .replace("SEAL", &format!("SELECT palisade.seal({})", sql(&self.new)))
    }

    /// Rolls A back and counts what it has committed, to either table.
    async fn written(&mut self, db: &Db) -> i64 {
        self.a("ROLLBACK").await.unwrap();
        let table = &self.table;
        db.number(&format!(
            "SELECT (SELECT count(*) FROM {table}) + (SELECT count(*) FROM free_{table})"
        ))
        .await
    }
}

#[tokio::test]
async fn write_then_seal() {
    let db = Db::new().await;
    for mut case in Case::all(&db).await {
        assert_eq!(case.a("BEGIN!; ENTER; WRITE; CHECK; COMMIT").await, Ok(()));
        assert_eq!(case.b("SEAL").await, Ok(()));
        assert_eq!(case.written(&db).await, 1);
    }
}

#[tokio::test]
async fn seal_then_write() {
    let db = Db::new().await;
    for mut case in Case::all(&db).await {
        assert_eq!(case.b("SEAL").await, Ok(()));
        // Recorded, not raised: the BEGIN message succeeds.
        assert_eq!(case.a("BEGIN!; ENTER").await, Ok(()));
        assert_eq!(case.a("WRITE").await, Err("ZF001".to_owned()));
        assert_eq!(case.a("COMMIT").await, Ok(()));
        assert_eq!(case.a("BEGIN!; FREE").await, Ok(()));
        assert_eq!(case.a("CHECK").await, Err("ZF001".to_owned()));
        assert_eq!(case.written(&db).await, 0);
    }
}

#[tokio::test]
async fn snapshot_then_seal_then_write() {
    let db = Db::new().await;
    for mut case in Case::all(&db).await {
        assert_eq!(case.a("BEGIN!; SELECT 1").await, Ok(()));
        assert_eq!(case.b("SEAL").await, Ok(()));
        let expected = case.stale_behind_snapshot();
        assert_eq!(case.a("ENTER; WRITE").await, expected, "{}", case.level);
        assert_eq!(case.written(&db).await, 0);
    }
}

#[tokio::test]
async fn write_unprotected_then_seal_then_check() {
    let db = Db::new().await;
    for mut case in Case::all(&db).await {
        assert_eq!(case.a("BEGIN!; FREE").await, Ok(()));
        assert_eq!(case.b("SEAL").await, Ok(()));
        let expected = case.stale_behind_snapshot();
        assert_eq!(case.a("CHECK").await, expected, "{}", case.level);
        assert_eq!(case.written(&db).await, 0);
    }
}

/// The seal must not return before the writer that was admitted has ended.
#[tokio::test]
async fn seal_waits_for_every_shape_of_running_writer() {
    let db = Db::new().await;
    for shape in [
        ["BEGIN!; ENTER; WRITE", "COMMIT"],
        ["BEGIN!; ENTER", "WRITE; COMMIT"],
        ["BEGIN!; CHECK", "WRITE; COMMIT"],
        [
            "BEGIN!; ENTER; SAVEPOINT s; WRITE; ROLLBACK TO s",
            "WRITE; CHECK; COMMIT",
        ],
        ["BEGIN!; SAVEPOINT s; ENTER; RELEASE s", "WRITE; COMMIT"],
        ["BEGIN!; SELECT 1; FREE; CHECK", "WRITE; COMMIT"],
    ] {
        for mut case in Case::all(&db).await {
            assert_eq!(case.a(shape[0]).await, Ok(()), "{shape:?}");
            let (mut seal, text) = (JoinSet::new(), case.fill("SEAL"));
            let mut b = db.connect().await;
            seal.spawn(async move { run(&mut b, &text).await });
            db.waiting(1).await;
            assert!(seal.try_join_next().is_none());
            assert_eq!(case.a(shape[1]).await, Ok(()), "{shape:?} {}", case.level);
            assert_eq!(seal.join_next().await.unwrap().unwrap(), Ok(()));
            assert_eq!(
                case.written(&db).await - i64::from(shape[0].contains("FREE")),
                1
            );
            db.run(&format!("DROP TABLE {0}, free_{0}", case.table))
                .await;
        }
        db.run("DROP SCHEMA palisade CASCADE").await;
        db.guard.install(&db.pool).await.unwrap();
    }
}

#[tokio::test]
async fn writer_behind_an_open_seal() {
    let db = Db::new().await;
    for mut case in Case::all(&db).await {
        assert_eq!(case.b("BEGIN; SEAL").await, Ok(()));
        let (mut writer, text) = (JoinSet::new(), case.fill("BEGIN!; ENTER; WRITE; COMMIT"));
        let mut a = db.connect().await;
        writer.spawn(async move { run(&mut a, &text).await });
        db.waiting(1).await;
        assert_eq!(case.b("COMMIT").await, Ok(()));
        let expected = case.stale_behind_snapshot();
        assert_eq!(
            writer.join_next().await.unwrap().unwrap(),
            expected,
            "{}",
            case.level
        );
        assert_eq!(case.written(&db).await, 0);
    }
}

#[tokio::test]
async fn writer_behind_a_seal_that_rolls_back() {
    let db = Db::new().await;
    for mut case in Case::all(&db).await {
        assert_eq!(case.b("BEGIN; SEAL").await, Ok(()));
        let (mut writer, text) = (JoinSet::new(), case.fill("BEGIN!; ENTER; WRITE; COMMIT"));
        let mut a = db.connect().await;
        writer.spawn(async move { run(&mut a, &text).await });
        db.waiting(1).await;
        assert_eq!(case.b("ROLLBACK").await, Ok(()));
        assert_eq!(writer.join_next().await.unwrap().unwrap(), Ok(()));
        assert_eq!(case.written(&db).await, 1);
    }
}

/// ROLLBACK TO gives the lock back; the entry has to go with it.
#[tokio::test]
async fn an_entry_ends_with_its_savepoint() {
    let db = Db::new().await;
    for mut case in Case::all(&db).await {
        assert_eq!(
            case.a("BEGIN!; SAVEPOINT s; ENTER; WRITE; ROLLBACK TO s")
                .await,
            Ok(())
        );
        assert_eq!(case.b("SEAL").await, Ok(()), "no lock is left");
        assert_eq!(case.a("SAVEPOINT t; WRITE").await, Err("ZF003".to_owned()));
        assert_eq!(case.a("ROLLBACK TO t").await, Ok(()));
        let expected = case.stale_behind_snapshot();
        assert_eq!(case.a("ENTER; WRITE").await, expected, "{}", case.level);
        assert_eq!(case.written(&db).await, 0);
    }
}

#[tokio::test]
async fn an_entry_ends_with_an_exception_block() {
    let db = Db::new().await;
    for mut case in Case::all(&db).await {
        let enter = case.fill("ENTER").replace("SELECT", "PERFORM");
        let block = format!(
            "BEGIN!; DO $$ BEGIN {enter}; RAISE 'out'; EXCEPTION WHEN raise_exception THEN END $$"
        );
        assert_eq!(case.a(&block).await, Ok(()));
        assert_eq!(case.b("SEAL").await, Ok(()), "no lock is left");
        assert_eq!(case.a("WRITE").await, Err("ZF003".to_owned()));
        assert_eq!(case.written(&db).await, 0);
    }
}

/// In a CTE of the write, and in a query inside its condition.
#[tokio::test]
async fn check_inside_the_statement_of_the_write() {
    let db = Db::new().await;
    for write in [
        "WITH c AS MATERIALIZED (CHECK AS ok) INSERT INTO FREE_TABLE SELECT 10 FROM c WHERE ok > 0",
        "INSERT INTO FREE_TABLE SELECT 10 WHERE (CHECK) IS NOT NULL",
        "UPDATE FREE_TABLE SET token = 10 WHERE token = 10 AND (CHECK) IS NOT NULL",
    ] {
        for mut case in Case::all(&db).await {
            let free = format!("free_{}", case.table);
            db.run(&format!("INSERT INTO {free} VALUES (0), (10)"))
                .await;
            let write = write.replace("FREE_TABLE", &free);
            assert_eq!(case.a(&format!("BEGIN!; {write}; COMMIT")).await, Ok(()));
            let (mut a, mut seal) = (db.connect().await, JoinSet::new());
            let (open, text) = (case.fill(&format!("BEGIN!; {write}")), case.fill("SEAL"));
            assert_eq!(run(&mut a, &open).await, Ok(()));
            let mut b = db.connect().await;
            seal.spawn(async move { run(&mut b, &text).await });
            db.waiting(1).await;
            assert!(seal.try_join_next().is_none(), "{write}");
            assert_eq!(
                case.a("BEGIN!; SELECT count(*) FROM pg_class").await,
                Ok(())
            );
            assert_eq!(run(&mut a, "ROLLBACK").await, Ok(()));
            assert_eq!(seal.join_next().await.unwrap().unwrap(), Ok(()));
            let expected = case.stale_behind_snapshot();
            assert_eq!(case.a(&write).await, expected, "{write} {}", case.level);
            let left = case.written(&db).await - 2;
            assert_eq!(left, i64::from(write.contains("INSERT")), "{write}");
            db.run(&format!("DROP TABLE {0}, free_{0}", case.table))
                .await;
        }
        db.run("DROP SCHEMA palisade CASCADE").await;
        db.guard.install(&db.pool).await.unwrap();
    }
}

#[tokio::test]
async fn a_prepared_writer_holds_the_seal() {
    let db = Db::new().await;
    for (index, mut case) in Case::all(&db).await.into_iter().enumerate() {
        let gid = format!("{}_{index}", db.name);
        assert_eq!(
            case.a(&format!(
                "BEGIN!; ENTER; WRITE; CHECK; PREPARE TRANSACTION '{gid}'"
            ))
            .await,
            Ok(())
        );
        let (mut seal, text) = (JoinSet::new(), case.fill("SEAL"));
        let mut b = db.connect().await;
        seal.spawn(async move { run(&mut b, &text).await });
        db.waiting(1).await;
        db.run(&format!("COMMIT PREPARED '{gid}'")).await;
        assert_eq!(seal.join_next().await.unwrap().unwrap(), Ok(()));
        assert_eq!(case.written(&db).await, 1);
    }
}
