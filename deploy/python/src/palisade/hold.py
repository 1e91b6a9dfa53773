"""One hold of a resource, as the session that has it knows it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .standing import LostReason


@dataclass(frozen=True)
class Grant:
    """What a client shows a guard: resource, token, and the id of this one hold (32 hexadecimal digits)."""

    resource: str
    token: int
    holder: str
    # Where `palisade.guard` remembers what it has sealed with this grant.
    sealed: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)


class Hold:
    """A lease as its session knows it; it refers to no handle, so that one that is dropped is noticed."""

    def __init__(
        self, grant: Grant, request_id: str, granted_revision: int, on_lost: Callable[[LostReason], object] | None
    ) -> None:
        self.grant = grant
        self.request_id = request_id
        self.granted_revision = granted_revision
        self.lost = threading.Event()
        self.reason: LostReason | None = None
        self._on_lost = on_lost
        self._lock = threading.RLock()

    def lose(self, reason: LostReason) -> bool:
        """It is over. The first reason stays; whether this was the first."""
        with self._lock:
            if self.reason is not None:
                return False
            self.reason = reason
        self.lost.set()
        if self._on_lost is not None and reason not in (LostReason.RELEASED, LostReason.CLOSED):
            # In a thread of its own: what it does must not keep the session from being renewed.
            threading.Thread(target=self._on_lost, args=(reason,), name="palisade-lost", daemon=True).start()
        return True
