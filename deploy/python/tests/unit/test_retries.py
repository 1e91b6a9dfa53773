"""Retries: the same request, a larger attempt and a larger epoch, on what a coordinator may answer better later."""

import socket
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from fake import NOT_DONE, UNAVAILABLE, FakeCoordinator, QuickClock, Refuse, good

import palisade
from palisade.credentials import Epochs, jittered
from palisade.errors import Cause
from palisade.v1 import lease_service_pb2 as messages

CODE = grpc.StatusCode


@pytest.fixture
def clock() -> QuickClock:
    return QuickClock()


@pytest.fixture
def coordinator() -> Iterator[FakeCoordinator]:
    """Its sessions live long: the clock is quick, and the machine may be slow."""
    made = FakeCoordinator(ttl_ms=300_000)
    yield made
    made.stop()


def tries(coordinator: FakeCoordinator) -> list[tuple[int, int]]:
    return [(asked.attempt, asked.session.epoch) for asked in coordinator.asked["Acquire"]]


def test_retries_carry_the_same_request_with_a_larger_attempt_and_epoch(
    client: palisade.Client, coordinator: FakeCoordinator
) -> None:
    coordinator.tell("Acquire", NOT_DONE, UNAVAILABLE, Refuse(CODE.UNAVAILABLE), Refuse(CODE.INTERNAL))
    with client.lease("orders", wait=60, metadata=b"m"):
        pass
    asked = coordinator.asked["Acquire"]
    assert len({one.request_id for one in asked}) == 1
    assert {(one.resource, one.metadata) for one in asked} == {("orders", b"m")}
    assert [attempt for attempt, _ in tries(coordinator)] == [1, 1, 2, 3, 4]
    epochs = [epoch for _, epoch in tries(coordinator)]
    assert epochs[0] == epochs[1] < epochs[2] < epochs[3] < epochs[4]


def test_a_stale_epoch_is_raised_above_the_stored_one(client: palisade.Client, coordinator: FakeCoordinator) -> None:
    stale = Refuse(CODE.ABORTED, "EPOCH_STALE", storedEpoch="17", epoch="1", sessionId="x")
    coordinator.tell("Acquire", stale)
    with client.lease("orders"):
        pass
    assert tries(coordinator) == [(1, 1), (1, 18)]


@pytest.mark.parametrize(
    ("refuse", "error"),
    [
        (Refuse(CODE.FAILED_PRECONDITION, "LEASE_HELD", resource="orders"), palisade.Held),
        (Refuse(CODE.ABORTED, "WAIT_EXPIRED", resource="orders"), palisade.WaitExpired),
        (Refuse(CODE.PERMISSION_DENIED, "PERMISSION_DENIED"), palisade.Denied),
        (Refuse(CODE.INVALID_ARGUMENT, "INVALID_FIELD", field="resource", bound="b", given="g"), palisade.Invalid),
        (Refuse(CODE.RESOURCE_EXHAUSTED, "LIMIT_REACHED", limit="waiters", bound="1"), palisade.LimitReached),
        (Refuse(CODE.NOT_FOUND, "SESSION_ENDED"), palisade.Lost),
    ],
)
def test_answers_are_not_tried_again_and_leave_nothing_behind(
    client: palisade.Client, coordinator: FakeCoordinator, refuse: Refuse, error: type[Exception]
) -> None:
    coordinator.always["Acquire"] = refuse
    with client.session() as session, pytest.raises(error):
        session.lease("orders")
    assert len(coordinator.asked["Acquire"]) == 1
    assert not coordinator.asked["Release"], "nothing to give back"


def test_an_outcome_that_stays_unknown_says_so_and_is_given_back(
    client: palisade.Client, coordinator: FakeCoordinator
) -> None:
    coordinator.always["Acquire"] = NOT_DONE
    coordinator.tell("Acquire", UNAVAILABLE)
    with client.session() as session:
        with pytest.raises(palisade.Unavailable) as away:
            session.lease("orders")
        assert away.value.may_have_happened, "the first one may have"
        assert away.value.cause is Cause.STORE
        (back,) = coordinator.wait_for("Release", 1)
        last = coordinator.asked["Acquire"][-1]
        assert back.request_id == last.request_id
        assert back.session.epoch > last.session.epoch


