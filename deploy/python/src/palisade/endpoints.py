"""The coordinators' addresses: each with its own connection, the failing ones left out for a while."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import grpc
from google.protobuf.message import Message

from .clock import SECOND, Clock
from .credentials import jittered
from .errors import Invalid

MAX_ENDPOINTS = 16
"""More endpoints than any deployment has coordinators; each costs a connection."""
CONNECT_LIMIT = 3 * SECOND
"""How long a new connection may take, TLS included."""
FIRST_EJECTION = SECOND // 5
"""An endpoint that failed is left out for this long, doubled with each further failure..."""
LONGEST_EJECTION = 10 * SECOND
"""...up to this."""

_OPTIONS = (
    # gRPC would send calls again by itself: copies that carry the same attempt and epoch are what makes an acquire
    # no longer idempotent.
    ("grpc.enable_retries", 0),
    # Channels to one address would share a connection, and with it a broken one.
    ("grpc.use_local_subchannel_pool", 1),
    # Coordinators are reached directly, whatever http_proxy says of the web.
    ("grpc.enable_http_proxy", 0),
    # A broken link is noticed also under a call that waits long.
    ("grpc.keepalive_time_ms", 5000),
    ("grpc.keepalive_timeout_ms", 5000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", 8 << 20),
)


@dataclass(frozen=True)
class Tls:
    """How TLS is spoken with `https` endpoints, as PEM: whom to trust (the machine's roots unless given), and what to
    show."""

    ca: bytes | None = None
    cert: bytes | None = None
    key: bytes | None = None

    def __repr__(self) -> str:
        return "Tls(..)"


class Connection:
    """One connection of an endpoint; given up as a whole when a call on it fails."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel
        self.ready = False
        self._calls: dict[str, grpc.UnaryUnaryMultiCallable[Any, Any]] = {}

    def call(self, path: str, answer: type[Message]) -> grpc.UnaryUnaryMultiCallable[Any, Any]:
        made = self._calls.get(path)
        if made is None:
            made = self.channel.unary_unary(
                path,
                request_serializer=lambda asked: asked.SerializeToString(),
                response_deserializer=answer.FromString,
            )
            self._calls[path] = made
        return made

    def connect(self, wait: Callable[[threading.Event], object]) -> bool:
        """Whether there is a connection before `wait` is over. Until then nothing was sent."""
        if self.ready:
            return True
        decided = threading.Event()

        def changed(state: grpc.ChannelConnectivity) -> None:
            if state is grpc.ChannelConnectivity.READY:
                self.ready = True
            if state not in (grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.CONNECTING):
                decided.set()

        self.channel.subscribe(changed, try_to_connect=True)
        try:
            wait(decided)
        finally:
            self.channel.unsubscribe(changed)
        return self.ready


class Endpoint:
    """One coordinator's address, and how it fares."""

    def __init__(self, address: str, tls: Tls | None) -> None:
        self.address = address
        parts = urlsplit(address)
        try:
            good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port is not None
        except ValueError:
            good = False
        if not good or parts.path not in ("", "/") or parts.query or parts.username:
            raise Invalid("addr", "http://HOST:PORT or https://HOST:PORT", address)
        self._target = parts.netloc
        self._credentials: grpc.ChannelCredentials | None = None
        if parts.scheme == "https":
            tls = tls or Tls()
            self._credentials = grpc.ssl_channel_credentials(tls.ca, tls.key, tls.cert)
        self.connection: Connection | None = None
        self.failures = 0
        self.ejected_until = 0

    def connected(self) -> Connection:
        if self.connection is None:
            if self._credentials is None:
                channel = grpc.insecure_channel(self._target, options=_OPTIONS)
            else:
                channel = grpc.secure_channel(self._target, self._credentials, options=_OPTIONS)
            self.connection = Connection(channel)
        return self.connection


class Endpoints:
    """All of a client's endpoints. Which one is used goes by how they fared."""

    def __init__(self, addresses: Sequence[str], tls: Tls | None, clock: Clock) -> None:
        if not 1 <= len(addresses) <= MAX_ENDPOINTS:
            raise Invalid("addr", f"1 to {MAX_ENDPOINTS} addresses", str(len(addresses)))
        self._all = [Endpoint(address, tls) for address in addresses]
        # Many clients with one list of endpoints shall not all begin with the same.
        self._preferred = secrets.randbelow(len(self._all))
        self._clock = clock
        self._lock = threading.RLock()
        self._closed = False

    def pick(self) -> tuple[Endpoint, Connection]:
        """The endpoint used last, unless it is ejected: then the next that is not, then the one whose ejection ends
        first."""
        with self._lock:
            if self._closed:
                raise Invalid("client", "one that is open", "closed")
            now = self._clock.now()
            count = len(self._all)
            order = [(self._preferred + step) % count for step in range(count)]
            self._preferred = min(order, key=lambda index: max(self._all[index].ejected_until, now))
            endpoint = self._all[self._preferred]
            return endpoint, endpoint.connected()

    def succeeded(self, endpoint: Endpoint) -> None:
        endpoint.failures, endpoint.ejected_until = 0, 0

    def failed(self, endpoint: Endpoint, used: Connection) -> None:
        """Leaves the endpoint out for a while and gives up the connection that was used.

        Calls that still run on it are not disturbed: it is closed when the last of them is over.
        """
        with self._lock:
            # Of many calls on one connection the first that fails counts.
            if endpoint.connection is not used:
                return
            endpoint.connection = None
            pause = jittered(min(FIRST_EJECTION << min(endpoint.failures, 6), LONGEST_EJECTION), 500)
            endpoint.failures += 1
            endpoint.ejected_until = self._clock.now() + pause
            if self._all[self._preferred] is endpoint:
                self._preferred = (self._preferred + 1) % len(self._all)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for endpoint in self._all:
                if endpoint.connection is not None:
                    endpoint.connection.channel.close()
                    endpoint.connection = None


Addresses = str | Sequence[str]


def split(addr: Addresses) -> list[str]:
    """Addresses as a list, or as one text with commas between."""
    parts = addr.split(",") if isinstance(addr, str) else addr
    return [part.strip() for part in parts if part.strip()]
