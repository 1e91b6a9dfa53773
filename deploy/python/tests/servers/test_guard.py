"""Guarded writes on a real PostgreSQL."""

import contextlib
import secrets
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

import palisade
from palisade import Grant
from palisade.guard import GuardedTx, Sealed, guard, outcome, seal

A, B = "0a" * 16, "0b" * 16


def insert(tx: Any, table: str, number: int = 1) -> None:
    tx.execute(f"INSERT INTO {table} VALUES (%s, 'new')", (number,))


def rows(dsn: str, table: str) -> list[int]:
    with psycopg.connect(dsn) as reader:
        return [row[0] for row in reader.execute(f"SELECT id FROM {table} ORDER BY id")]


def is_clean(connection: psycopg.Connection[Any], autocommit: bool) -> bool:
    """No transaction, no lock, no setting: as the next user of a pool expects it."""
    assert connection.info.transaction_status is TransactionStatus.IDLE
    assert connection.autocommit is autocommit
    connection.autocommit = True
    locks = connection.execute("SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'")
    assert locks.fetchone() in ((0,), {"count": 0})
    kept = connection.execute(
        "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%palisade.%'", prepare=False
    )
    assert kept.fetchone() in ((0,), {"count": 0})
    timeout = connection.execute("SELECT current_setting('lock_timeout') AS it")
    assert timeout.fetchone() in (("0",), {"it": "0"})
    connection.autocommit = autocommit
    return True


@pytest.fixture(params=[True, False], ids=["autocommit", "transactions"])
def any_connection(request: pytest.FixtureRequest, dsn: str) -> Iterator[psycopg.Connection[Any]]:
    made: psycopg.Connection[Any] = psycopg.connect(dsn, autocommit=request.param)
    if request.param:
        made.row_factory = dict_row  # type: ignore[assignment]
    with made:
        yield made


def test_an_admitted_write_is_committed(
    any_connection: psycopg.Connection[Any], dsn: str, table: str, resource: str
) -> None:
    autocommit = any_connection.autocommit
    grant = Grant(resource, 42, A)
    assert repr(seal(any_connection, grant)) == f"<Sealed {resource}#42>"
    assert is_clean(any_connection, autocommit)
    for number in range(8):
        with guard(any_connection, grant) as tx:
            insert(tx, table, number)
            assert tx.grants == (grant,)
        assert is_clean(any_connection, autocommit)
    assert rows(dsn, table) == list(range(8))
    assert outcome(any_connection, tx.transaction) == "committed"
    assert is_clean(any_connection, autocommit)


def test_a_stale_write_is_refused_for_ever(
    any_connection: psycopg.Connection[Any], connection: psycopg.Connection[Any], dsn: str, table: str, resource: str
) -> None:
    autocommit = any_connection.autocommit
    old = Grant(resource, 41, A)
    sealed = seal(any_connection, old)
    seal(connection, Grant(resource, 42, B))
    with pytest.raises(palisade.Stale) as stale, guard(any_connection, old) as tx:
        insert(tx, table)
    assert stale.value.args == (resource, 41, 42)
    assert isinstance(stale.value.__cause__, psycopg.Error)
    assert is_clean(any_connection, autocommit)
    # Dead in this process: the database is not asked again.
    assert sealed.refused is not None
    for refused in (old, sealed):
        with pytest.raises(palisade.Stale), guard(any_connection, refused):
            raise AssertionError("not entered")
    with pytest.raises(palisade.Stale):
        seal(any_connection, old)
    assert is_clean(any_connection, autocommit)
    assert rows(dsn, table) == []


def test_a_stale_transaction_that_writes_nothing_protected_is_refused_too(
    connection: psycopg.Connection[Any], dsn: str, resource: str
) -> None:
    old = Grant(resource, 41, A)
    seal(connection, old)
    with psycopg.connect(dsn) as other:
        seal(other, Grant(resource, 42, B))
    with pytest.raises(palisade.Stale), guard(connection, old) as tx:
        tx.execute("SELECT 1")


def test_a_refusal_that_the_body_swallows_is_told_all_the_same(
    connection: psycopg.Connection[Any], dsn: str, table: str, resource: str
) -> None:
    old = Grant(resource, 41, A)
    seal(connection, old)
    with psycopg.connect(dsn) as other:
        seal(other, Grant(resource, 42, B))

    def write_and_swallow(tx: GuardedTx) -> None:
        with pytest.raises(psycopg.Error):
            tx.cursor().execute(f"INSERT INTO {table} VALUES (1)")

    with pytest.raises(palisade.Stale), guard(connection, old) as tx:
        write_and_swallow(tx)
    assert is_clean(connection, False)


