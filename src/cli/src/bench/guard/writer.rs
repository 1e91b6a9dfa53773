//! The transactions that are compared, on PostgreSQL.

use palisade_guard::postgres::{Guard, Sealed};
use sqlx::{AssertSqlSafe, PgConnection, PgPool};

use super::load::Writer;
use crate::failure::Failure;

/// Rows of one writer: enough that no update meets the page of the one before.
pub(super) const ROWS: u32 = 64;

/// What fences the writes, and in which table they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fencing {
    /// None.
    Unguarded,
    /// This guard: entered at BEGIN, asked for by a trigger, checked with COMMIT.
    Guarded,
    /// A fence row that is read FOR SHARE, in a statement of its own.
    Share,
    /// A fence row that is upserted, in a statement of its own.
    Upsert,
}

/// A shape of write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Shape {
    /// A transaction of so many updates.
    Transaction(u32),
    /// A statement on its own; fenced by `palisade.check` inside it.
    Autocommit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Variant {
    pub(super) shape: Shape,
    pub(super) fencing: Fencing,
}

impl Variant {
    pub(super) const ALL: [Self; 10] = {
        const fn tx(statements: u32, fencing: Fencing) -> Variant {
            Variant {
                shape: Shape::Transaction(statements),
                fencing,
            }
        }
        const fn auto(fencing: Fencing) -> Variant {
            Variant {
                shape: Shape::Autocommit,
                fencing,
            }
        }
        [
            tx(4, Fencing::Unguarded),
            tx(4, Fencing::Guarded),
            tx(4, Fencing::Share),
            tx(4, Fencing::Upsert),
            tx(1, Fencing::Unguarded),
            tx(1, Fencing::Guarded),
            tx(1, Fencing::Share),
            tx(1, Fencing::Upsert),
            auto(Fencing::Unguarded),
            auto(Fencing::Guarded),
        ]
    };

    pub(super) const fn name(self) -> &'static str {
        match (self.shape, self.fencing) {
            (Shape::Transaction(1), fencing) => fencing.name(),
            (Shape::Transaction(_), Fencing::Unguarded) => "unguarded-4",
            (Shape::Transaction(_), Fencing::Guarded) => "guarded-4",
            (Shape::Transaction(_), Fencing::Share) => "share-4",
            (Shape::Transaction(_), Fencing::Upsert) => "upsert-4",
            (Shape::Autocommit, Fencing::Unguarded) => "autocommit",
            (Shape::Autocommit, _) => "autocommit-checked",
        }
    }

    pub(super) const fn statements(self) -> u32 {
        match self.shape {
            Shape::Transaction(statements) => statements,
            Shape::Autocommit => 1,
        }
    }
}

impl Fencing {
    pub(super) const ALL: [Self; 4] = [Self::Unguarded, Self::Guarded, Self::Share, Self::Upsert];

    /// Also of the table that it writes.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Unguarded => "unguarded",
            Self::Guarded => "guarded",
            Self::Share => "share",
            Self::Upsert => "upsert",
        }
    }

    const fn update(self) -> &'static str {
        match self {
            Self::Unguarded => "UPDATE unguarded SET value = value + 1 WHERE id = $1",
            Self::Guarded => "UPDATE guarded SET value = value + 1 WHERE id = $1",
            Self::Share => "UPDATE share SET value = value + 1 WHERE id = $1",
            Self::Upsert => "UPDATE upsert SET value = value + 1 WHERE id = $1",
        }
    }
}

/// One connection's worth of load.
#[derive(Debug)]
pub(super) struct PostgresWriter {
    pub(super) pool: PgPool,
    pub(super) variant: Variant,
    pub(super) sealed: Sealed,
    /// Which of the writers: its rows are its own, so that only the fence is shared.
    pub(super) number: u32,
}

