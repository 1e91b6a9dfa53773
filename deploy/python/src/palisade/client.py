"""The way to the coordinators."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from .calls import Shared
from .clock import Clock, SystemClock, nanoseconds
from .endpoints import Endpoints, Tls, split
from .errors import Forked, Invalid
from .lease import Asked, Lease, OnLost, Session, acquired
from .session import DEFAULT_DRIFT_PPM, opened

DEFAULT_ADDR = "http://127.0.0.1:7650"
DEFAULT_CALL_TIMEOUT = 5.0
"""Seconds that one try of a call may take: longer than an etcd election."""
DEFAULT_OPERATION_TIMEOUT = 15.0
"""Seconds that a call is tried: as long as the default TTL."""


class Client:
    """A client of one or more coordinators of one store. It may be used by any number of threads.

    Any coordinator serves any session, so a call that one does not answer is tried at the next; one that fails is left
    out for a while. It connects with the first call, and belongs to the process that made it: after a fork the child
    makes its own.
    """

    def __init__(
        self,
        addr: str | Sequence[str] | None = None,
        *,
        tls: Tls | None = None,
        token: str | Callable[[], str] | None = None,
        call_timeout: float = DEFAULT_CALL_TIMEOUT,
        operation_timeout: float = DEFAULT_OPERATION_TIMEOUT,
        clock: Clock | None = None,
    ) -> None:
        """`addr` is `http://HOST:PORT` or `https://HOST:PORT`, or several of them.

        What is not given is taken from the environment, as the command line takes it: `PALISADE_ADDR`,
        `PALISADE_CA_FILE`, `PALISADE_CERT_FILE`, `PALISADE_KEY_FILE`, `PALISADE_TOKEN_FILE`. `token` is sent with each
        call as `authorization: Bearer TOKEN`; a function is asked for it each time. Raises `Invalid`.
        """
        for name, given in (("call_timeout", call_timeout), ("operation_timeout", operation_timeout)):
            if not given > 0:
                raise Invalid(name, "above 0", str(given))
        clock = clock or SystemClock()
        addresses = split(addr if addr is not None else os.environ.get("PALISADE_ADDR") or DEFAULT_ADDR)
        self._endpoints = Endpoints(addresses, tls or _tls_of_environment(), clock)
        bearer = _bearer(token)
        limits = nanoseconds(call_timeout), nanoseconds(operation_timeout)
        self._shared = Shared(self._endpoints, clock, bearer, *limits)

    def session(
        self,
        *,
        ttl: float = 0,
        label: str = "",
        drift_ppm: int = DEFAULT_DRIFT_PPM,
        margin: float | None = None,
    ) -> Session:
        """Opens a session; for use in a `with`, which closes it.

        `ttl` is how many seconds it lives without a renewal, the coordinator's default (15 s) unless given. `label` is
        a name for people, of at most 128 bytes. `drift_ppm` is by how many millionths the clocks here and there may run
        apart (1 %), and `margin` how many seconds before the end of the TTL, besides, the local deadline lies: the
        larger of 0.25 s and a tenth of the TTL. Raises `Invalid`, `LimitReached`, `Denied`, `Unavailable`.
        """
        return Session(opened(self._shared, ttl=ttl, label=label, drift_ppm=drift_ppm, margin=margin))

    def lease(
        self,
        resource: str,
        *,
        wait: float = 0,
        ttl: float = 0,
        label: str = "",
        metadata: bytes = b"",
        lock_delay: float = 0,
        drift_ppm: int = DEFAULT_DRIFT_PPM,
        margin: float | None = None,
        on_lost: OnLost | None = None,
    ) -> Lease:
        """Acquires a resource in a session of its own, which ends with the lease; for use in a `with`.

            with client.lease("orders/eu-1", wait=60) as lease:
                ...

        The arguments and errors are those of `session` and of `Session.lease`.
        """
        asked = Asked(resource, wait, metadata, lock_delay)
        owner = opened(self._shared, ttl=ttl, label=label, drift_ppm=drift_ppm, margin=margin)
        try:
            return Lease(owner, acquired(owner.core, asked, on_lost), owns_session=True)
        except BaseException:
            # Also what was granted without anybody knowing ends with the session.
            owner.core.close_soon()
            raise

    def close(self) -> None:
        """Closes the connections. Sessions that are open end by their TTL."""
        if self._shared.forked:
            raise Forked
        self._endpoints.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._shared.forked:
            self.close()


def _bearer(token: str | Callable[[], str] | None) -> Callable[[], str | None]:
    if callable(token):
        return token
    file = os.environ.get("PALISADE_TOKEN_FILE")
    if token is None and file:
        # Read each time: tokens are renewed.
        return lambda: Path(file).read_text(encoding="ascii").strip()
    return lambda: token


def _tls_of_environment() -> Tls | None:
    names = ("PALISADE_CA_FILE", "PALISADE_CERT_FILE", "PALISADE_KEY_FILE")
    ca, cert, key = (Path(file).read_bytes() if file else None for file in map(os.environ.get, names))
    return Tls(ca, cert, key) if ca or cert or key else None
