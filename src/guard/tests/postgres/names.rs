//! What a writer's own types, functions and collations can do to the functions that run as the owner.

use sqlx::{Connection, PgConnection, Row};

use crate::db::{Db, grant, run, sql, words};

/// `pg_temp` is searched for types before everything else, whatever the `search_path`: a bare `text` in a
/// function that runs as a superuser would run the writer's own CHECK as one.
#[tokio::test]
async fn a_writers_own_types_do_not_run_as_the_owner() {
    let db = Db::with_orders().await;
    let role = format!("evil_{}", db.name)
        .chars()
        .take(60)
        .collect::<String>();
    db.run(&format!(
        "CREATE ROLE {role} LOGIN; SELECT palisade.grant_writer('{role}'); GRANT ALL ON orders TO {role}"
    ))
    .await;
    let url = db.url.replace("postgres@", &format!("{role}@"));
    let held = sql(&grant("orders", 10));
    // One session for each type: the domains of one would be in the way of the next.
    for shadowed in [
        "text", "_text", "int8", "int4", "bool", "regclass", "xid8", "name",
    ] {
        let mut writer = PgConnection::connect(&url).await.unwrap();
        let shadow = format!(
            "CREATE FUNCTION pg_temp.evil(pg_catalog.{shadowed}) RETURNS pg_catalog.bool \
             LANGUAGE plpgsql AS $$ BEGIN \
             IF current_user = 'postgres' THEN EXECUTE 'ALTER ROLE {role} SUPERUSER'; END IF; \
             RETURN true; END $$; \
             CREATE DOMAIN pg_temp.{shadowed} AS pg_catalog.{shadowed} CHECK (pg_temp.evil(value)); \
             SET search_path = pg_temp, public, pg_catalog"
        );
        assert_eq!(run(&mut writer, &shadow).await, Ok(()), "{shadowed}");
        for call in [
            format!("SELECT palisade.seal({held})"),
            format!("BEGIN; SELECT palisade.enter({held}), palisade.enter({held})"),
            "INSERT INTO orders VALUES (1)".to_owned(),
            format!("SELECT palisade.check({held})"),
            "COMMIT".to_owned(),
            format!("SELECT palisade.check({held})"),
            format!(
                "BEGIN; CALL palisade.open({}); COMMIT",
                words(&grant("orders", 10))
            ),
            "SELECT palisade.status('orders'), palisade.stripe('orders')".to_owned(),
            "SELECT palisade.blockers('orders')".to_owned(),
        ] {
            assert_eq!(run(&mut writer, &call).await, Ok(()), "{shadowed}: {call}");
        }
        let superuser =
            format!("SELECT rolsuper::int::bigint FROM pg_roles WHERE rolname = '{role}'");
        assert_eq!(db.number(&superuser).await, 0, "through {shadowed}");
        writer.close().await.unwrap();
    }
    db.run(&format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}"))
        .await;
}

/// The rule in the schema's header, for every function that it is about.
#[tokio::test]
async fn without_a_search_path_of_its_own_every_name_in_a_function_is_qualified() {
    let db = Db::with_orders().await;
    db.run("CREATE TABLE bills (id bigint); SELECT palisade.protect('bills', ARRAY['id'])")
        .await;
    let rows = sqlx::query(
        "SELECT p.proname::text AS name, p.prosrc AS body, p.prosecdef AS definer, \
         coalesce(p.proconfig @> ARRAY['search_path=pg_catalog, pg_temp'], false) AS pinned \
         FROM pg_proc AS p WHERE p.pronamespace = 'palisade'::regnamespace ORDER BY 1",
    )
    .fetch_all(&db.pool)
    .await
    .unwrap();
    let (pinned, open): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.get("pinned"));
    let names: Vec<String> = open.iter().map(|row| row.get("name")).collect();
    // A digest follows two of them.
    let kinds: Vec<&str> = names
        .iter()
        .filter_map(|name| name.split('_').next())
        .collect();
    assert_eq!(kinds, ["check", "enter", "open", "rows", "stripe", "whole"]);
    assert!(pinned.iter().any(|row| row.get("definer")));
    for row in open {
        let (name, body): (String, String) = (row.get("name"), row.get("body"));
        assert_eq!(unqualified(&body), Vec::<String>::new(), "palisade.{name}");
    }
}

