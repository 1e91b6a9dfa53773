use palisade_guard::GuardError;
use palisade_guard::mysql::Weakness;
use tokio::task::JoinSet;

use crate::db::{Db, UNGUARDED, grant, name, run};

#[tokio::test]
async fn installers_may_run_at_once_and_again() {
    let db = Db::empty().await;
    let mut tasks = JoinSet::new();
    for _ in 0..4 {
        let (guard, pool) = (db.guard, db.pool.clone());
        tasks.spawn(async move { guard.install(&pool).await });
    }
    for result in tasks.join_all().await {
        result.unwrap();
    }
    db.seal(&grant("orders", 10)).await;
    // One that was cut short before its record: the next does all of it again, and loses nothing.
    db.run("DELETE FROM palisade_migration; DROP PROCEDURE palisade_leave")
        .await;
    db.guard.install(&db.pool).await.unwrap();
    db.guard.install(&db.pool).await.unwrap();
    let sealed = db.seal(&grant("orders", 11)).await;
    db.guard
        .begin(&db.pool, &sealed)
        .await
        .unwrap()
        .commit()
        .await
        .unwrap();
    let found = db.guard.weaknesses(&db.pool).await.unwrap();
    assert_eq!(
        found,
        [Weakness::LogNotFlushed],
        "the tests' server is a quick one"
    );
    db.run("INSERT INTO palisade_migration (version) VALUES (99)")
        .await;
    let newer = db.guard.install(&db.pool).await;
    assert!(
        matches!(newer, Err(GuardError::Newer { found: 99, .. })),
        "{newer:?}"
    );
}

#[tokio::test]
async fn tables_are_protected_and_freed() {
    let db = Db::empty().await;
    db.guard.install(&db.pool).await.unwrap();
    let odd = "o`r'd\\er\"s";
    db.run(
        "CREATE TABLE `o``r'd\\er\"s` (id INT) ENGINE = InnoDB; \
         CREATE TABLE loose (id INT) ENGINE = MyISAM; CREATE VIEW seen AS SELECT 1",
    )
    .await;
    for refused in ["loose", "seen", "none", "palisade_fence", ""] {
        let result = db.guard.protect(&db.pool, refused, &name("orders")).await;
        assert!(
            matches!(result, Err(GuardError::Misuse(_))),
            "{refused}: {result:?}"
        );
    }
    for _ in 0..2 {
        db.guard
            .protect(&db.pool, odd, &name("orders"))
            .await
            .unwrap();
    }
    let triggers = "SELECT COUNT(*) FROM information_schema.triggers \
                    WHERE trigger_schema = DATABASE() AND trigger_name LIKE 'palisade\\_guard%'";
    assert_eq!(db.number(triggers).await, 3);
    let other = db.guard.protect(&db.pool, odd, &name("orders2")).await;
    assert!(matches!(other, Err(GuardError::Misuse(_))), "{other:?}");
    let error = sqlx::query("INSERT INTO `o``r'd\\er\"s` VALUES (1)")
        .execute(&db.pool)
        .await
        .unwrap_err();
    let error = GuardError::from(error);
    assert!(
        matches!(&error, GuardError::Unguarded { table: Some(table), .. } if table == odd),
        "{error:?}"
    );
    // Protection goes with the table, and a new one may have its name.
    db.run("RENAME TABLE `o``r'd\\er\"s` TO orders; CREATE TABLE `o``r'd\\er\"s` (id INT)")
        .await;
    db.guard
        .protect(&db.pool, odd, &name("bills"))
        .await
        .unwrap();
    let mut plain = db.connect().await;
    let write = "INSERT INTO orders VALUES (1)";
    assert_eq!(run(&mut plain, write).await, Err(UNGUARDED));
    db.guard.unprotect(&db.pool, "orders").await.unwrap();
    assert_eq!(run(&mut plain, write).await, Ok(()));
    assert_eq!(db.number(triggers).await, 3);
    db.guard.unprotect(&db.pool, odd).await.unwrap();
    db.guard.unprotect(&db.pool, odd).await.unwrap();
    assert_eq!(db.number(triggers).await, 0);
}