def test_a_give_back_that_fails_is_tried_with_a_new_epoch_each_time(
    client: palisade.Client, coordinator: FakeCoordinator
) -> None:
    coordinator.always["Acquire"] = UNAVAILABLE
    coordinator.tell("Release", UNAVAILABLE, NOT_DONE)
    with client.session() as session:
        with pytest.raises(palisade.Unavailable):
            session.lease("orders")
        epochs = [asked.session.epoch for asked in coordinator.wait_for("Release", 3)]
        assert epochs[0] < epochs[1] < epochs[2]


def test_a_grant_of_another_request_is_none(client: palisade.Client, coordinator: FakeCoordinator) -> None:
    def other(asked: Any) -> messages.AcquireResponse:
        asked.request_id = "another"
        return good("Acquire")(asked)  # type: ignore[return-value]

    coordinator.tell("Acquire", other)
    with client.session() as session:
        with pytest.raises(palisade.Unexpected):
            session.lease("orders")
        coordinator.wait_for("Release", 1)


def test_a_wait_longer_than_a_call_goes_on_with_the_same_request(
    client: palisade.Client, coordinator: FakeCoordinator
) -> None:
    over = threading.Event()

    def never(asked: Any) -> messages.AcquireResponse:
        over.wait(30)
        return good("Acquire")(asked)  # type: ignore[return-value]

    coordinator.tell("Acquire", never, never)
    with client.lease("orders", wait=300):
        over.set()
        first, second, third = coordinator.asked["Acquire"]
        assert first.request_id == second.request_id == third.request_id
        assert first.wait_ms > second.wait_ms > third.wait_ms
        assert first.session.epoch < second.session.epoch < third.session.epoch


def test_nothing_listens(clock: QuickClock) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with palisade.Client(f"http://127.0.0.1:{taken.getsockname()[1]}", clock=clock) as client:
            with pytest.raises(palisade.Unavailable) as away:
                client.session()
            assert away.value.cause is Cause.UNREACHABLE
            assert not away.value.may_have_happened, "nothing was sent"


def test_another_endpoint_goes_on(coordinator: FakeCoordinator, clock: QuickClock) -> None:
    broken = FakeCoordinator()
    for method in ("OpenSession", "Acquire", "RenewSession"):
        broken.always[method] = Refuse(CODE.UNAVAILABLE, "DRAINING")
    for _turn in range(4):
        with palisade.Client([broken.addr, coordinator.addr], clock=clock) as client, client.lease("orders"):
            pass
    broken.stop()
    assert len(coordinator.asked["Acquire"]) == 4


def test_a_bearer_token_is_sent_and_checked(coordinator: FakeCoordinator) -> None:
    tokens = iter(["first", "bad token"])
    with palisade.Client(coordinator.addr, token=lambda: next(tokens)) as client:
        client._shared.endpoints.pick()
        assert client._shared._metadata() == (("authorization", "Bearer first"),)
        with pytest.raises(palisade.Invalid):
            client._shared._metadata()


def test_settings_of_the_environment(
    coordinator: FakeCoordinator, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    (tmp_path / "token").write_text("secret\n")
    monkeypatch.setenv("PALISADE_ADDR", f"{coordinator.addr}, http://127.0.0.1:1")
    monkeypatch.setenv("PALISADE_TOKEN_FILE", str(tmp_path / "token"))
    with palisade.Client() as client:
        assert client._shared._metadata() == (("authorization", "Bearer secret"),)
        with client.session():
            pass


def test_epochs() -> None:
    epochs = Epochs()
    assert [epochs.above(1), epochs.above(1), epochs.above(2), epochs.above(40)] == [2, 2, 3, 41]
    assert [epochs.raised(), epochs.raised(), epochs.current] == [42, 43, 43]
    epochs = Epochs(5)
    assert epochs.after_stale(3, 5) == 5, "overtaken by this client's own retry"
    assert epochs.after_stale(5, 9) == 10, "overtaken by somebody else"
    assert epochs.after_stale(10, 10) == 11, "the stored epoch was not enough"


def test_jitter_stays_between_its_share_and_the_whole() -> None:
    given = [jittered(1000, 850) for _ in range(1000)]
    assert min(given) >= 850
    assert max(given) <= 1000
    assert len(set(given)) > 50