def test_an_aborted_transaction_is_not_reported_as_committed(
    connection: psycopg.Connection[Any], dsn: str, table: str, resource: str
) -> None:
    grant = Grant(resource, 42, A)
    with pytest.raises(palisade.RolledBack), guard(connection, grant) as tx:
        insert(tx, table)
        with pytest.raises(psycopg.errors.DivisionByZero):
            tx.execute("SELECT 1 / 0")
    assert is_clean(connection, False)
    assert rows(dsn, table) == []


def test_a_commit_that_the_database_refuses_is_rolled_back(
    connection: psycopg.Connection[Any], dsn: str, table: str, resource: str
) -> None:
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(f"ALTER TABLE {table} ADD UNIQUE (state) DEFERRABLE INITIALLY DEFERRED")
    grant = Grant(resource, 42, A)
    with pytest.raises(palisade.RolledBack) as refused, guard(connection, grant) as tx:
        insert(tx, table, 1)
        insert(tx, table, 2)
    assert isinstance(refused.value.__cause__, psycopg.errors.UniqueViolation)
    assert is_clean(connection, False)


def test_the_other_refusals(connection: psycopg.Connection[Any], dsn: str, table: str, resource: str) -> None:
    grant = Grant(resource, 42, A)
    seal(connection, grant)
    with pytest.raises(palisade.Collision) as collision:
        seal(connection, Grant(resource, 42, B))
    assert collision.value.args == (resource, 42)
    # Sealed elsewhere, as far as this process knows.
    with pytest.raises(palisade.Unsealed) as unsealed, guard(connection, Sealed(Grant(resource, 43, B))) as tx:
        insert(tx, table)
    assert unsealed.value.args == (resource, 43, 42)
    with pytest.raises(palisade.Collision), guard(connection, Sealed(Grant(resource, 42, B))) as tx:
        insert(tx, table)
    with pytest.raises(palisade.Unguarded) as unguarded, guard(connection, Grant(f"{resource}/x", 1, A)) as tx:
        insert(tx, table)
    assert unguarded.value.args == (resource, table)
    with connection.transaction(), pytest.raises(psycopg.Error) as raw:
        insert(connection, table)
    assert raw.value.diag.sqlstate == "ZF003"
    assert is_clean(connection, False)


def test_a_transaction_that_was_ended_by_hand_is_unguarded(
    connection: psycopg.Connection[Any], table: str, resource: str
) -> None:
    for ending in ("COMMIT", "ROLLBACK", "COMMIT; BEGIN"):
        with pytest.raises(palisade.Unguarded), guard(connection, Grant(resource, 42, A)) as tx:
            tx.execute(ending)
        assert is_clean(connection, False)


def test_what_the_body_raises_rolls_back(
    connection: psycopg.Connection[Any], dsn: str, table: str, resource: str
) -> None:
    pid = connection.info.backend_pid
    for error in (KeyError, KeyboardInterrupt, SystemExit, GeneratorExit):
        with pytest.raises(error), guard(connection, Grant(resource, 42, A)) as tx:
            insert(tx, table)
            raise error
        assert is_clean(connection, False)
    assert (connection.info.backend_pid, rows(dsn, table)) == (pid, [])


def test_a_savepoint_rolls_back_alone(connection: psycopg.Connection[Any], dsn: str, table: str, resource: str) -> None:
    with guard(connection, Grant(resource, 42, A)) as tx:
        insert(tx, table, 1)
        with pytest.raises(KeyError), tx.savepoint():
            insert(tx, table, 2)
            raise KeyError
        insert(tx, table, 3)
    assert rows(dsn, table) == [1, 3]


def test_several_grants_in_one_transaction(
    connection: psycopg.Connection[Any], dsn: str, table: str, resource: str
) -> None:
    grants = [Grant(f"{resource}/{number}", number + 2**40, A) for number in range(5)]
    with guard(connection, Grant(resource, 1, A), *grants) as tx:
        insert(tx, table)
    assert rows(dsn, table) == [1]
    with psycopg.connect(dsn) as other:
        seal(other, Grant(f"{resource}/3", 2**41, B))
    with pytest.raises(palisade.Stale) as stale, guard(connection, Grant(resource, 1, A), *grants) as tx:
        insert(tx, table, 2)
    assert stale.value.resource == f"{resource}/3"
    assert is_clean(connection, False)
    with pytest.raises(palisade.Misuse), guard(connection, grants[0], grants[0]):
        pass


