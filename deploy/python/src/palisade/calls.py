"""How a call is tried until it is answered: over the endpoints, for as long as it may take."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import grpc
from google.protobuf.message import Message

from .clock import SECOND, SLICE, Clock
from .credentials import Epochs, jittered
from .endpoints import CONNECT_LIMIT, Endpoints
from .errors import Forked, Invalid, PalisadeError, Uncertain
from .status import Failure, Verdict, failure_of, no_answer, unreachable
from .v1 import lease_service_pb2 as messages

log = logging.getLogger("palisade")

FIRST_PAUSE = SECOND // 20
"""The pause before the first retry, doubled with each further one..."""
LONGEST_PAUSE = SECOND
"""...up to this, so that a coordinator that is back is found soon."""
TIMEOUT_SLACK = SECOND // 2
"""How much later than this process the coordinator stops serving a try: the clock here decides."""
MAX_BEARER_BYTES = 4096
"""The longest bearer token: coordinators take headers of 16 KiB at most."""

AnswerT = TypeVar("AnswerT", bound=Message)


@dataclass(frozen=True)
class Method(Generic[AnswerT]):
    """A unary call of the service."""

    path: str
    answer: type[AnswerT]


def _method(name: str, answer: type[AnswerT]) -> Method[AnswerT]:
    return Method(f"/palisade.v1.LeaseService/{name}", answer)


OPEN_SESSION = _method("OpenSession", messages.OpenSessionResponse)
RENEW_SESSION = _method("RenewSession", messages.RenewSessionResponse)
CLOSE_SESSION = _method("CloseSession", messages.CloseSessionResponse)
ACQUIRE = _method("Acquire", messages.AcquireResponse)
RELEASE = _method("Release", messages.ReleaseResponse)
CHECK_TOKEN = _method("CheckToken", messages.CheckTokenResponse)


@dataclass(frozen=True)
class Answer(Generic[AnswerT]):
    """An answer, and when its call had been sent: what the answer says of time counts from there."""

    sent: int
    body: AnswerT


@dataclass(frozen=True)
class Try:
    """The numbers of one try."""

    attempt: int
    """1 for the first; larger where an earlier one's outcome is unknown."""
    epoch: int
    """The session's epoch that this try carries."""


Watch = Callable[[], None]
"""Looked at while a call runs; what it raises ends the wait."""


def unwatched() -> None:
    """Nothing ends the wait but its limit."""


