"""A coordinator of a few lines, and a clock that stands still: what tests need to meet every answer there is."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from palisade.v1 import lease_service_pb2 as messages

LIMIT = 30
TTL_MS = 15_000

REQUESTS: dict[str, type[Message]] = {
    name: getattr(messages, f"{name}Request")
    for name in ("OpenSession", "RenewSession", "CloseSession", "Acquire", "Release", "CheckToken")
}


class Refuse(Exception):
    """An answer that is an error, as a coordinator makes it; without a reason, as a proxy does."""

    def __init__(self, code: grpc.StatusCode, reason: str = "", **metadata: str) -> None:
        super().__init__(code, reason)
        self.code = code
        detail = AnyMessage()
        detail.Pack(error_details_pb2.ErrorInfo(domain="palisade", reason=reason, metadata=metadata))
        status = status_pb2.Status(code=code.value[0], details=[detail] if reason else [])
        self.details = status.SerializeToString()


UNAVAILABLE = Refuse(grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE", mayHaveHappened="true")
NOT_DONE = Refuse(grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE", mayHaveHappened="false")


class FakeCoordinator:
    """Answers as it is told, then as if all went well; and remembers what it was asked."""

    def __init__(self, ttl_ms: int = TTL_MS) -> None:
        self.ttl_ms = ttl_ms
        self.asked: dict[str, list[Any]] = defaultdict(list)
        self.told: dict[str, list[Refuse | Callable[[Any], Message]]] = defaultdict(list)
        self.always: dict[str, Refuse | Callable[[Any], Message]] = {}
        self.changed = threading.Condition()
        self.opened = threading.Event()
        self._server = grpc.server(ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
        self._server.add_generic_rpc_handlers((_Handlers(self),))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    @property
    def addr(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def tell(self, method: str, *answers: Refuse | Callable[[Any], Message]) -> None:
        self.told[method].extend(answers)

    def stop(self) -> None:
        self._server.stop(0).wait(LIMIT)

    def wait_for(self, method: str, count: int) -> list[Any]:
        """What was asked, once that is so many calls."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.asked[method]) >= count, LIMIT), self.asked
            return list(self.asked[method])

    def answer(self, method: str, asked: Any) -> Message:
        with self.changed:
            self.asked[method].append(asked)
            told = self.told[method].pop(0) if self.told[method] else self.always.get(method, good(method, self.ttl_ms))
            self.changed.notify_all()
        if isinstance(told, Refuse):
            raise told
        return told(asked)


class _Handlers(grpc.GenericRpcHandler):
    def __init__(self, coordinator: FakeCoordinator) -> None:
        self._coordinator = coordinator

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        method = details.method.rsplit("/", 1)[1]

        def serve(asked: Any, context: grpc.ServicerContext) -> Message:
            try:
                return self._coordinator.answer(method, asked)
            except Refuse as refused:
                context.set_trailing_metadata((("grpc-status-details-bin", refused.details),))
                context.abort(refused.code, "as told")
                raise AssertionError from None

        return grpc.unary_unary_rpc_method_handler(
            serve,
            request_deserializer=REQUESTS[method].FromString,
            response_serializer=lambda answer: answer.SerializeToString(),
        )


def good(method: str, ttl_ms: int = TTL_MS) -> Callable[[Any], Message]:
    """The answer where all goes well."""

    def answer(asked: Any) -> Message:
        match method:
            case "OpenSession":
                return messages.OpenSessionResponse(
                    session_id="0123456789abcdef", ttl_ms=asked.opening.ttl_ms or ttl_ms, ttl_left_ms=ttl_ms
                )
            case "RenewSession":
                return messages.RenewSessionResponse(ttl_ms=ttl_ms, ttl_left_ms=ttl_ms)
            case "Acquire":
                return granted(asked)
            case "CheckToken":
                return messages.CheckTokenResponse(
                    state=messages.TOKEN_STATE_CURRENT, current_token=asked.token, revision=10
                )
            case "Release":
                return messages.ReleaseResponse(outcome="RELEASE_OUTCOME_RELEASED")
        return messages.CloseSessionResponse()

    return answer


def granted(asked: Any) -> messages.AcquireResponse:
    answer = messages.AcquireResponse(session_id=asked.session.session_id, ttl_left_ms=TTL_MS)
    answer.lease.resource, answer.lease.request_id = asked.resource, asked.request_id
    answer.lease.token, answer.lease.holder, answer.lease.granted_revision = 42, b"\x0a" * 16, 7
    return answer


class FakeClock:
    """Stands still until it is moved. Waits end when it has moved far enough, or the event comes."""

    def __init__(self) -> None:
        self._now = 10**12
        self._lock = threading.Lock()

    def now(self) -> int:
        with self._lock:
            return self._now

    def advance(self, seconds: float) -> None:
        with self._lock:
            self._now += round(seconds * 1e9)

    def wait(self, event: threading.Event, limit: int) -> bool:
        end, hung = self.now() + limit, time.monotonic() + LIMIT
        while not event.wait(0.002):
            if self.now() >= end or time.monotonic() > hung:
                return event.is_set()
        return True


class QuickClock(FakeClock):
    """Moves by itself, ten times as fast as time."""

    def now(self) -> int:
        return super().now() + 10 * time.monotonic_ns()


@contextmanager
def eventually(what: str) -> Iterator[Callable[[bool], bool]]:
    """`while not done(condition): ...`, for a while."""
    end = time.monotonic() + LIMIT

    def done(condition: bool) -> bool:
        assert condition or time.monotonic() < end, f"{what}: not within {LIMIT} s"
        if not condition:
            time.sleep(0.01)
        return condition

    yield done
