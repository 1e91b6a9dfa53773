use palisade_guard::GuardError;

use crate::db::{Db, run};

#[tokio::test]
async fn installers_may_run_at_once_and_again() {
    let db = Db::empty().await;
    let (a, b) = tokio::join!(db.guard.install(&db.pool), db.guard.install(&db.pool));
    for result in [a, b, db.guard.install(&db.pool).await] {
        result.unwrap();
    }
    run(
        &mut db.connect().await,
        "INSERT INTO palisade_migration (version) VALUES (99)",
    )
    .await
    .unwrap();
    let error = db.guard.install(&db.pool).await.unwrap_err();
    assert!(
        matches!(error, GuardError::Newer { found: 99, .. }),
        "{error:?}"
    );
}
