"""Guarded writes to PostgreSQL through psycopg 3: a transaction whose grant is stale does not commit.

The order at a takeover is always acquire, seal, read, write:

    seal(connection, lease.grant)              # once, before the first read
    with guard(connection, lease.grant) as tx:
        tx.execute("UPDATE orders SET state = 'paid' WHERE id = %s", (7,))

The schema `palisade` must be installed in the database (`palisade guard install`), and the tables protected.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Literal, cast

import psycopg
from psycopg import sql
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.rows import tuple_row

from .errors import Collision, CommitUnknown, GuardError, Misuse, RolledBack, SealTimeout, Stale, Unsealed
from .guard_errors import code, refusal, translated
from .hold import Grant
from .lease import Lease

MAX_RESOURCES = 1024
"""The most resources of one transaction."""
DEFAULT_SEAL_WAIT = 10.0
"""Seconds that a seal waits for running writers."""

Isolation = Literal["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]

_BEGIN = {
    "READ COMMITTED": sql.SQL("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; "),
    "REPEATABLE READ": sql.SQL("BEGIN ISOLATION LEVEL REPEATABLE READ READ WRITE; "),
    "SERIALIZABLE": sql.SQL("BEGIN ISOLATION LEVEL SERIALIZABLE READ WRITE; "),
}
_memory = threading.Lock()

Connection = psycopg.Connection[Any]


class Sealed:
    """Says that a grant was sealed in a database: only `seal` makes it, and only then is anything written with it.

    Once the database has refused it, it is dead, in all transactions of this process.
    """

    def __init__(self, grant: Grant) -> None:
        self.grant = grant
        self.refused: GuardError | None = None

    def __repr__(self) -> str:
        return f"<Sealed {self.grant.resource}#{self.grant.token}>"


def seal(connection: Connection, grant: Grant | Lease, *, wait: float = DEFAULT_SEAL_WAIT) -> Sealed:
    """Raises the fence to the grant and commits that durably, in a transaction of its own.

    Once this returns, no write with a lower token commits (I2): do it before the first read. It waits for the guarded
    transactions that are running. The same grant may be sealed any number of times. Raises `Stale` or `Collision`,
    which are final, `SealTimeout`, `Lost` for a lease that is lost, `Misuse`; after a psycopg error it may be sealed or
    not: seal again.
    """
    if isinstance(grant, Lease):
        grant = grant.grant
    if not 0.001 <= wait <= 3600:
        raise Misuse(f"a seal may wait from 0.001 to 3600 s, not {wait}")
    message = sql.SQL(
        "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL lock_timeout = {}; SELECT palisade.seal({}); COMMIT"
    ).format(sql.Literal(round(wait * 1000)), _arguments(grant))
    with _Lent(connection) as lent:
        try:
            lent.send(message)
        except psycopg.Error as error:
            # lock_not_available, and query_canceled by a statement_timeout that is shorter.
            if code(error) in ("55P03", "57014") and lent.end():
                raise SealTimeout(grant.resource, wait, _blockers(lent, grant.resource)) from error
            told = refusal(error)
            if told is None:
                raise
            raise told from error
    made = Sealed(grant)
    with _memory:
        grant.sealed[_database(connection)] = made
    return made


def guard(connection: Connection, *grants: Grant | Lease | Sealed, isolation: Isolation = "READ COMMITTED") -> Guarded:
    """A transaction that commits only if each grant is admitted: for use in a `with`, which gives a `GuardedTx`.

    A grant that was never sealed in this database, by this process, is sealed first; what was read before that may be
    out of date, so call `seal` before the first read. One that was sealed and is found unsealed is not sealed again by
    itself: the database went backwards, so call `seal` and read again.

    The block's end checks the grants and commits; an exception rolls back. The connection must be in no transaction,
    and is in none afterwards, whatever happened. Raises `Stale`, `Unsealed`, `Collision`, `Unguarded`,
    `Serialization` or `RolledBack`, after which nothing is committed, and `CommitUnknown`; `Lost` for a lease that is
    lost; `Misuse`.
    """
    return Guarded(connection, grants, isolation)


def outcome(connection: Connection, transaction: int) -> str | None:
    """What became of the transaction of a `CommitUnknown`: `committed`, `aborted`, `in progress`, or `None` where it is
    older than what the server remembers. Ask the server that ran it."""
    with _Lent(connection) as lent:
        row = lent.send(sql.SQL("SELECT pg_xact_status({}::xid8)").format(sql.Literal(str(transaction)))).fetchone()
    return cast("str | None", row[0]) if row else None


class GuardedTx:
    """A guarded transaction. Do not send BEGIN, COMMIT or ROLLBACK through it."""

    def __init__(self, connection: Connection, sealed: Sequence[Sealed], transaction: int) -> None:
        self.connection = connection
        """The connection, for cursors and whatever else is needed."""
        self.transaction = transaction
        """The id of the transaction in PostgreSQL."""
        self._sealed = sealed

    @property
    def grants(self) -> tuple[Grant, ...]:
        """The grants that it carries."""
        return tuple(sealed.grant for sealed in self._sealed)

    def execute(self, query: Any, params: Any = None) -> psycopg.Cursor[Any]:
        """As psycopg's `Connection.execute`; a refusal of the guard raises `Stale`, `Unguarded` and so on."""
        try:
            return self.connection.execute(query, params)
        except psycopg.Error as error:
            told = translated(error)
            if told is None:
                raise
            raise told from error

    def cursor(self) -> psycopg.Cursor[Any]:
        """A cursor of the connection."""
        return self.connection.cursor()

    def savepoint(self) -> AbstractContextManager[Any]:
        """A block that can be rolled back alone."""
        return self.connection.transaction()


