"""Sessions and leases against a coordinator that answers as it is told, on a clock that stands still."""

import gc
import os
import signal
import threading
from typing import Any

import grpc
import pytest
from fake import NOT_DONE, FakeClock, FakeCoordinator, QuickClock, Refuse, eventually, good

import palisade
from palisade import LostReason, State
from palisade.v1 import lease_service_pb2 as messages
from palisade.v1.session_pb2 import OpenRequest

# 15 s less 1 % and less the margin of a tenth.
BELIEVED = 13.35
SESSION_ENDED = Refuse(grpc.StatusCode.NOT_FOUND, "SESSION_ENDED", sessionId="0123456789abcdef")


def test_a_lease_is_held_and_released_with_its_session(client: palisade.Client, coordinator: FakeCoordinator) -> None:
    with client.lease("orders", label="here", metadata=b"pid") as lease:
        assert lease.state is State.HELD
        assert (lease.token, lease.holder, lease.resource) == (42, "0a" * 16, "orders")
        assert lease.grant == palisade.Grant("orders", 42, "0a" * 16)
        assert not lease.lost.is_set()
    assert lease.lost.is_set()
    with pytest.raises(palisade.Lost) as lost:
        _ = lease.grant
    assert lost.value.reason is LostReason.RELEASED
    (released,) = coordinator.wait_for("Release", 1)
    assert (released.resource, released.token) == ("orders", 42)
    coordinator.wait_for("CloseSession", 1)
    assert coordinator.asked["OpenSession"][0].opening.label == "here"
    assert coordinator.asked["Acquire"][0].metadata == b"pid"


def test_past_the_deadline_a_lease_is_lost_for_ever(
    client: palisade.Client, coordinator: FakeCoordinator, clock: FakeClock
) -> None:
    coordinator.always["RenewSession"] = NOT_DONE
    told: list[LostReason] = []
    lease = client.lease("orders", on_lost=told.append)
    clock.advance(BELIEVED - 0.001)
    assert lease.grant.token == 42
    assert lease.time_left == pytest.approx(0.001)
    clock.advance(0.001)
    # The look decides, whatever the thread has noticed.
    with pytest.raises(palisade.Lost) as lost:
        _ = lease.grant
    assert lost.value.reason is LostReason.EXPIRED
    assert lease.state is State.EXPIRED
    assert lease.time_left == 0
    assert lease.lost.is_set()
    coordinator.always["RenewSession"] = good("RenewSession")
    coordinator.wait_for("CloseSession", 1)
    assert lease.state is State.EXPIRED
    with eventually("the callback") as done:
        while not done(told == [LostReason.EXPIRED]):
            pass


def test_the_deadline_is_noticed_without_a_look(
    client: palisade.Client, coordinator: FakeCoordinator, clock: FakeClock
) -> None:
    coordinator.always["RenewSession"] = NOT_DONE
    lease = client.lease("orders")
    clock.advance(60)
    assert lease.lost.wait(30)


def test_an_answer_that_comes_after_the_deadline_revives_nothing(
    client: palisade.Client, coordinator: FakeCoordinator, clock: FakeClock
) -> None:
    """As after a suspend: the renewal was sent, and its answer is read when all is over."""
    gone_on, asked = threading.Event(), threading.Event()

    def late(request: Any) -> messages.RenewSessionResponse:
        asked.set()
        gone_on.wait(30)
        return messages.RenewSessionResponse(ttl_ms=15_000, ttl_left_ms=15_000)

    coordinator.tell("RenewSession", late)
    lease = client.lease("orders")
    clock.advance(5)
    assert asked.wait(30)
    # Both at once for the thread that waits: the answer, and the deadline.
    clock.advance(20)
    gone_on.set()
    assert lease.lost.wait(30)
    assert lease.state is State.EXPIRED


def test_the_deadline_counts_from_before_the_opening_was_sent(
    coordinator: FakeCoordinator, clock: FakeClock, client: palisade.Client
) -> None:
    def slow(request: Any) -> messages.OpenSessionResponse:
        clock.advance(3)
        return messages.OpenSessionResponse(session_id="0123456789abcdef", ttl_ms=15_000, ttl_left_ms=15_000)

    coordinator.tell("OpenSession", slow)
    with client.session() as session:
        assert session.time_left == pytest.approx(BELIEVED - 3)


def test_renewals_move_the_deadline_and_failures_make_it_suspect(
    client: palisade.Client, coordinator: FakeCoordinator, clock: FakeClock
) -> None:
    coordinator.tell("RenewSession", NOT_DONE)
    with client.lease("orders") as lease:
        clock.advance(5)
        with eventually("suspect") as done:
            while not done(lease.state is State.SUSPECT):
                pass
        assert lease.grant.token == 42
        with eventually("held again") as done:
            while not done(lease.state is State.HELD):
                clock.advance(0.01)
        assert lease.time_left > BELIEVED - 1


