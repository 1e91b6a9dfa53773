use palisade_guard::{Class, GuardError};

use crate::db::{Db, LEVELS, grant, name, run, sql};

#[tokio::test]
async fn installers_may_run_at_once_and_again() {
    let db = Db::empty().await;
    let (a, b, c) = tokio::join!(
        db.guard.install(&db.pool),
        db.guard.install(&db.pool),
        db.guard.install(&db.pool)
    );
    for result in [a, b, c] {
        result.unwrap();
    }
    let steps = "SELECT count(*) FROM palisade.migration";
    let installed = db.number(steps).await;
    assert!(installed >= 1);
    db.guard.install(&db.pool).await.unwrap();
    assert_eq!(db.number(steps).await, installed);
    db.run("INSERT INTO palisade.migration VALUES (99)").await;
    let error = db.guard.install(&db.pool).await.unwrap_err();
    assert!(
        matches!(error, GuardError::Newer { found: 99, .. }),
        "{error:?}"
    );
    assert_eq!(error.class(), Class::Bug);
}

#[tokio::test]
async fn a_failed_install_leaves_nothing() {
    let db = Db::empty().await;
    db.run("CREATE SCHEMA palisade; CREATE TABLE palisade.fence (other int)")
        .await;
    db.guard.install(&db.pool).await.unwrap_err();
    assert_eq!(
        db.number("SELECT count(*) FROM pg_class WHERE relnamespace = 'palisade'::regnamespace")
            .await,
        1
    );
    db.run("DROP TABLE palisade.fence").await;
    db.guard.install(&db.pool).await.unwrap();
}

#[tokio::test]
async fn a_call_without_the_schema_is_an_error_of_the_store() {
    let db = Db::empty().await;
    for error in [
        db.guard
            .seal(&db.pool, &grant("orders", 1))
            .await
            .unwrap_err(),
        db.guard.fence(&db.pool, &name("orders")).await.unwrap_err(),
    ] {
        assert_eq!(error.class(), Class::Backend, "{error:?}");
    }
}

/// What a writer's role may do, and what not.
#[tokio::test]
async fn a_writer_has_no_right_on_the_fence() {
    let db = Db::with_orders().await;
    let role = format!("writer_of_{}", db.name)
        .chars()
        .take(60)
        .collect::<String>();
    db.run(&format!(
        "CREATE ROLE {role}; GRANT ALL ON orders TO {role}; GRANT CREATE ON SCHEMA public TO {role}"
    ))
    .await;
    let held = grant("orders", 10);
    let mut writer = db.connect().await;
    run(&mut writer, &format!("SET ROLE {role}")).await.unwrap();
    // Also one who was granted nothing is told why.
    let refused = run(&mut writer, "DELETE FROM orders").await;
    assert_eq!(refused, Err("ZF003".to_owned()));
    let denied = "42501".to_owned();
    let seal = format!("SELECT palisade.seal({})", sql(&held));
    assert_eq!(run(&mut writer, &seal).await, Err(denied.clone()));
    db.run(&format!("SELECT palisade.grant_writer('{role}')"))
        .await;
    assert_eq!(run(&mut writer, &seal).await, Ok(()));
    for level in LEVELS {
        let work = format!(
            "BEGIN ISOLATION LEVEL {level}; SELECT palisade.enter({0}); DELETE FROM orders; \
             SELECT palisade.check({0}); COMMIT",
            sql(&held)
        );
        assert_eq!(run(&mut writer, &work).await, Ok(()), "{level}");
    }
    for statement in [
        "SELECT * FROM palisade.fence",
        "UPDATE palisade.fence SET token = 1",
        "DELETE FROM palisade.fence",
        "ALTER TABLE palisade.fence DISABLE TRIGGER ALL",
        "CREATE TABLE palisade.mine (id int)",
        "SELECT palisade.unprotect('orders')",
        "SELECT palisade.grant_writer('postgres')",
        "ALTER TABLE orders DISABLE TRIGGER ALL",
        "DROP TRIGGER zz_palisade_guard ON orders",
    ] {
        assert_eq!(
            run(&mut writer, statement).await,
            Err(denied.clone()),
            "{statement}"
        );
    }
    // A function of the writer's own does not slip into those that run with the owner's rights.
    run(
        &mut writer,
        "CREATE FUNCTION public.same(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT true'; \
         CREATE OPERATOR public.= (FUNCTION = public.same, LEFTARG = text, RIGHTARG = text); \
         CREATE FUNCTION public.never(bigint, bigint) RETURNS boolean LANGUAGE sql AS 'SELECT false'; \
         CREATE OPERATOR public.< (FUNCTION = public.never, LEFTARG = bigint, RIGHTARG = bigint); \
         CREATE FUNCTION public.strpos(text, text) RETURNS integer LANGUAGE sql AS 'SELECT 1'; \
         SET search_path = public, pg_catalog",
    )
    .await
    .unwrap();
    let stale = format!(
        "BEGIN; SELECT palisade.enter({}); DELETE FROM orders",
        sql(&grant("orders", 9))
    );
    assert_eq!(run(&mut writer, &stale).await, Err("ZF001".to_owned()));
    run(&mut writer, "ROLLBACK").await.unwrap();
    let other = format!("BEGIN; SELECT palisade.check({})", sql(&grant("bills", 10)));
    assert_eq!(run(&mut writer, &other).await, Err("ZF002".to_owned()));
    run(&mut writer, "ROLLBACK").await.unwrap();
    assert_eq!(
        run(&mut writer, "DELETE FROM orders").await,
        Err("ZF003".to_owned())
    );
    db.run(&format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}"))
        .await;
}

