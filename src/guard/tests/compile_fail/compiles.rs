//! What the other files misuse, used as it should be.

use palisade_guard::{postgres, sqlite};

pub async fn write(postgres: &postgres::Sealed, sqlite: &sqlite::Sealed) {
    let grant = postgres.grant();
    let _sealed: Result<postgres::Sealed, _> = postgres::Guard::new().seal(panic!(), grant).await;
    let tx = postgres::Guard::new().begin_all(panic!(), &[postgres]).await;
    let _committed = tx.unwrap().commit().await;
    let mut tx = sqlite::Guard::new().begin(panic!(), sqlite).await.unwrap();
    let _connection = &mut *tx;
    tx.rollback().await;
}