#[test]
fn what_is_not_qualified_is_found() {
    for (body, found) in [
        ("DECLARE\n line text;\nBEGIN", "text"),
        (
            "DECLARE\n a pg_catalog.int8;\n b text[] := 1;\nBEGIN",
            "text[",
        ),
        ("RETURN hashtext(pg_catalog.left(a, 1))", "hashtext("),
        ("RETURN pg_catalog.left(a, 1)::text", "text"),
        ("RETURN CAST(a AS text)", "CAST"),
        ("RETURN a COLLATE \"C\"", "COLLATE"),
        ("RETURN a OPERATOR(pg_catalog.=) b OR a = b", "="),
        ("IF a <> '' THEN", "<>"),
        ("SELECT 1 FROM fence AS f", "fence"),
        ("RETURN NULLIF(a, 'x')", "NULLIF"),
        ("CASE a WHEN 1 THEN 2 END", "CASE"),
        ("RETURN a IN (1, 2)", "IN"),
    ] {
        assert!(
            unqualified(body).iter().any(|name| name == found),
            "{body}: {:?}",
            unqualified(body)
        );
    }
    let good = "DECLARE\n a pg_catalog.text COLLATE pg_catalog.\"C\" := 'text';\nBEGIN -- a = b\n \
        IF COALESCE(a OPERATOR(pg_catalog.=) E'\\n', false) THEN a := b::pg_catalog.text; END IF;";
    assert_eq!(unqualified(good), Vec::<String>::new());
}

/// Words that are syntax, and look up no name.
const SYNTAX: [&str; 12] = [
    "IF", "ELSIF", "CASE", "WHEN", "THEN", "AND", "OR", "NOT", "COALESCE", "OPERATOR", "VALUES",
    "AS",
];

/// Words that look an operator or a type up by its bare name.
const HIDDEN: [&str; 7] = [
    "NULLIF", "IN", "BETWEEN", "LIKE", "ILIKE", "DISTINCT", "CAST",
];

/// The names in a function's body that the caller's `search_path` or `pg_temp` could resolve.
fn unqualified(body: &str) -> Vec<String> {
    let tokens = tokens(body);
    let at = |index: usize| tokens.get(index).map_or("", String::as_str);
    let qualified =
        |index: usize| matches!(at(index), "pg_catalog" | "palisade") && at(index + 1) == ".";
    let mut found = Vec::new();
    let declarations = (at(0) == "DECLARE")
        .then(|| tokens.iter().position(|token| token == "BEGIN"))
        .flatten()
        .unwrap_or(0);
    for (index, token) in tokens.iter().enumerate() {
        let before = |back: usize| index.checked_sub(back).map_or("", &at);
        if index > 0 && index < declarations && matches!(before(2), "DECLARE" | ";") {
            // The second word of a declaration is its type.
            if !qualified(index) {
                let bracket = if at(index + 1) == "[" { "[" } else { "" };
                found.push(format!("{token}{bracket}"));
            }
            continue;
        }
        let is_word = token.starts_with(|c: char| c.is_alphabetic() || c == '_');
        if is_word && at(index + 1) == "(" && before(1) != "." && !SYNTAX.contains(&token.as_str())
        {
            found.push(format!("{token}("));
        }
        if HIDDEN.contains(&token.as_str()) || (token == "CASE" && at(index + 1) != "WHEN") {
            found.push(token.clone());
        }
        if matches!(token.as_str(), "::" | "FROM" | "JOIN") && !qualified(index + 1) {
            found.push(at(index + 1).to_owned());
        }
        if token == "COLLATE" && !qualified(index + 1) {
            found.push(token.clone());
        }
        let is_operator = token.chars().all(|c| "+-*/<>=~!@#%^&|`?".contains(c));
        // RAISE … USING ERRCODE = is no comparison.
        let is_option = before(1) == "ERRCODE";
        if is_operator && !is_option && !(before(1) == "." && before(2) == "pg_catalog") {
            found.push(token.clone());
        }
    }
    found
}