def test_the_end_of_the_session_is_news(
    client: palisade.Client, coordinator: FakeCoordinator, clock: FakeClock
) -> None:
    told: list[LostReason] = []
    lease = client.lease("orders", on_lost=told.append)
    coordinator.tell("RenewSession", SESSION_ENDED)
    clock.advance(5)
    assert lease.lost.wait(30)
    assert (lease.state, lease.lost_reason) == (State.LOST, LostReason.ENDED)
    with eventually("the callback") as done:
        while not done(told == [LostReason.ENDED]):
            pass


@pytest.mark.parametrize("state", ["TOKEN_STATE_STALE", "TOKEN_STATE_VACANT", "TOKEN_STATE_AHEAD"])
def test_a_lease_that_was_revoked_alone_is_lost_with_the_next_renewal(
    client: palisade.Client, coordinator: FakeCoordinator, clock: FakeClock, state: str
) -> None:
    with client.session() as session:
        revoked, kept = session.lease("orders"), session.lease("stock")

        def gone(asked: Any) -> messages.CheckTokenResponse:
            answer = messages.CheckTokenResponse(state="TOKEN_STATE_CURRENT", revision=8)
            if asked.resource == "orders":
                answer.state = messages.TokenState.Value(state)
            return answer

        coordinator.always["CheckToken"] = gone
        clock.advance(5)
        assert revoked.lost.wait(30)
        assert (revoked.state, revoked.lost_reason) == (State.LOST, LostReason.GONE)
        assert (kept.state, session.state) == (State.HELD, State.HELD)


def test_what_a_renewal_tells_of_and_nobody_knows_is_given_back(
    client: palisade.Client, coordinator: FakeCoordinator, clock: FakeClock
) -> None:
    """A restore of the store brought it back."""
    with client.session() as session, session.lease("orders") as lease:
        known = coordinator.asked["Acquire"][0]

        def has(asked: Any) -> messages.RenewSessionResponse:
            assert asked.list_open_requests
            both = [known.request_id, "of before"]
            told = [OpenRequest(resource="orders", request_id=one) for one in both]
            return messages.RenewSessionResponse(ttl_ms=15_000, ttl_left_ms=15_000, open_requests=told)

        coordinator.always["RenewSession"] = has
        for count in (1, 2):
            clock.advance(5)
            released = coordinator.wait_for("Release", count)
            assert released[-1].request_id == "of before"
            assert released[-1].session.epoch > known.session.epoch
        assert lease.state is State.HELD


