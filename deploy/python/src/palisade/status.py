"""Where a coordinator's answer becomes an error: by code and `ErrorInfo.reason`, never by its text."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from .errors import (
    AlreadyHeld,
    Cancelled,
    Cause,
    Denied,
    FenceAhead,
    Held,
    Invalid,
    LimitReached,
    Lost,
    NotServed,
    PalisadeError,
    StaleToken,
    Unavailable,
    Unexpected,
    WaitExpired,
)
from .standing import LostReason

DOMAIN = "palisade"
"""The domain of every `ErrorInfo` that a coordinator makes."""

_DETAILS = "grpc-status-details-bin"


class Verdict(enum.Enum):
    """How a try that failed goes on."""

    NOT_DONE = "try again: nothing was done"
    UNKNOWN = "try again, as a retry: it may have been done"
    EPOCH_STALE = "try again above the stored epoch: nothing was done"
    FINAL = "this is the answer"


class Failure(Exception):
    """What one try of a call came to, if not to an answer."""

    def __init__(self, error: PalisadeError, verdict: Verdict, *, at_fault: bool, stored_epoch: int = 0) -> None:
        super().__init__(error)
        self.error = error
        self.verdict = verdict
        self.at_fault = at_fault
        """Another endpoint may do better."""
        self.stored_epoch = stored_epoch
        self.may_have_happened = error.may_have_happened or verdict is Verdict.UNKNOWN

    @property
    def is_no_answer(self) -> bool:
        """Whether the try came to nothing that anybody said."""
        return isinstance(self.error, Unavailable) and self.error.cause is Cause.NO_ANSWER


@dataclass(frozen=True)
class Facts:
    """What came with an error."""

    reason: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    retry_after: float | None = None

    def text(self, key: str) -> str:
        return self.metadata.get(key, "")

    def token(self, key: str) -> int | None:
        text = self.text(key)
        return int(text) if text.isdecimal() and int(text) > 0 else None

    def may_have_happened(self, unsaid: bool) -> bool:
        """What the coordinator said of it, or `unsaid`."""
        return {"true": True, "false": False}.get(self.text("mayHaveHappened"), unsaid)


def unreachable() -> Failure:
    """Nothing was sent."""
    return Failure(Unavailable(Cause.UNREACHABLE, False), Verdict.NOT_DONE, at_fault=True)


def no_answer(*, at_fault: bool) -> Failure:
    """It was sent, and not answered in time."""
    return Failure(Unavailable(Cause.NO_ANSWER, True), Verdict.UNKNOWN, at_fault=at_fault)


def facts_of(details: bytes) -> Facts:
    """What a `grpc-status-details-bin` says; nothing where it is none of a coordinator's."""
    status = status_pb2.Status()
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    retry_after = None
    found = False
    try:
        status.ParseFromString(details)
        for detail in status.details:
            if detail.TypeName() == info.DESCRIPTOR.full_name and not found:
                detail.Unpack(info)
                found = info.domain == DOMAIN
            elif detail.TypeName() == retry.DESCRIPTOR.full_name:
                detail.Unpack(retry)
                retry_after = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
    except DecodeError:
        return Facts()
    if not found:
        return Facts(retry_after=retry_after)
    return Facts(info.reason, dict(info.metadata), retry_after)


def failure_of(call: grpc.Call) -> Failure:
    """What a call that was answered with an error came to."""
    details = b""
    for key, value in call.trailing_metadata() or ():
        if key == _DETAILS:
            details = value if isinstance(value, bytes) else value.encode()
    return judge(call.code(), facts_of(details))


_AWAY = {
    # reason: what it means, whether it may have happened where it does not say, whether the endpoint is at fault
    "STORE_UNAVAILABLE": (Cause.STORE, True, True),
    "DRAINING": (Cause.DRAINING, False, True),
    "HISTORY_REGRESSED": (Cause.HISTORY_REGRESSED, True, True),
    "WRONG_CLUSTER": (Cause.WRONG_CLUSTER, True, True),
    "SUPERSEDED": (Cause.SUPERSEDED, True, False),
    "DEADLINE_EXCEEDED": (Cause.NO_ANSWER, True, True),
    "INTERNAL": (Cause.INTERNAL, True, True),
}

