use palisade_token::Grant;
use sqlx::{PgPool, Postgres};
use sqlx_core::transaction::TransactionManager as _;
use tracing::Instrument as _;

use super::lent::Lent;
use super::{Guard, GuardedTx, MAX_RESOURCES, Sealed, errors, sql};
use crate::metrics::{self, Operation, StoreKind, Timer};
use crate::{GuardError, sealed, spans};

pub(super) type Manager = <Postgres as sqlx::Database>::TransactionManager;

impl Guard {
    /// Begins a guarded transaction. The grant is checked in the same message, behind a seal that may be
    /// under way; a grant that is refused by now is not told here but at the first write to a protected
    /// table and at the commit.
    ///
    /// # Errors
    /// The refusal that killed this [`Sealed`] earlier; [`GuardError::Serialization`] above READ COMMITTED;
    /// [`GuardError::Backend`].
    pub async fn begin(&self, pool: &PgPool, sealed: &Sealed) -> Result<GuardedTx, GuardError> {
        self.begin_all(pool, &[sealed]).await
    }

    /// Begins a transaction that is guarded for several resources: 1 to [`MAX_RESOURCES`], each once.
    ///
    /// ```no_run
    /// # use palisade_guard::GuardError;
    /// # use palisade_guard::postgres::{Guard, Sealed};
    /// # async fn example(
    /// #     pool: &sqlx::PgPool,
    /// #     orders: &Sealed,
    /// #     stock: &Sealed,
    /// # ) -> Result<(), GuardError> {
    /// let mut tx = Guard::new().begin_all(pool, &[orders, stock]).await?;
    /// sqlx::query("UPDATE stock SET free = free - 1").execute(&mut *tx).await?;
    /// sqlx::query("UPDATE orders SET paid = true").execute(&mut *tx).await?;
    /// tx.commit().await?; // both grants, or nothing
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Guard::begin`], and [`GuardError::Misuse`] for another number or a resource named twice.
    pub async fn begin_all(
        &self,
        pool: &PgPool,
        sealed: &[&Sealed],
    ) -> Result<GuardedTx, GuardError> {
        let sealed = sealed::distinct(sealed, MAX_RESOURCES)?;
        sealed.iter().try_for_each(Sealed::alive)?;
        let grants: Vec<&Grant> = sealed.iter().map(Sealed::grant).collect();
        let text = sql::begin(self.isolation, &grants);
        let span = spans::begin(StoreKind::Postgres, grants.first().copied(), grants.len());
        send_begin(pool, text, sealed).instrument(span).await
    }
}

async fn send_begin(
    pool: &PgPool,
    text: sqlx::SqlStr,
    sealed: Vec<Sealed>,
) -> Result<GuardedTx, GuardError> {
    let mut lent = Lent::from(pool).await?;
    let timer = Timer::start();
    // Through sqlx's own manager, so that `begin` on the connection makes a savepoint.
    match Manager::begin(lent.connection(), Some(text)).await {
        Ok(()) => {
            metrics::store_answered(StoreKind::Postgres, Operation::Begin, timer);
            Ok(GuardedTx::new(lent.hand_over(), sealed))
        }
        Err(error) => {
            // sqlx leaves a transaction open here that failed after BEGIN.
            lent.recover(&error).await;
            Err(errors::plain(error))
        }
    }
}