#[tokio::test]
async fn an_owner_protects_its_own_tables() {
    let db = Db::new().await;
    let role = format!("owner_of_{}", db.name)
        .chars()
        .take(60)
        .collect::<String>();
    db.run(&format!(
        "CREATE ROLE {role}; GRANT CREATE ON SCHEMA public TO {role}; CREATE TABLE alien (id int); \
         SELECT palisade.grant_owner('{role}')"
    ))
    .await;
    let mut owner = db.connect().await;
    let own = format!(
        "SET ROLE {role}; CREATE TABLE own (id int); SELECT palisade.protect('own', resource => 'own')"
    );
    assert_eq!(run(&mut owner, &own).await, Ok(()));
    assert_eq!(
        run(&mut owner, "DELETE FROM own").await,
        Err("ZF003".to_owned())
    );
    let refused = run(
        &mut owner,
        "SELECT palisade.protect('alien', resource => 'own')",
    )
    .await;
    assert_eq!(refused, Err("42501".to_owned()));
    assert_eq!(
        run(
            &mut owner,
            "SELECT palisade.unprotect('own'); DELETE FROM own"
        )
        .await,
        Ok(())
    );
    db.run(&format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}"))
        .await;
}

/// No Rust: psql alone seals, writes, and is refused.
#[tokio::test]
async fn plain_sql_is_enough() {
    let db = Db::empty().await;
    db.guard.install(&db.pool).await.unwrap();
    let psql = async |text: &str| db.server.psql(&db.name, text).await;
    let held = sql(&grant("orders", 41));
    psql("CREATE TABLE orders (id int); SELECT palisade.protect('orders', resource => 'orders')")
        .await
        .unwrap();
    psql(&format!("SELECT palisade.seal({held})"))
        .await
        .unwrap();
    let write = format!(
        "BEGIN; SELECT palisade.enter({held}); INSERT INTO orders VALUES (1); SELECT palisade.check({held}) > 0; COMMIT"
    );
    assert_eq!(psql(&write).await.unwrap().trim(), "ok\nt");
    psql(&format!(
        "SELECT palisade.seal({})",
        sql(&grant("orders", 42))
    ))
    .await
    .unwrap();
    let told = psql(&write).await.unwrap_err().to_string();
    for part in [
        "stale token 41 for orders: the fence is at 42",
        r#""presented" : 41"#,
    ] {
        assert!(told.contains(part), "{told}");
    }
    let named = "SELECT palisade.enter(resource => 'orders', token => 42, holder => repeat('2a', 16)), token FROM palisade.status('orders')";
    assert_eq!(psql(named).await.unwrap().trim(), "ok|42");
    assert_eq!(
        psql("SELECT count(*) FROM orders").await.unwrap().trim(),
        "1"
    );
}

/// A dump brings the fence and the protection along, as strong as they were.
#[tokio::test]
async fn a_restored_dump_is_still_guarded() {
    let db = Db::with_orders().await;
    let sealed = db.seal(&grant("orders", 10)).await;
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    run(&mut tx, "INSERT INTO orders VALUES (1, 10)")
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("dump.sql");
    let file = file.to_str().unwrap();
    let copy = format!("copy_{}", db.name)
        .chars()
        .take(60)
        .collect::<String>();
    let url = db.server.create_database(&copy).await.unwrap();
    let dump = ["-d", &db.name, "-f", file];
    db.server.tool("pg_dump", &dump).await.unwrap();
    let restore = ["-Xq", "-v", "ON_ERROR_STOP=1", "-d", &copy, "-f", file];
    db.server.tool("psql", &restore).await.unwrap();
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
    db.guard.install(&pool).await.unwrap();
    let mut connection = pool.acquire().await.unwrap();
    let replica = "SET session_replication_role = replica; DELETE FROM orders";
    assert_eq!(run(&mut connection, replica).await, Err("ZF003".to_owned()));
    let lowered = "UPDATE palisade.fence SET token = 9";
    assert_eq!(run(&mut connection, lowered).await, Err("ZF001".to_owned()));
    drop(connection);
    let stale = db.guard.seal(&pool, &grant("orders", 9)).await.unwrap_err();
    assert!(matches!(stale, GuardError::Stale { .. }), "{stale:?}");
    let tx = db.guard.begin(&pool, &sealed).await.unwrap();
    tx.commit().await.unwrap();
}