/// Words, numbers, operators and punctuation; comments and literals are left out.
fn tokens(body: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = body;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("--") {
            rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
            continue;
        } else if first == '\'' || rest.starts_with("E'") {
            let text = rest.split_once('\'').expect("it begins with one").1;
            rest = text.split_once('\'').expect("a literal ends").1;
            continue;
        } else if first.is_whitespace() {
            rest = rest.trim_start();
            continue;
        } else if first.is_alphanumeric() || first == '_' || first == '"' {
            let word = |c: char| c.is_alphanumeric() || c == '_' || c == '"';
            rest.find(|c| !word(c)).unwrap_or(rest.len())
        } else if rest.starts_with("::") || rest.starts_with(":=") {
            2
        } else {
            let operator = |c: char| "+-*/<>=~!@#%^&|`?".contains(c);
            rest.find(|c| !operator(c)).unwrap_or(rest.len()).max(1)
        };
        tokens.push(rest[..length].to_owned());
        rest = &rest[length..];
    }
    tokens
}

/// The lock, the fence and the entry of a resource do not depend on the collation of the column that its
/// name was read from; a nondeterministic one, which holds `A` and `a` for equal, is the hardest.
#[tokio::test]
async fn a_resource_may_come_from_a_column_of_any_collation() {
    let db = Db::with_orders().await;
    db.run(
        "CREATE COLLATION ignoring_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
    )
    .await;
    let held = grant("orders", 10);
    for collation in ["\"C\"", "\"POSIX\"", "\"de-x-icu\"", "ignoring_case"] {
        db.run(&format!(
            "DROP TABLE IF EXISTS grants; CREATE TABLE grants (resource text COLLATE {collation}, \
             token bigint, holder text COLLATE {collation}); INSERT INTO grants VALUES ({})",
            sql(&held)
        ))
        .await;
        let mut connection = db.connect().await;
        for call in [
            "SELECT palisade.seal(resource, token, holder) FROM grants",
            "BEGIN; SELECT palisade.enter(resource, token, holder) FROM grants",
            "INSERT INTO orders VALUES (1, 10)",
            "SELECT palisade.enter(resource, token, holder), palisade.check(resource, token, holder) FROM grants",
            "COMMIT",
            "SELECT palisade.check(resource, token, holder) FROM grants",
        ] {
            assert_eq!(
                run(&mut connection, call).await,
                Ok(()),
                "{collation}: {call}"
            );
        }
        for (call, expected) in [
            ("SELECT palisade.seal(resource, token - 1, holder)", "ZF001"),
            (
                "SELECT palisade.seal(resource, token, repeat('0', 32))",
                "ZF004",
            ),
            (
                "SELECT palisade.check(resource, token - 1, holder)",
                "ZF001",
            ),
            (
                "SELECT palisade.check(upper(resource), token, holder)",
                "ZF002",
            ),
            (
                "SELECT palisade.check(resource, token, upper(holder))",
                "22023",
            ),
        ] {
            let refused = run(&mut connection, &format!("{call} FROM grants")).await;
            assert_eq!(refused, Err(expected.to_owned()), "{collation}: {call}");
        }
        let same = "SELECT count(*) FROM grants, palisade.status(resource) AS s \
            WHERE palisade.stripe(resource) = palisade.stripe('orders') AND s.token = grants.token";
        assert_eq!(db.number(same).await, 1, "{collation}");
        // What it finds does not matter here: the refused calls above may still be ending.
        db.run("SELECT FROM grants, palisade.blockers(resource)")
            .await;
    }
}
