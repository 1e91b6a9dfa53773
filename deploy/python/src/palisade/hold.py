"""One hold of a resource, as the session that has it knows it."""

from __future__ import annotations

import contextlib
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

    def lose(self, reason: LostReason) -> None:
        """It is over. The first reason stays, and is told once."""
        with self._lock:
            if self.reason is None:
                self.reason = reason
            elif self.lost.is_set():
                return
            self.lost.set()
        if self._on_lost is not None and self.reason not in (LostReason.RELEASED, LostReason.CLOSED):
            # In a thread of its own: what it does must not keep the session from being renewed.
            call = threading.Thread(target=self._on_lost, args=(self.reason,), name="palisade-lost", daemon=True)
            # Where the interpreter is ending there are no new threads.
            with contextlib.suppress(RuntimeError):
                call.start()