impl Writer for PostgresWriter {
    async fn write(&mut self, turn: u64) -> Result<(), Failure> {
        match (self.variant.shape, self.variant.fencing) {
            (Shape::Autocommit, Fencing::Unguarded) => self.autocommit(turn).await,
            (Shape::Autocommit, _) => self.autocommit_checked(turn).await,
            (Shape::Transaction(statements), Fencing::Guarded) => {
                let mut tx = Guard::new().begin(&self.pool, &self.sealed).await?;
                self.updates(&mut tx, turn, statements).await?;
                tx.commit().await?;
                Ok(())
            }
            (Shape::Transaction(statements), fencing) => {
                let mut tx = self.pool.begin().await?;
                match fencing {
                    Fencing::Share => self.share(&mut tx).await?,
                    Fencing::Upsert => self.upsert(&mut tx).await?,
                    Fencing::Unguarded | Fencing::Guarded => {}
                }
                self.updates(&mut tx, turn, statements).await?;
                tx.commit().await?;
                Ok(())
            }
        }
    }
}

impl PostgresWriter {
    async fn updates(
        &self,
        connection: &mut PgConnection,
        turn: u64,
        statements: u32,
    ) -> Result<(), Failure> {
        for statement in 0..statements {
            let row = turn.wrapping_mul(u64::from(statements)) + u64::from(statement);
            sqlx::query(self.variant.fencing.update())
                .bind(self.row(row))
                .execute(&mut *connection)
                .await?;
        }
        Ok(())
    }

    fn row(&self, number: u64) -> i64 {
        let own = u32::try_from(number % u64::from(ROWS)).unwrap_or_default();
        i64::from(self.number * ROWS + own)
    }

    async fn autocommit(&self, turn: u64) -> Result<(), Failure> {
        sqlx::query(Fencing::Unguarded.update())
            .bind(self.row(turn))
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    async fn autocommit_checked(&self, turn: u64) -> Result<(), Failure> {
        let grant = self.sealed.grant();
        // A check in a query of its own is made once, and before the row is written.
        let written = sqlx::query(
            "UPDATE single SET value = value + 1 \
             WHERE id = $1 AND (SELECT palisade.check($2, $3, $4)) IS NOT NULL",
        )
        .bind(self.row(turn))
        .bind(grant.resource.as_str())
        .bind(grant.token.as_i64())
        .bind(grant.holder.to_string())
        .execute(&self.pool)
        .await?;
        match written.rows_affected() {
            1 => Ok(()),
            _ => Err(Failure::other("a checked statement has written nothing")),
        }
    }

    async fn share(&self, connection: &mut PgConnection) -> Result<(), Failure> {
        let held: i64 =
            sqlx::query_scalar("SELECT token FROM share_fence WHERE resource = $1 FOR SHARE")
                .bind(self.sealed.grant().resource.as_str())
                .fetch_one(connection)
                .await?;
        // A seal of the bench may have raised it: these writers go on, so that they stay busy.
        match held >= 1 {
            true => Ok(()),
            false => Err(Failure::other("the fence row is empty")),
        }
    }

    async fn upsert(&self, connection: &mut PgConnection) -> Result<(), Failure> {
        sqlx::query(
            "INSERT INTO upsert_fence (resource, token) VALUES ($1, $2) ON CONFLICT (resource) \
             DO UPDATE SET token = greatest(upsert_fence.token, excluded.token)",
        )
        .bind(self.sealed.grant().resource.as_str())
        .bind(1_i64)
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// The tables of the bench, and rows for so many writers.
pub(super) fn tables(writers: u32) -> Vec<sqlx::SqlStr> {
    let last = writers * ROWS;
    let mut texts = vec![
        "CREATE TABLE share_fence (resource text PRIMARY KEY, token bigint NOT NULL)".to_owned(),
        "CREATE TABLE upsert_fence (resource text PRIMARY KEY, token bigint NOT NULL)".to_owned(),
    ];
    let names = Fencing::ALL.map(Fencing::name);
    for name in names.into_iter().chain(["single", "elsewhere"]) {
        // Room for new versions on the row's page; and nothing of the server's own runs in a round.
        texts.push(format!(
            "CREATE TABLE {name} (id bigint PRIMARY KEY, value bigint NOT NULL) \
             WITH (fillfactor = 50, autovacuum_enabled = off)"
        ));
        texts.push(format!(
            "INSERT INTO {name} SELECT id, 0 FROM generate_series(0, {last}) AS id"
        ));
    }
    let safe = texts.into_iter().map(AssertSqlSafe);
    safe.map(sqlx::SqlSafeStr::into_sql_str).collect()
}
