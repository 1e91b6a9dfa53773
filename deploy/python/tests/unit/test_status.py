"""Errors are decided by code and reason, never by text."""

import pickle

import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

import palisade
from palisade.errors import Cause, PalisadeError
from palisade.standing import LostReason
from palisade.status import Facts, Verdict, facts_of, judge
from palisade.v1 import error_pb2

CODE = grpc.StatusCode


def packed(domain: str, reason: str, **metadata: str) -> bytes:
    details = []
    retry = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=1, nanos=500_000_000))
    for message in (retry, error_details_pb2.ErrorInfo(domain=domain, reason=reason, metadata=metadata)):
        detail = Any()
        detail.Pack(message)
        details.append(detail)
    return status_pb2.Status(code=9, message="whatever it says", details=details).SerializeToString()


def test_details_of_a_coordinator_are_read_and_others_are_not() -> None:
    facts = facts_of(packed("palisade", "LEASE_HELD", resource="orders", token="42"))
    assert (facts.reason, facts.token("token"), facts.retry_after) == ("LEASE_HELD", 42, 1.5)
    assert facts_of(packed("example.org", "LEASE_HELD", resource="orders")).reason == ""
    assert facts_of(b"\xff\xff\xff") == Facts()
    assert facts_of(b"") == Facts()


@pytest.mark.parametrize(
    ("reason", "metadata", "error", "verdict"),
    [
        ("LEASE_HELD", {"resource": "r", "token": "7"}, palisade.Held("r", 7), Verdict.FINAL),
        ("ALREADY_HELD", {"resource": "r", "requestId": "q"}, palisade.AlreadyHeld("r", "q"), Verdict.FINAL),
        ("WAIT_EXPIRED", {"resource": "r"}, palisade.WaitExpired("r"), Verdict.FINAL),
        ("REQUEST_CANCELLED", {}, palisade.Cancelled(), Verdict.FINAL),
        ("SESSION_ENDED", {}, palisade.Lost(LostReason.ENDED), Verdict.FINAL),
        ("STALE_TOKEN", {"token": "9", "currentToken": "0"}, palisade.StaleToken(9, None), Verdict.FINAL),
        ("FENCE_AHEAD", {"fence": "9"}, palisade.FenceAhead(9), Verdict.FINAL),
        ("INVALID_FIELD", {"field": "f", "bound": "b", "given": "g"}, palisade.Invalid("f", "b", "g"), Verdict.FINAL),
        ("LIMIT_REACHED", {"limit": "calls", "bound": "8"}, palisade.LimitReached("calls", "8"), Verdict.FINAL),
        ("PERMISSION_DENIED", {}, palisade.Denied(False), Verdict.FINAL),
        ("PERMISSION_DENIED", {"mayHaveHappened": "true"}, palisade.Denied(True), Verdict.FINAL),
        ("UNAUTHENTICATED", {}, palisade.Denied(False), Verdict.FINAL),
        ("NOT_SERVED", {}, palisade.NotServed(), Verdict.FINAL),
        ("STORE_UNAVAILABLE", {}, palisade.Unavailable(Cause.STORE, True), Verdict.UNKNOWN),
        (
            "STORE_UNAVAILABLE",
            {"mayHaveHappened": "false"},
            palisade.Unavailable(Cause.STORE, False),
            Verdict.NOT_DONE,
        ),
        ("DRAINING", {}, palisade.Unavailable(Cause.DRAINING, False), Verdict.NOT_DONE),
        ("DRAINING", {"mayHaveHappened": "true"}, palisade.Unavailable(Cause.DRAINING, True), Verdict.UNKNOWN),
        ("SUPERSEDED", {}, palisade.Unavailable(Cause.SUPERSEDED, True), Verdict.UNKNOWN),
        ("INTERNAL", {}, palisade.Unavailable(Cause.INTERNAL, True), Verdict.UNKNOWN),
        ("EPOCH_STALE", {"storedEpoch": "8"}, palisade.Unavailable(Cause.SUPERSEDED, False), Verdict.EPOCH_STALE),
    ],
)
def test_reasons(reason: str, metadata: dict[str, str], error: PalisadeError, verdict: Verdict) -> None:
    failure = judge(CODE.UNKNOWN, Facts(reason, metadata))
    assert type(failure.error) is type(error)
    assert failure.error.args[: len(error.args)] == error.args
    assert failure.verdict is verdict
    assert failure.may_have_happened == error.may_have_happened


@pytest.mark.parametrize("code", list(CODE))
def test_what_no_coordinator_said_may_have_happened(code: grpc.StatusCode) -> None:
    failure = judge(code, Facts())
    assert failure.may_have_happened or code is CODE.UNIMPLEMENTED
    assert failure.verdict in (Verdict.UNKNOWN, Verdict.FINAL)


def test_every_reason_of_the_interface_is_known() -> None:
    # Operators' calls are not part of this package.
    others = {"UNSPECIFIED", "FORCE_REQUIRED"}
    for name in error_pb2.ErrorReason.DESCRIPTOR.values_by_name:
        reason = name.removeprefix("ERROR_REASON_")
        if reason not in others:
            failure = judge(CODE.UNKNOWN, Facts(reason, {"storedEpoch": "1"}))
            assert not isinstance(failure.error, palisade.Unexpected), reason


def errors() -> list[PalisadeError]:
    return [
        palisade.Held("r", 7, 0.5),
        palisade.AlreadyHeld("r", "q", 1),
        palisade.WaitExpired("r"),
        palisade.Cancelled(),
        palisade.Lost(LostReason.ENDED),
        palisade.Unavailable(Cause.STORE, True, 0.5),
        palisade.LimitReached("calls", "8", True),
        palisade.Denied(True),
        palisade.Invalid("f", "b", "g"),
        palisade.StaleToken(9, None),
        palisade.FenceAhead(9),
        palisade.NotServed(),
        palisade.Unexpected("x"),
        palisade.Forked(),
        palisade.Stale("r", 1, 2),
        palisade.Unsealed("r", 2, None),
        palisade.Unguarded("r", "t"),
        palisade.Collision("r", 2),
        palisade.SealTimeout("r", 2.0, ("17",)),
        palisade.Serialization(),
        palisade.RolledBack(),
        palisade.CommitUnknown(77),
        palisade.Misuse("so"),
    ]


@pytest.mark.parametrize("error", errors(), ids=lambda error: type(error).__name__)
def test_errors_survive_a_process_boundary_and_say_what_to_do(error: PalisadeError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert (copy.args, copy.__dict__, str(copy)) == (error.args, error.__dict__, str(error))
    assert str(error)


def test_all_errors_are_exported() -> None:
    tested = {type(error) for error in errors()}
    for name in palisade.__all__:
        kind = getattr(palisade, name)
        if isinstance(kind, type) and issubclass(kind, PalisadeError):
            assert kind in tested or kind in (PalisadeError, palisade.GuardError, palisade.Uncertain), name
