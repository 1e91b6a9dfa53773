//! Commit and rollback take the transaction, and there is one of it.

use palisade_guard::{postgres, sqlite};

pub async fn twice(tx: postgres::GuardedTx) {
    let _committed = tx.commit().await;
    let _again = tx.commit().await;
}

pub async fn after_rollback(mut tx: sqlite::GuardedTx) {
    tx.rollback().await;
    let _connection = &mut *tx;
}

pub async fn while_its_connection_is_borrowed(mut tx: postgres::GuardedTx) {
    let connection = &mut *tx;
    let _committed = tx.commit().await;
    drop(connection);
}

pub async fn of_another(tx: &postgres::GuardedTx) {
    let _committed = tx.commit().await;
}
