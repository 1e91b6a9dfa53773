use palisade_token::Grant;
use sqlx::{MySql, MySqlPool};
use sqlx_core::transaction::TransactionManager as _;
use tracing::Instrument as _;

use super::lent::Lent;
use super::{Guard, GuardedTx, Isolation, MAX_RESOURCES, Sealed, errors, sql};
use crate::metrics::{self, Operation, StoreKind, Timer};
use crate::{GuardError, sealed, spans};

pub(super) type Manager = <MySql as sqlx::Database>::TransactionManager;

impl Guard {
    /// Begins a guarded transaction and checks the grant, in one message, behind a seal that may be under
    /// way.
    ///
    /// # Errors
    /// [`GuardError::Stale`], [`GuardError::StoreWentBackwards`], [`GuardError::Collision`], which kill every
    /// clone of the [`Sealed`]; [`GuardError::Serialization`]: a seal was in the way for longer than
    /// `innodb_lock_wait_timeout`; [`GuardError::Backend`].
    pub async fn begin(&self, pool: &MySqlPool, sealed: &Sealed) -> Result<GuardedTx, GuardError> {
        self.begin_all(pool, &[sealed]).await
    }

    /// Begins a transaction that is guarded for several resources: 1 to [`MAX_RESOURCES`], each once.
    ///
    /// ```no_run
    /// # use palisade_guard::GuardError;
    /// # use palisade_guard::mysql::{Guard, Sealed};
    /// # async fn example(
    /// #     pool: &sqlx::MySqlPool,
    /// #     orders: &Sealed,
    /// #     stock: &Sealed,
    /// # ) -> Result<(), GuardError> {
    /// let mut tx = Guard::new().begin_all(pool, &[orders, stock]).await?;
    /// sqlx::query("UPDATE stock SET free = free - 1").execute(&mut *tx).await?;
    /// sqlx::query("UPDATE orders SET paid = 1").execute(&mut *tx).await?;
    /// tx.commit().await?; // both grants, or nothing
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Guard::begin`], and [`GuardError::Misuse`] for another number or a resource named twice.
    pub async fn begin_all(
        &self,
        pool: &MySqlPool,
        sealed: &[&Sealed],
    ) -> Result<GuardedTx, GuardError> {
        let sealed = sealed::distinct(sealed, MAX_RESOURCES)?;
        sealed.iter().try_for_each(Sealed::alive)?;
        let first = sealed.first().map(Sealed::grant);
        let span = spans::begin(StoreKind::Mysql, first, sealed.len());
        let begun = enter(self.isolation, pool, sealed).instrument(span).await;
        if let Err(error) = &begun {
            metrics::refused(StoreKind::Mysql, error);
        }
        begun
    }
}

async fn enter(
    isolation: Isolation,
    pool: &MySqlPool,
    sealed: Vec<Sealed>,
) -> Result<GuardedTx, GuardError> {
    let grants: Vec<&Grant> = sealed.iter().map(Sealed::grant).collect();
    let text = sql::begin(isolation, &grants);
    let mut lent = Lent::from(pool).await?;
    let timer = Timer::start();
    // Through sqlx's own manager, so that `begin` on the connection makes a savepoint.
    let Err(error) = Manager::begin(lent.connection(), Some(text)).await else {
        metrics::store_answered(StoreKind::Mysql, Operation::Begin, timer);
        return Ok(GuardedTx::new(lent.hand_over(), sealed));
    };
    if !errors::is_refused(&error) {
        return Err(errors::plain(error));
    }
    let error = lent.explain(error).await;
    // sqlx leaves a transaction open here that failed after START TRANSACTION.
    lent.give_back_after("ROLLBACK").await;
    Err(sealed
        .iter()
        .fold(error, |error, sealed| sealed.learn(error)))
}
