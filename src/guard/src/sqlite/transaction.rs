use std::fmt;
use std::ops::{Deref, DerefMut};

use palisade_token::Grant;
use sqlx::{SqliteConnection, SqlitePool};
use tracing::Instrument as _;

use super::immediate::Immediate;
use super::{Guard, MAX_RESOURCES, Sealed, errors, seal};
use crate::decide;
use crate::metrics::{self, Operation, StoreKind, Timer, Unended};
use crate::{GuardError, sealed, spans};

/// A transaction whose writes carry a sealed grant, from [`Guard::begin`].
///
/// It dereferences to sqlx's [`SqliteConnection`]: `&mut *tx` is an executor, and `tx.begin()` makes a
/// savepoint. Do not send BEGIN, COMMIT or ROLLBACK through it; [`GuardedTx::commit`] reports that.
///
/// Dropped without a commit it is rolled back.
///
/// ```
/// use palisade_guard::GuardError;
/// use palisade_guard::sqlite::Guard;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let file = folder.path().join("app.db");
/// # let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file);
/// # let pool = sqlx::SqlitePool::connect_with(options.create_if_missing(true)).await?;
/// # let grant: palisade_token::Grant = "orders#42#000102030405060708090a0b0c0d0e0f".parse()?;
/// # let later: palisade_token::Grant = "orders#43#0f0e0d0c0b0a09080706050403020100".parse()?;
/// # let table = "CREATE TABLE orders (id INTEGER PRIMARY KEY, paid INTEGER)";
/// # sqlx::raw_sql(table).execute(&pool).await?;
/// # let guard = Guard::new();
/// # guard.install(&pool).await?;
/// # guard.protect(&pool, "orders", &grant.resource).await?;
/// # let sealed = guard.seal(&pool, &grant).await?;
/// let mut tx = guard.begin(&pool, &sealed).await?;
/// let order = sqlx::query("INSERT INTO orders (id, paid) VALUES (7, 1)");
/// if let Err(error) = order.execute(&mut *tx).await {
///     return Err(tx.refusal(error).into()); // says whether to step down or to run it again
/// }
/// tx.commit().await?;
///
/// guard.seal(&pool, &later).await?; // another holder takes over
/// let refused = guard.begin(&pool, &sealed).await;
/// assert!(matches!(refused, Err(GuardError::Stale { .. })));
/// # Ok(()) }
/// ```
#[must_use = "a transaction that is not committed is rolled back"]
pub struct GuardedTx {
    tx: Immediate,
    sealed: Vec<Sealed>,
    unended: Unended,
}

/// The commit of a guarded transaction: it was admitted, and it happened.
///
/// As an answer it says that nothing is left to be done:
///
/// ```
/// use palisade_guard::GuardError;
/// use palisade_guard::sqlite::{Committed, Guard, Sealed};
/// use sqlx::SqlitePool;
///
/// async fn pay(pool: &SqlitePool, sealed: &Sealed, order: i64) -> Result<Committed, GuardError> {
///     let mut tx = Guard::new().begin(pool, sealed).await?;
///     sqlx::query("UPDATE orders SET paid = 1 WHERE id = ?").bind(order).execute(&mut *tx).await?;
///     tx.commit().await
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Committed {}

impl Guard {
    /// Begins a guarded transaction and checks the grant. It holds SQLite's one write lock until it ends.
    ///
    /// # Errors
    /// [`GuardError::Stale`], [`GuardError::StoreWentBackwards`], [`GuardError::Collision`], which kill every
    /// clone of the [`Sealed`]; [`GuardError::Serialization`]: another writer was in the way for longer than
    /// the connection's `busy_timeout`; [`GuardError::Backend`].
    pub async fn begin(&self, pool: &SqlitePool, sealed: &Sealed) -> Result<GuardedTx, GuardError> {
        self.begin_all(pool, &[sealed]).await
    }

