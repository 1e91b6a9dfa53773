"""Writes through the guard with psycopg, and knows nothing of Rust: only the SQL that `palisade guard sql` prints.

It installs, protects, seals and writes, meets every refusal, and prints what it saw as one line of JSON.
"""

import json
import sys

import psycopg

HOLDERS = {"a": "0a" * 16, "b": "0b" * 16}


def enter(connection, resource, token, holder="a"):
    entered = connection.execute(
        "SELECT palisade.enter(%s, %s, %s)", (resource, token, HOLDERS[holder])
    )
    return entered.fetchone()[0]


def write(connection, grants, statement):
    """One guarded transaction; what enter answered, and what the database refused, if it did."""
    answers, refused = [], None
    try:
        with connection.transaction():
            answers = [enter(connection, *grant) for grant in grants]
            connection.execute(statement)
    except psycopg.Error as error:
        detail = error.diag.message_detail
        refused = [error.sqlstate, json.loads(detail) if detail else None]
    return {"entered": answers, "refused": refused}


def main(address, script):
    connection = psycopg.connect(address, autocommit=True)
    with open(script, encoding="utf-8") as text:
        connection.execute(text.read())
    connection.execute("CREATE TABLE orders (id int)")
    connection.execute("CREATE TABLE accounts (shard text, id int)")
    connection.execute("SELECT palisade.protect('orders', 'orders')")
    connection.execute(
        "SELECT palisade.protect('accounts', resource_columns => %s, resource_prefix => 'accounts')",
        (["shard", "id"],),
    )
    for resource in ("orders", "accounts/eu/17"):
        connection.execute("SELECT palisade.seal(%s, %s, %s)", (resource, 42, HOLDERS["a"]))
    order = "INSERT INTO orders VALUES (1)"
    account = "INSERT INTO accounts VALUES ('eu', 17)"
    report = {
        "admitted": write(connection, [("orders", 42), ("accounts/eu/17", 42)], f"{order}; {account}"),
        "stale": write(connection, [("orders", 41)], order),
        "unsealed": write(connection, [("orders", 43)], order),
        "unguarded": write(connection, [], order),
        "collision": write(connection, [("orders", 42, "b")], order),
        "another_row": write(connection, [("accounts/eu/17", 42)], "UPDATE accounts SET id = 18"),
    }
    # A savepoint that is rolled back takes its entry along.
    try:
        with connection.transaction():
            try:
                with connection.transaction():
                    enter(connection, "orders", 42)
                    raise KeyError
            except KeyError:
                pass
            connection.execute(order)
    except psycopg.Error as error:
        report["after_savepoint"] = error.sqlstate
    # A pooled connection that is used again carries nothing over, and works.
    report["afterwards"] = [
        write(connection, [], order)["refused"][0],
        write(connection, [("orders", 42)], order)["refused"],
    ]
    report["rows"] = connection.execute("SELECT count(*) FROM orders").fetchone()[0]
    report["audit"] = [
        row[0]
        for row in connection.execute("SELECT finding FROM palisade.audit() WHERE severity = 'error'")
    ]
    print(json.dumps(report))


main(*sys.argv[1:])