def test_above_read_committed_a_seal_in_between_is_no_gap(
    connection: psycopg.Connection[Any], dsn: str, table: str, resource: str
) -> None:
    old = Grant(resource, 41, A)
    for isolation in ("REPEATABLE READ", "SERIALIZABLE"):
        with guard(connection, old, isolation=isolation) as tx:  # type: ignore[arg-type]
            shown = tx.execute("SHOW transaction_isolation").fetchone()
        assert shown == (isolation.lower(),)


def test_a_seal_waits_for_writers_and_names_them(
    connection: psycopg.Connection[Any], dsn: str, table: str, resource: str
) -> None:
    with psycopg.connect(dsn, application_name="the next") as other:
        with guard(connection, Grant(resource, 41, A)) as tx:
            insert(tx, table)
            with pytest.raises(palisade.SealTimeout) as timeout:
                seal(other, Grant(resource, 42, B), wait=0.1)
            assert timeout.value.blockers[0].startswith(str(connection.info.backend_pid))
            assert is_clean(other, False)
        seal(other, Grant(resource, 42, B))
        with pytest.raises(palisade.Stale):
            seal(other, Grant(resource, 41, A))


def test_a_database_that_went_backwards_is_not_sealed_again_by_itself(
    connection: psycopg.Connection[Any], dsn: str, table: str, resource: str
) -> None:
    grant = Grant(resource, 42, A)
    with guard(connection, grant) as tx:
        insert(tx, table)
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute("ALTER TABLE palisade.fence DISABLE TRIGGER USER")
        admin.execute("UPDATE palisade.fence SET token = 40 WHERE resource = %s", (resource,))
        admin.execute("ALTER TABLE palisade.fence ENABLE ALWAYS TRIGGER keep_rows")
        admin.execute("ALTER TABLE palisade.fence ENABLE ALWAYS TRIGGER keep_all")
    for _turn in range(2):
        with pytest.raises(palisade.Unsealed), guard(connection, grant) as tx:
            insert(tx, table, 2)
    seal(connection, grant)
    with guard(connection, grant) as tx:
        insert(tx, table, 2)
    assert rows(dsn, table) == [1, 2]


def test_misuse_is_told_before_anything_is_sent(connection: psycopg.Connection[Any], resource: str) -> None:
    grant = Grant(resource, 42, A)
    seal(connection, grant)
    with pytest.raises(palisade.Misuse), guard(connection):
        pass
    with pytest.raises(palisade.Misuse), guard(connection, grant, isolation="CHAOS"):  # type: ignore[arg-type]
        pass
    with pytest.raises(palisade.Misuse):
        seal(connection, grant, wait=0)
    connection.execute("SELECT 1")
    for misused in (lambda: guard(connection, grant).__enter__(), lambda: seal(connection, grant)):
        with pytest.raises(palisade.Misuse):
            misused()
    connection.rollback()
    with connection.pipeline(), pytest.raises(palisade.Misuse), guard(connection, grant):
        pass
    assert is_clean(connection, False)


def test_names_cannot_leave_their_literal(connection: psycopg.Connection[Any]) -> None:
    for resource in ("o'; DROP SCHEMA palisade CASCADE; --", "o\\'; SELECT 1"):
        with pytest.raises(psycopg.errors.Error):
            seal(connection, Grant(resource, 42, A))
        with pytest.raises(psycopg.errors.Error), guard(connection, Sealed(Grant(resource, 42, A))):
            pass
        assert is_clean(connection, False)


def test_a_pool_gets_its_connections_back_clean(dsn: str, table: str, resource: str) -> None:
    grant = Grant(resource, 42, A)
    with ConnectionPool(dsn, min_size=1, max_size=1, open=True) as pool:
        for number in range(5):
            with pool.connection() as connection, guard(connection, grant) as tx:
                insert(tx, table, number)
        with pytest.raises(KeyError), pool.connection() as connection, guard(connection, grant):
            raise KeyError
        with pool.connection() as connection:
            assert is_clean(connection, False)
        stats = pool.get_stats()
    assert stats.get("returns_bad", 0) == 0
    assert rows(dsn, table) == list(range(5))