    /// Begins a transaction that is guarded for several resources: 1 to [`MAX_RESOURCES`], each once.
    ///
    /// ```
    /// # use palisade_guard::sqlite::Guard;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let file = folder.path().join("app.db");
    /// # let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file);
    /// # let pool = sqlx::SqlitePool::connect_with(options.create_if_missing(true)).await?;
    /// # let grant: palisade_token::Grant = "orders#42#000102030405060708090a0b0c0d0e0f".parse()?;
    /// # let stock: palisade_token::Grant = "stock#7#000102030405060708090a0b0c0d0e0f".parse()?;
    /// # let guard = Guard::new();
    /// # guard.install(&pool).await?;
    /// let (orders, stock) = (guard.seal(&pool, &grant).await?, guard.seal(&pool, &stock).await?);
    /// let tx = guard.begin_all(&pool, &[&stock, &orders]).await?;
    /// assert_eq!(tx.grants().next(), Some(&grant)); // ordered by resource
    /// tx.rollback().await;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Guard::begin`], and [`GuardError::Misuse`] for another number or a resource named twice.
    pub async fn begin_all(
        &self,
        pool: &SqlitePool,
        sealed: &[&Sealed],
    ) -> Result<GuardedTx, GuardError> {
        let sealed = sealed::distinct(sealed, MAX_RESOURCES)?;
        sealed.iter().try_for_each(Sealed::alive)?;
        let first = sealed.first().map(Sealed::grant);
        let span = spans::begin(StoreKind::Sqlite, first, sealed.len());
        let begun = enter(pool, sealed).instrument(span).await;
        if let Err(error) = &begun {
            metrics::refused(StoreKind::Sqlite, error);
        }
        begun
    }
}

/// Enters a resource and reads its fence, in one message: each costs a change of threads. The entry counts
/// once the fence has agreed; until then nothing else is sent.
const NEXT: &str = "INSERT INTO main.palisade_entry (resource, token, holder) VALUES (?, ?, ?); \
     SELECT token, holder, sealed_at FROM main.palisade_fence WHERE resource = ?";

/// As [`NEXT`]. What others have forgotten there would admit this transaction to their tables.
const FIRST: &str = "DELETE FROM main.palisade_entry; \
     INSERT INTO main.palisade_entry (resource, token, holder) VALUES (?, ?, ?); \
     SELECT token, holder, sealed_at FROM main.palisade_fence WHERE resource = ?";

async fn enter(pool: &SqlitePool, sealed: Vec<Sealed>) -> Result<GuardedTx, GuardError> {
    let timer = Timer::start();
    let mut tx = Immediate::begin(pool).await?;
    for (position, entry) in sealed.iter().enumerate() {
        let grant = entry.grant();
        let text = if position == 0 { FIRST } else { NEXT };
        let rows: Vec<(i64, String, i64)> = sqlx::query_as(text)
            .bind(grant.resource.as_str())
            .bind(grant.token.as_i64())
            .bind(grant.holder.to_string())
            .bind(grant.resource.as_str())
            .fetch_all(&mut *tx)
            .await
            .map_err(errors::plain)?;
        let fence = seal::answer(&grant.resource, rows)?.map(seal::mark);
        let admission = decide::admit(grant.into(), fence);
        if let Some(refusal) = decide::refusal(grant, admission) {
            drop(tx.rollback().await);
            return Err(entry.learn(refusal));
        }
    }
    metrics::store_answered(StoreKind::Sqlite, Operation::Begin, timer);
    Ok(GuardedTx {
        tx,
        sealed,
        unended: Unended::new(StoreKind::Sqlite),
    })
}

/// Takes the one entry of a transaction if it is its own and the fence's, fails if it was not, or if there is
/// another, and commits. `abs` of the least integer is an error.
const COMMIT: &str = "DELETE FROM main.palisade_entry \
     WHERE resource = ? AND token = ? AND holder = ? AND EXISTS (SELECT 1 FROM main.palisade_fence AS f \
     WHERE f.resource = palisade_entry.resource AND f.token = palisade_entry.token \
     AND f.holder = palisade_entry.holder); \
     SELECT 1 WHERE abs(-9223372036854775807 - (changes() <> 1 \
     OR EXISTS (SELECT 1 FROM main.palisade_entry))) = 0; \
     COMMIT; BEGIN";