class Guarded(AbstractContextManager[GuardedTx]):
    """What `guard` gives."""

    def __init__(self, connection: Connection, grants: Sequence[Grant | Lease | Sealed], isolation: Isolation) -> None:
        if isolation not in _BEGIN:
            raise Misuse(f"the isolation is one of {', '.join(_BEGIN)}, not {isolation}")
        if not 1 <= len(grants) <= MAX_RESOURCES:
            raise Misuse(f"a transaction is guarded for 1 to {MAX_RESOURCES} grants, not {len(grants)}")
        self._lent = _Lent(connection)
        self._given = grants
        self._isolation = isolation
        self._sealed: list[Sealed] = []
        self._transaction = 0

    def __enter__(self) -> GuardedTx:
        connection = self._lent.connection
        self._sealed = [_sealed(connection, given) for given in self._given]
        if len({sealed.grant.resource for sealed in self._sealed}) < len(self._sealed):
            raise Misuse("a transaction is guarded for each resource once")
        self._raise_if_refused()
        self._lent.__enter__()
        try:
            begun = self._lent.send(_begin(self._isolation, self._grants))
            self._transaction = _last_row(begun)
        except BaseException as error:
            self._lent.__exit__(type(error), error, None)
            if isinstance(error, psycopg.Error):
                raise self._learn(translated(error) or error) from error
            raise
        return GuardedTx(connection, self._sealed, self._transaction)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lent.leaving():
            if error is None:
                self._commit()
            elif isinstance(error, psycopg.Error):
                told = translated(error)
                if told is not None:
                    raise self._learn(told) from error
            else:
                self._learn(error)

    @property
    def _grants(self) -> list[Grant]:
        return [sealed.grant for sealed in self._sealed]

    def _raise_if_refused(self) -> None:
        for sealed in self._sealed:
            if sealed.refused is not None:
                raise type(sealed.refused)(*sealed.refused.args)

    def _learn(self, error: BaseException) -> BaseException:
        """A refusal of one of its grants is final for that `Sealed`."""
        for sealed in self._sealed:
            if _is_final(error, sealed.grant):
                sealed.refused = cast("GuardError", error)
        return error

    def _commit(self) -> None:
        self._raise_if_refused()
        lent = self._lent
        try:
            committed = lent.send(_commit(self._grants))
        except psycopg.Error as error:
            if not lent.is_refused(error):
                # Whatever it still says is not for the next user of it.
                lent.connection.close()
                raise CommitUnknown(self._transaction) from error
            raise self._learn(self._why(error)) from error
        while committed.nextset():
            pass
        # An aborted transaction answers COMMIT with ROLLBACK, and psycopg does not tell.
        if committed.statusmessage != "COMMIT":
            raise RolledBack

    def _why(self, error: psycopg.Error) -> GuardError:
        """What a commit that did not happen was refused for."""
        aborted = code(error) == "25P02"
        told = translated(error) or RolledBack()
        if aborted and self._lent.end():
            # The statement that failed told its own caller; ask whether it was for a grant refused.
            try:
                self._lent.send(_checks(self._grants))
            except psycopg.Error as refused:
                told = refusal(refused) or told
            self._lent.end()
        return told