class Line:
    """A link to the database whose answers can be lost, or be others."""

    def __init__(self, dsn: str) -> None:
        self._to = conninfo_to_dict(dsn)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.answer: Callable[[bytes], bytes] = lambda answer: answer
        threading.Thread(target=self._serve, daemon=True).start()
        port = self._listener.getsockname()[1]
        self.dsn = make_conninfo(dsn, host="127.0.0.1", port=port, sslmode="disable", gssencmode="disable")

    def _serve(self) -> None:
        near, _ = self._listener.accept()
        self._listener.close()
        far = socket.create_connection((str(self._to["host"]), int(self._to["port"] or 5432)))
        threading.Thread(target=self._pump, args=(near, far, False), daemon=True).start()
        self._pump(far, near, True)

    def _pump(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        while data := self._read(source):
            told = self.answer(data) if answers else data
            if not told:
                break
            sink.sendall(told)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _read(self, source: socket.socket) -> bytes:
        try:
            return source.recv(65536)
        except OSError:
            return b""


def test_a_commit_whose_answer_is_lost_is_unknown_and_can_be_asked_for(dsn: str, table: str, resource: str) -> None:
    line = Line(dsn)
    connection = psycopg.connect(line.dsn)
    with pytest.raises(palisade.CommitUnknown) as unknown, guard(connection, Grant(resource, 42, A)) as tx:
        insert(tx, table)
        line.answer = lambda answer: b"" if b"COMMIT" in answer else answer
    assert unknown.value.may_have_happened
    assert unknown.value.transaction == tx.transaction > 0
    assert connection.closed, "nobody meets what is left of it"
    with psycopg.connect(dsn) as other:
        assert outcome(other, unknown.value.transaction) == "committed"
    assert rows(dsn, table) == [1]


def test_what_a_pooler_says_of_a_server_that_it_has_lost_is_no_refusal(dsn: str, table: str, resource: str) -> None:
    """FATAL, on a link that goes on."""
    line = Line(dsn)
    connection = psycopg.connect(line.dsn)
    said = b"SFATAL\0VFATAL\0C08P01\0Mserver conn crashed?\0\0"
    message = b"E" + struct.pack("!i", len(said) + 4) + said + b"Z" + struct.pack("!i", 5) + b"I"
    with pytest.raises(palisade.CommitUnknown) as unknown, guard(connection, Grant(resource, 42, A)) as tx:
        insert(tx, table)
        line.answer = lambda answer: message if b"COMMIT" in answer else answer
    assert connection.closed
    with psycopg.connect(dsn) as other:
        assert outcome(other, unknown.value.transaction) == "committed"


def test_a_connection_that_is_in_the_midst_of_something_is_closed(dsn: str, resource: str) -> None:
    connection = psycopg.connect(dsn)
    with pytest.raises(KeyError), guard(connection, Grant(resource, 42, A)) as tx:
        copying = tx.cursor().copy("COPY (SELECT generate_series(1, 1000000)) TO STDOUT")
        copying.__enter__()
        raise KeyError
    assert connection.closed


def test_a_server_that_goes_before_the_commit_leaves_it_unknown(dsn: str, table: str, resource: str) -> None:
    connection = psycopg.connect(dsn)
    with psycopg.connect(dsn, autocommit=True) as other:
        with pytest.raises(palisade.CommitUnknown) as unknown, guard(connection, Grant(resource, 42, A)) as tx:
            insert(tx, table)
            other.execute("SELECT pg_terminate_backend(%s, 30000)", (connection.info.backend_pid,))
        assert connection.closed
        assert outcome(other, unknown.value.transaction) == "aborted"
    assert rows(dsn, table) == []


def test_random_tokens_and_holders(connection: psycopg.Connection[Any], dsn: str, table: str, resource: str) -> None:
    """Tokens only grow, whatever order the grants come in."""
    fence, count = 0, 0
    for _turn in range(60):
        grant = Grant(resource, 1 + secrets.randbelow(20), secrets.choice([A, B]))
        try:
            with guard(connection, grant) as tx:
                insert(tx, table, count)
            assert grant.token >= fence
            fence, count = grant.token, count + 1
        except palisade.Stale as stale:
            assert grant.token < stale.fence == fence
        except palisade.Collision:
            assert grant.token == fence
    assert rows(dsn, table) == list(range(count))