_BROKEN = {
    # Codes of a proxy or of the transport, which say nothing of the call.
    grpc.StatusCode.UNAVAILABLE: Cause.NO_ANSWER,
    grpc.StatusCode.UNKNOWN: Cause.NO_ANSWER,
    grpc.StatusCode.CANCELLED: Cause.NO_ANSWER,
    grpc.StatusCode.ABORTED: Cause.NO_ANSWER,
    grpc.StatusCode.DEADLINE_EXCEEDED: Cause.NO_ANSWER,
    grpc.StatusCode.INTERNAL: Cause.INTERNAL,
    grpc.StatusCode.DATA_LOSS: Cause.INTERNAL,
}


def judge(code: grpc.StatusCode, facts: Facts) -> Failure:
    """By the reason where it is known, else by the code alone."""
    if facts.reason in _AWAY:
        cause, unsaid, at_fault = _AWAY[facts.reason]
        return _away(cause, facts, unsaid=unsaid, at_fault=at_fault)
    if facts.reason == "EPOCH_STALE" and facts.text("storedEpoch").isdecimal():
        error = Unavailable(Cause.SUPERSEDED, facts.may_have_happened(False), facts.retry_after)
        stored = int(facts.text("storedEpoch"))
        return Failure(error, Verdict.EPOCH_STALE, at_fault=False, stored_epoch=stored)
    answer = _answer(facts)
    if answer is not None:
        if facts.may_have_happened(False):
            answer.may_have_happened = True
        return Failure(answer, Verdict.FINAL, at_fault=False)
    if code in _BROKEN:
        return _away(_BROKEN[code], facts, unsaid=True, at_fault=True)
    return Failure(_by_code(code, facts), Verdict.FINAL, at_fault=False)


def _away(cause: Cause, facts: Facts, *, unsaid: bool, at_fault: bool) -> Failure:
    may_have_happened = facts.may_have_happened(unsaid)
    error = Unavailable(cause, may_have_happened, facts.retry_after)
    return Failure(error, Verdict.UNKNOWN if may_have_happened else Verdict.NOT_DONE, at_fault=at_fault)


def _answer(facts: Facts) -> PalisadeError | None:  # noqa: PLR0911
    """The reasons after which the same call would be answered the same."""
    text, token = facts.text, facts.token
    match facts.reason:
        case "INVALID_FIELD":
            return Invalid(text("field"), text("bound"), text("given"))
        case "REQUEST_MISMATCH":
            return Invalid(text("field"), "what the request id was first used with", text("requestId"))
        case "LEASE_HELD":
            return Held(text("resource"), token("token"), facts.retry_after)
        case "ALREADY_HELD":
            return AlreadyHeld(text("resource"), text("requestId"), token("token"))
        case "WAIT_EXPIRED":
            return WaitExpired(text("resource"))
        case "REQUEST_CANCELLED":
            return Cancelled()
        case "SESSION_ENDED":
            return Lost(LostReason.ENDED)
        case "STALE_TOKEN":
            return StaleToken(token("token"), token("currentToken"))
        case "FENCE_AHEAD":
            return FenceAhead(token("fence"))
        case "LIMIT_REACHED":
            return LimitReached(text("limit"), text("bound"), facts.may_have_happened(False), facts.retry_after)
        case "UNAUTHENTICATED" | "PERMISSION_DENIED":
            return Denied(facts.may_have_happened(False))
        case "NOT_SERVED":
            return NotServed()
    return None


def _by_code(code: grpc.StatusCode, facts: Facts) -> PalisadeError:
    """A proxy's or the transport's own error, or a reason of a later version."""
    match code:
        # Also how the transport tells of some connections that broke.
        case grpc.StatusCode.UNAUTHENTICATED | grpc.StatusCode.PERMISSION_DENIED:
            return Denied(facts.may_have_happened(True))
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            sure = facts.may_have_happened(True)
            return LimitReached(facts.text("limit"), facts.text("bound"), sure, facts.retry_after)
        case grpc.StatusCode.UNIMPLEMENTED:
            return NotServed()
    return Unexpected(facts.reason or code.name)