def test_a_read_from_before_the_grant_and_a_denied_one_prove_nothing(
    client: palisade.Client, coordinator: FakeCoordinator, clock: FakeClock
) -> None:
    coordinator.tell("CheckToken", lambda asked: messages.CheckTokenResponse(state="TOKEN_STATE_VACANT", revision=6))
    coordinator.always["CheckToken"] = Refuse(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED", verb="read")
    with client.lease("orders") as lease:
        for count in (1, 2, 3):
            clock.advance(5)
            coordinator.wait_for("RenewSession", count)
            with eventually("the answer") as done:
                while not done(lease.time_left > BELIEVED - 1):
                    pass
        assert lease.state is State.HELD
    assert len(coordinator.asked["CheckToken"]) == 2, "denied once, it is not asked again"


def test_whatever_ends_the_block_releases_the_lease(client: palisade.Client, coordinator: FakeCoordinator) -> None:
    for count, error in enumerate((KeyError, KeyboardInterrupt, SystemExit), 1):
        with pytest.raises(error), client.lease("orders") as lease:
            raise error
        assert lease.lost.is_set()
        coordinator.wait_for("Release", count)
        coordinator.wait_for("CloseSession", count)


def test_a_refusal_of_the_guard_tells_the_coordinator_its_fence(
    client: palisade.Client, coordinator: FakeCoordinator
) -> None:
    with pytest.raises(palisade.Stale), client.lease("orders"):
        raise palisade.Stale("orders", 42, 50)
    with pytest.raises(palisade.Stale), client.lease("orders"):
        raise palisade.Stale("another", 42, 60)
    assert [asked.refused_by_fence for asked in coordinator.wait_for("Release", 2)] == [50, 0]


def test_a_release_that_fails_is_no_error_of_the_block_but_of_the_call(
    coordinator: FakeCoordinator, caplog: pytest.LogCaptureFixture
) -> None:
    with palisade.Client(coordinator.addr, operation_timeout=0.2) as client:
        coordinator.always["Release"] = NOT_DONE
        with client.lease("orders") as lease:
            pass
        assert lease.lost.is_set()
        assert "not released" in caplog.text
        coordinator.wait_for("CloseSession", 1)
        lease = client.lease("orders")
        with pytest.raises(palisade.Unavailable):
            lease.release()
        coordinator.wait_for("CloseSession", 2)


def test_an_interrupt_while_waiting_gives_the_request_back(
    client: palisade.Client, coordinator: FakeCoordinator
) -> None:
    """KeyboardInterrupt comes in the main thread, wherever it is."""
    # A shell starts what runs in the background without it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    asked, over = threading.Event(), threading.Event()

    def waits(request: Any) -> messages.AcquireResponse:
        asked.set()
        over.wait(30)
        return good("Acquire")(request)  # type: ignore[return-value]

    coordinator.always["Acquire"] = waits
    interrupt = threading.Thread(target=lambda: (asked.wait(30), os.kill(os.getpid(), signal.SIGINT)))
    interrupt.start()
    with client.session() as session:
        with pytest.raises(KeyboardInterrupt):
            session.lease("orders", wait=60)
        interrupt.join()
        (back,) = coordinator.wait_for("Release", 1)
        (sent,) = coordinator.asked["Acquire"]
        assert back.request_id == sent.request_id
        assert back.session.epoch > sent.session.epoch, "so that no copy of it is granted later"
        asked.clear()
        interrupt = threading.Thread(target=lambda: (asked.wait(30), os.kill(os.getpid(), signal.SIGINT)))
        interrupt.start()
        with pytest.raises(KeyboardInterrupt):
            client.lease("orders", wait=60)
        interrupt.join()
        coordinator.wait_for("CloseSession", 1)
    over.set()


def test_what_is_dropped_is_closed(coordinator: FakeCoordinator) -> None:
    with palisade.Client(coordinator.addr, clock=QuickClock()) as client:
        client.lease("orders")
        gc.collect()
        coordinator.wait_for("CloseSession", 1)
        session = client.session()
        lease = session.lease("stock")
        del session
        gc.collect()
        coordinator.wait_for("RenewSession", len(coordinator.asked["RenewSession"]) + 2)
        assert len(coordinator.asked["CloseSession"]) == 1, "a lease keeps its session"
        del lease
        gc.collect()
        coordinator.wait_for("CloseSession", 2)


def test_a_child_of_a_fork_holds_nothing_and_sends_nothing(
    client: palisade.Client, coordinator: FakeCoordinator
) -> None:
    with client.lease("orders") as lease:
        # gRPC's objects are not to be freed in a child: its threads are not there.
        gc.collect()
        gc.disable()
        try:
            child = os.fork()
            if child == 0:
                signal.alarm(30)
                os._exit(_in_child(client, lease))
        finally:
            gc.enable()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert lease.grant.token == 42
        assert not coordinator.asked["Release"]
        assert not coordinator.asked["CloseSession"]
        assert len(coordinator.asked["OpenSession"]) == 1


def _in_child(client: palisade.Client, lease: palisade.Lease) -> int:
    try:
        assert lease.state is State.LOST
        assert lease.lost_reason is LostReason.FORKED
        for refused in (lambda: lease.grant, lease.raise_if_lost, lease.release):
            with pytest.raises(palisade.Lost):
                refused()
        for refused in (client.session, lambda: client.lease("orders"), client.close):
            with pytest.raises(palisade.Forked):
                refused()
        with lease:
            pass
        return 0
    except BaseException:
        import traceback

        traceback.print_exc()
        return 1


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"addr": "ftp://here:1"}, "addr"),
        ({"addr": "http://here"}, "addr"),
        ({"addr": []}, "addr"),
        ({"addr": ["http://here:1"] * 17}, "addr"),
        ({"addr": "http://here:1", "call_timeout": 0}, "call_timeout"),
        ({"addr": "http://here:1", "operation_timeout": -1}, "operation_timeout"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(palisade.Invalid) as invalid:
        palisade.Client(**arguments)
    assert invalid.value.field == field


def test_arguments_of_sessions_and_leases_are_checked(client: palisade.Client) -> None:
    for make, field in (
        (lambda: client.session(ttl=-1), "ttl"),
        (lambda: client.session(drift_ppm=200_000), "drift_ppm"),
        (lambda: client.session(margin=8), "margin"),
        (lambda: client.lease("orders", wait=-1), "wait"),
        (lambda: client.lease("orders", lock_delay=float("nan")), "lock_delay"),
    ):
        with pytest.raises(palisade.Invalid) as invalid:
            make()
        assert invalid.value.field == field


def test_secrets_are_not_shown(client: palisade.Client, coordinator: FakeCoordinator) -> None:
    with client.session() as session:
        secret = coordinator.asked["OpenSession"][0].opening.secret
        assert len(secret) == 32
        shown = repr(session) + repr(session._owner.core.credentials) + repr(palisade.Tls(key=b"key"))
        assert repr(secret) not in shown
        assert "key" not in shown
