"""What PostgreSQL's errors mean here. Decided by SQLSTATE and severity only."""

from __future__ import annotations

import json
from typing import Any

import psycopg

from .errors import Collision, GuardError, RolledBack, Serialization, Stale, Unguarded, Unsealed


def code(error: psycopg.Error) -> str | None:
    """The SQLSTATE, where the server sent one."""
    return error.diag.sqlstate


def refusal(error: psycopg.Error) -> GuardError | None:
    """A refusal of the guard, with both tokens."""
    sqlstate = code(error)
    if sqlstate not in ("ZF001", "ZF002", "ZF003", "ZF004"):
        return None
    facts = _facts(error)
    resource, presented, fence = str(facts.get("resource")), facts.get("presented"), facts.get("fence")
    match sqlstate:
        case "ZF001":
            return Stale(resource, int(presented or 0), int(fence or 0))
        case "ZF002":
            return Unsealed(resource, int(presented or 0), fence)
        case "ZF003":
            return Unguarded(resource, error.diag.table_name or None)
    return Collision(resource, int(presented or 0))


def translated(error: psycopg.Error) -> GuardError | None:
    """As `refusal`, and what else is to be told of a transaction."""
    told = refusal(error)
    if told is not None:
        return told
    match code(error):
        # serialization_failure, deadlock_detected
        case "40001" | "40P01":
            return Serialization()
        # in_failed_sql_transaction: what failed before was told before.
        case "25P02":
            return RolledBack()
    return None


def _facts(error: psycopg.Error) -> dict[str, Any]:
    try:
        facts = json.loads(error.diag.message_detail or "")
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}