class Shared:
    """What all of a client's sessions and calls share."""

    def __init__(
        self,
        endpoints: Endpoints,
        clock: Clock,
        bearer: Callable[[], str | None],
        call_timeout: int,
        operation_timeout: int,
    ) -> None:
        self.endpoints = endpoints
        self.clock = clock
        self.call_timeout = call_timeout
        """How long one try may take."""
        self.operation_timeout = operation_timeout
        """How long a call may be tried."""
        self._bearer = bearer
        self._pid = os.getpid()

    @property
    def forked(self) -> bool:
        """Whether this is a child of the process that made the client."""
        return os.getpid() != self._pid

    def until(self, event: threading.Event, limit: int, watch: Watch) -> bool:
        """Waits for an event, and looks at `watch` meanwhile; whether the event is set."""
        end = self.clock.now() + limit
        while not event.is_set():
            watch()
            left = end - self.clock.now()
            if left <= 0:
                return False
            self.clock.wait(event, min(left, SLICE))
        return True

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        token = self._bearer()
        if token is None:
            return ()
        if not 1 <= len(token) <= MAX_BEARER_BYTES or not all("!" <= letter <= "~" for letter in token):
            raise Invalid("token", f"1 to {MAX_BEARER_BYTES} visible ASCII characters", f"{len(token)} characters")
        return (("authorization", f"Bearer {token}"),)

    def try_once(
        self, method: Method[AnswerT], asked: Message, limit: int, *, at_fault: bool = True, watch: Watch = unwatched
    ) -> Answer[AnswerT]:
        """One try over one endpoint. `at_fault` says whether no answer within `limit` is held against it.

        Raises `Failure`.
        """
        if self.forked:
            raise Forked
        metadata = self._metadata()
        endpoint, connection = self.endpoints.pick()
        begun = self.clock.now()
        if not connection.connect(lambda decided: self.until(decided, min(limit, CONNECT_LIMIT), watch)):
            self.endpoints.failed(endpoint, connection)
            raise unreachable()
        limit = max(limit - (self.clock.now() - begun), 1)
        done = threading.Event()
        timeout = (limit + TIMEOUT_SLACK) / SECOND
        sent = self.clock.now()
        call: Any = connection.call(method.path, method.answer).future(asked, timeout=timeout, metadata=metadata)
        call.add_done_callback(lambda _: done.set())
        try:
            answered = self.until(done, limit, watch)
        finally:
            # An interrupt, or news that end the wait: nobody wants the answer any more.
            if not done.is_set():
                call.cancel()
        failure = failed(call) if answered else no_answer(at_fault=at_fault)
        if failure is None:
            self.endpoints.succeeded(endpoint)
            return Answer(sent, call.result())
        timed_out = answered and call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        if failure.at_fault and (at_fault or not timed_out):
            self.endpoints.failed(endpoint, connection)
        raise failure

    def call(self, method: Method[AnswerT], tries: Tries, message: Callable[[Try], Message]) -> Answer[AnswerT]:
        """A call tried until it is answered or the operation's time is over. Raises `PalisadeError`."""
        deadline = self.clock.now() + self.operation_timeout
        while True:
            limit = min(max(deadline - self.clock.now(), 1), self.call_timeout)
            try:
                return self.try_once(method, message(tries.next_try()), limit)
            except Failure as failure:
                tries.after(failure, deadline)


def failed(call: Any) -> Failure | None:
    """What a call that is over failed with, if it did."""
    if call.cancelled():
        return no_answer(at_fault=True)
    return None if call.exception() is None else failure_of(call)


class Tries:
    """One call over its tries. `above` is an epoch that already the first must be above."""

    def __init__(self, shared: Shared, epochs: Epochs, above: int = 0) -> None:
        self._shared = shared
        self._epochs = epochs
        self._above = above
        self._last = Try(1, 0)
        self._failures = 0
        self.may_have_happened = False
        """Whether an earlier try's outcome is unknown."""

    def next_try(self) -> Try:
        """The numbers of the next try, to be sent at once: retries overtake each other as little as can be."""
        attempt = self._last.attempt
        epoch = self._epochs.raised() if attempt > 1 else max(self._epochs.above(self._above), self._epochs.current)
        self._last = Try(attempt, epoch)
        return self._last

    def go_on(self) -> None:
        """The call goes on waiting: not a failure, but a copy of its last try may still be under way."""
        self.may_have_happened = True
        self._failures = 0
        self._last = Try(self._last.attempt + 1, self._last.epoch)

    def after(self, failure: Failure, deadline: int, watch: Watch = unwatched) -> None:
        """Learns from a failure, and pauses before a retry; raises its error where there is to be none."""
        if failure.verdict is Verdict.EPOCH_STALE:
            self._epochs.after_stale(self._last.epoch, failure.stored_epoch)
        if failure.verdict is not Verdict.FINAL:
            if failure.may_have_happened:
                self.may_have_happened = True
                self._last = Try(self._last.attempt + 1, self._last.epoch)
            pause = jittered(min(FIRST_PAUSE << min(self._failures, 10), LONGEST_PAUSE), 500)
            self._failures += 1
            if deadline - self._shared.clock.now() > pause:
                log.debug("trying again after %s", failure.error)
                self._shared.until(threading.Event(), pause, watch)
                return
        raise self._told(failure.error) from None

    def _told(self, error: PalisadeError) -> PalisadeError:
        """The error, which tells of the earlier tries, too, where it can tell of anything."""
        if self.may_have_happened and isinstance(error, Uncertain):
            error.may_have_happened = True
        return error
