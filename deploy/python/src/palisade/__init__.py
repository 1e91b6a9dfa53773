"""Leases with fencing tokens from Palisade's coordinators.

    import palisade
    from palisade.guard import guard, seal

    with palisade.Client("http://127.0.0.1:7650") as client:
        with client.lease("orders", wait=60) as lease:
            seal(connection, lease.grant)                      # before the first read
            with guard(connection, lease.grant) as tx:         # refused if somebody took over
                tx.execute("UPDATE orders SET state = 'paid' WHERE id = %s", (7,))

The lease keeps most stale work from being tried. The guard, where the data is, is the safety.
"""

from .client import Client
from .endpoints import Tls
from .errors import (
    AlreadyHeld,
    Cancelled,
    Cause,
    Collision,
    CommitUnknown,
    Denied,
    FenceAhead,
    Forked,
    GuardError,
    Held,
    Invalid,
    LimitReached,
    Lost,
    Misuse,
    NotServed,
    PalisadeError,
    RolledBack,
    SealTimeout,
    Serialization,
    Stale,
    StaleToken,
    Unavailable,
    Uncertain,
    Unexpected,
    Unguarded,
    Unsealed,
    WaitExpired,
)
from .hold import Grant
from .lease import Lease, Session
from .standing import LostReason, State

__all__ = [
    "AlreadyHeld",
    "Cancelled",
    "Cause",
    "Client",
    "Collision",
    "CommitUnknown",
    "Denied",
    "FenceAhead",
    "Forked",
    "Grant",
    "GuardError",
    "Held",
    "Invalid",
    "Lease",
    "LimitReached",
    "Lost",
    "LostReason",
    "Misuse",
    "NotServed",
    "PalisadeError",
    "RolledBack",
    "SealTimeout",
    "Serialization",
    "Session",
    "Stale",
    "StaleToken",
    "State",
    "Tls",
    "Unavailable",
    "Uncertain",
    "Unexpected",
    "Unguarded",
    "Unsealed",
    "WaitExpired",
]