impl GuardedTx {
    /// The grants that this transaction carries, ordered by resource.
    pub fn grants(&self) -> impl Iterator<Item = &Grant> {
        self.sealed.iter().map(Sealed::grant)
    }

    /// Says what the error of a query in this transaction means.
    #[must_use]
    pub fn refusal(&self, error: sqlx::Error) -> GuardError {
        let error = errors::plain(error);
        metrics::refused(StoreKind::Sqlite, &error);
        error
    }

    /// Checks that this is still the transaction that was admitted, and commits. `Ok` means committed, and
    /// nothing else does.
    ///
    /// # Errors
    /// [`GuardError::CommitUnknown`] if the disk failed: it may have happened. After every other error
    /// nothing was committed: [`GuardError::RolledBack`] when SQLite refused, or had ended the transaction
    /// after an earlier error; [`GuardError::Unguarded`] when it was ended by hand before.
    pub async fn commit(mut self) -> Result<Committed, GuardError> {
        self.unended.end();
        let first = self.sealed.first().map(Sealed::grant);
        let span = spans::commit(StoreKind::Sqlite, first, self.sealed.len());
        let timer = Timer::start();
        let committed = self.check_and_commit().instrument(span).await;
        metrics::store_answered(StoreKind::Sqlite, Operation::Commit, timer);
        metrics::settled(StoreKind::Sqlite, &committed);
        committed
    }

    async fn check_and_commit(mut self) -> Result<Committed, GuardError> {
        if let Some(refused) = self.sealed.iter().find_map(|sealed| sealed.alive().err()) {
            drop(self.tx.rollback().await);
            return Err(refused);
        }
        if let ([only], true) = (self.sealed.as_slice(), self.tx.is_outermost()) {
            let grant = only.grant();
            let commit = sqlx::query(COMMIT)
                .bind(grant.resource.as_str())
                .bind(grant.token.as_i64())
                .bind(grant.holder.to_string());
            return self.tx.commit_by(commit, 2).await.map(|()| Committed {});
        }
        match take_entries(&mut self.tx, &self.sealed).await {
            Err(error) => {
                drop(self.tx.rollback().await);
                Err(GuardError::RolledBack(Some(Box::new(error))))
            }
            Ok(false) => {
                drop(self.tx.rollback().await);
                Err(GuardError::RolledBack(None))
            }
            Ok(true) => {
                drop(self.tx.commit().await?);
                Ok(Committed {})
            }
        }
    }

    /// Rolls back. Not needed before a drop, but it says when it is done.
    pub async fn rollback(mut self) {
        self.unended.end();
        drop(self.tx.rollback().await);
    }
}

/// Deletes the entries; says whether they are those of this transaction, and agree with the fence.
/// Without foreign keys they outlive a COMMIT that was sent by hand, and others may seal after it.
async fn take_entries(tx: &mut Immediate, sealed: &[Sealed]) -> Result<bool, sqlx::Error> {
    let agreeing: Vec<(String, i64, String)> = sqlx::query_as(
        "SELECT e.resource, e.token, e.holder FROM main.palisade_entry AS e \
             JOIN main.palisade_fence AS f \
             ON f.resource = e.resource AND f.token = e.token AND f.holder = e.holder \
             ORDER BY e.resource; \
             DELETE FROM main.palisade_entry",
    )
    .fetch_all(&mut **tx)
    .await?;
    let own = sealed.iter().map(Sealed::grant).map(|grant| {
        (
            grant.resource.as_str().to_owned(),
            grant.token.as_i64(),
            grant.holder.to_string(),
        )
    });
    Ok(own.eq(agreeing))
}

impl Deref for GuardedTx {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.tx
    }
}

impl DerefMut for GuardedTx {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.tx
    }
}

impl fmt::Debug for GuardedTx {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("GuardedTx")
            .field("sealed", &self.sealed)
            .finish_non_exhaustive()
    }
}
