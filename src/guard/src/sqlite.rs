//! The guard for SQLite, in the database file that holds the data.
//!
//! SQLite has one writer at a time, so a guarded transaction begins with BEGIN IMMEDIATE: what was
//! admitted there stays so until its end, and a seal waits for it like any other writer. A
//! transaction leaves an *entry* for its resource while it runs; triggers on the protected tables ask for
//! one that agrees with the fence, so that a connection which forgot the guard is refused.
//!
//! ```no_run
//! # async fn lead(pool: &sqlx::SqlitePool, grant: &palisade_token::Grant) -> Result<(), palisade_guard::GuardError> {
//! use palisade_guard::sqlite::Guard;
//!
//! let guard = Guard::new();
//! guard.install(pool).await?;
//! guard.protect(pool, "orders", &grant.resource).await?;
//!
//! let sealed = guard.seal(pool, grant).await?; // before the first read
//! let mut tx = guard.begin(pool, &sealed).await?;
//! sqlx::query("UPDATE orders SET paid = 1 WHERE id = ?").bind(7).execute(&mut *tx).await?;
//! tx.commit().await?;
//! # Ok(()) }
//! ```
//!
//! Waiting for another writer is bounded by the `busy_timeout` of the pool's connections (5 s in sqlx).
//!
//! # From any language
//!
//! ```sql
//! BEGIN IMMEDIATE;
//! INSERT INTO main.palisade_entry (resource, token, holder) VALUES ('orders', 42, '00…0f');
//! UPDATE orders SET paid = 1 WHERE id = 7;
//! DELETE FROM main.palisade_entry;
//! COMMIT;
//! ```
//!
//! Run `PRAGMA foreign_keys = ON` first: then an entry that is left behind fails the COMMIT. Without it, one
//! would let other connections write, until the next seal. Seal with [`Guard::seal`], or at
//! `PRAGMA synchronous = FULL`: at NORMAL in WAL mode a loss of power may take a seal back.
//!
//! # What is not covered
//!
//! A statement that changes no row passes, having written nothing. DROP TABLE, ALTER TABLE, dropping the
//! triggers, `writable_schema`, virtual tables, and replacing the file go round any trigger. A file that is
//! copied back from a backup brings its old fence along: seal, and read again. INSERT OR REPLACE is covered,
//! whatever `recursive_triggers` says.

mod errors;
mod immediate;
mod install;
mod protect;
mod seal;
mod transaction;

pub(crate) use errors::known;
pub use install::script;
pub use transaction::{Committed, GuardedTx};

/// A grant that was sealed in SQLite; only [`Guard::seal`] makes one.
pub type Sealed = crate::Sealed<sqlx::Sqlite>;

/// Most resources of one transaction ([`Guard::begin_all`]): each is a row that is written and deleted.
pub const MAX_RESOURCES: usize = 10_000;

/// Seals resources in a SQLite database and begins guarded transactions. It holds nothing.
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
/// # let table = "CREATE TABLE orders (id INTEGER PRIMARY KEY, paid INTEGER)";
/// # sqlx::raw_sql(table).execute(&pool).await?;
///
/// let guard = Guard::new();
/// guard.install(&pool).await?;
/// guard.protect(&pool, "orders", &grant.resource).await?;
///
/// let order = "INSERT INTO orders (id, paid) VALUES (7, 1)";
/// let past_the_guard = sqlx::query(order).execute(&pool).await.map_err(GuardError::from);
/// assert!(matches!(past_the_guard, Err(GuardError::Unguarded { .. })));
///
/// let sealed = guard.seal(&pool, &grant).await?;
/// let mut tx = guard.begin(&pool, &sealed).await?;
/// sqlx::query(order).execute(&mut *tx).await?;
/// tx.commit().await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Guard {}

impl Guard {
    /// A guard.
    #[must_use]
    pub const fn new() -> Self {
        Self {}
    }
}
