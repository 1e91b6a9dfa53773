"""What proves that a call is its session's own, and the numbers that tell its retries from delayed copies."""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass, field

from .v1.session_pb2 import SessionRef

_SECRET_BYTES = 32
_ID_BYTES = 16


def new_id() -> str:
    """An id that was never made before, in hexadecimal."""
    return secrets.token_hex(_ID_BYTES)


def new_secret() -> bytes:
    """Bytes that nobody can guess."""
    return secrets.token_bytes(_SECRET_BYTES)


def jittered(whole: int, share_permille: int) -> int:
    """A duration between `share_permille` of `whole` and all of it, so that many clients do not act at once."""
    least = whole * share_permille // 1000
    return least + secrets.randbelow(whole - least + 1)


@dataclass(frozen=True)
class Credentials:
    """A session's id and secret. The secret is in this process's memory only, and never printed."""

    session_id: str
    secret: bytes = field(repr=False)

    def at(self, epoch: int) -> SessionRef:
        return SessionRef(session_id=self.session_id, secret=self.secret, epoch=epoch)


class Epochs:
    """A session's epochs: chosen by the client, only ever raised.

    A try whose outcome is unknown is followed by one with an epoch of its own, which shuts out delayed copies of the
    first (I4). Calls that are no retries share the present one.
    """

    def __init__(self, epoch: int = 1) -> None:
        self._epoch = epoch
        self._lock = threading.RLock()

    @property
    def current(self) -> int:
        """The epoch for a call that is no retry."""
        with self._lock:
            return self._epoch

    def raised(self) -> int:
        """An epoch that no call had before: for a retry."""
        with self._lock:
            self._epoch += 1
            return self._epoch

    def above(self, used: int) -> int:
        """An epoch larger than `used`: the present one if it is, else a new one."""
        with self._lock:
            self._epoch = max(self._epoch, used + 1)
            return self._epoch

    def after_stale(self, used: int, stored: int) -> int:
        """The epoch after a call that carried `used` was refused because `stored` is above it.

        Where this client itself has gone that far meanwhile, its present epoch will do.
        """
        with self._lock:
            if self._epoch > used and self._epoch >= stored:
                return self._epoch
            return self.above(max(used, stored))