class _Lent:
    """A connection that is given back in no transaction and with nothing of ours, or is closed."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._autocommit = False

    def __enter__(self) -> _Lent:
        connection = self.connection
        status = connection.info.transaction_status
        if status is not TransactionStatus.IDLE:
            raise Misuse(f"the connection must be open and in no transaction, and it is {status.name}")
        if connection.info.pipeline_status is not PipelineStatus.OFF:
            raise Misuse("the connection must not be in pipeline mode")
        # BEGIN is ours: it goes with the check of the grant.
        self._autocommit = connection.autocommit
        connection.autocommit = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.end():
            self.connection.autocommit = self._autocommit

    def leaving(self) -> AbstractContextManager[Any]:
        """Only the end of the block."""
        return _Leaving(self)

    def send(self, message: sql.SQL | sql.Composed) -> psycopg.Cursor[tuple[Any, ...]]:
        """Sends statements as one message, which is never prepared: a pooler may sit between."""
        cursor = psycopg.Cursor(self.connection, row_factory=tuple_row)
        return cursor.execute(message, prepare=False)

    def is_refused(self, error: psycopg.Error) -> bool:
        """Whether the server has refused the statement in a session that lives on.

        Whatever ends the session says nothing about the statement: a pooler, for one, sends FATAL for a server that it
        has lost.
        """
        severity = error.diag.severity_nonlocalized or error.diag.severity
        return code(error) is not None and severity not in ("FATAL", "PANIC") and not self.connection.closed

    def end(self) -> bool:
        """Leaves the transaction, whatever its state; else closes the connection. Whether it is usable."""
        connection = self.connection
        try:
            if connection.info.transaction_status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
                self.send(sql.SQL("ROLLBACK"))
        except psycopg.Error:
            pass
        finally:
            # Also where an interrupt came in between.
            usable = connection.info.transaction_status is TransactionStatus.IDLE
            if not usable:
                connection.close()
        return usable


class _Leaving(AbstractContextManager[None]):
    def __init__(self, lent: _Lent) -> None:
        self._lent = lent

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lent.__exit__(kind, error, trace)


def _sealed(connection: Connection, given: Grant | Lease | Sealed) -> Sealed:
    if isinstance(given, Lease):
        given = given.grant
    if isinstance(given, Sealed):
        return given
    with _memory:
        known = given.sealed.get(_database(connection))
    return cast("Sealed", known) if known is not None else seal(connection, given)


def _database(connection: Connection) -> tuple[str, int, str]:
    info = connection.info
    return (info.host, info.port, info.dbname)


def _is_final(error: BaseException, grant: Grant) -> bool:
    if getattr(error, "resource", None) != grant.resource:
        return False
    return isinstance(error, Stale | Unsealed | Collision)


def _arguments(grant: Grant) -> sql.Composed:
    return sql.SQL("{}, {}, {}").format(
        sql.Literal(grant.resource), sql.Literal(grant.token), sql.Literal(grant.holder)
    )


def _begin(isolation: Isolation, grants: Sequence[Grant]) -> sql.Composed:
    if len(grants) == 1:
        entered, source = _arguments(grants[0]), sql.Composed([])
    else:
        # In the order of the locks: against waiting seals, any other order stalls for deadlock_timeout.
        entered = sql.Composed([sql.SQL("e.resource, e.token, e.holder")])
        source = sql.SQL(
            " FROM (SELECT * FROM (VALUES {}) AS v (resource, token, holder)"
            " ORDER BY palisade.stripe(resource), resource) AS e"
        ).format(_rows(grants))
    enter = sql.SQL("SELECT palisade.enter({}), pg_catalog.pg_current_xact_id()::text::bigint{}")
    return sql.Composed([_BEGIN[isolation], enter.format(entered, source)])


def _commit(grants: Sequence[Grant]) -> sql.Composed:
    """Check and COMMIT: that the check has entered at BEGIN shows whether the transaction was ended by hand."""
    if len(grants) == 1:
        return sql.SQL("SELECT palisade.check({}, true); COMMIT").format(_arguments(grants[0]))
    return sql.SQL(
        "SELECT palisade.check(g.resource, g.token, g.holder, true)"
        " FROM (VALUES {}) AS g (resource, token, holder); COMMIT"
    ).format(_rows(grants))


def _rows(grants: Sequence[Grant]) -> sql.Composed:
    return sql.SQL(", ").join(sql.SQL("({})").format(_arguments(grant)) for grant in grants)


def _checks(grants: Sequence[Grant]) -> sql.Composed:
    return sql.SQL("; ").join(sql.SQL("SELECT palisade.check({})").format(_arguments(grant)) for grant in grants)


def _last_row(cursor: psycopg.Cursor[tuple[Any, ...]]) -> int:
    """The transaction's id, out of the answer to BEGIN and what went with it."""
    while cursor.nextset():
        pass
    row = cursor.fetchone()
    if row is None:
        raise Misuse("the schema palisade of this database is not of this version")
    return int(row[1])


def _blockers(lent: _Lent, resource: str) -> tuple[str, ...]:
    rows = lent.send(
        sql.SQL("SELECT coalesce(pid::text, gid), application FROM palisade.blockers({})").format(sql.Literal(resource))
    ).fetchall()
    return tuple(f"{who} ({name})" if name else str(who) for who, name in rows)
