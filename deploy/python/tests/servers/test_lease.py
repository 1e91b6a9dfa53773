"""Leases on a real coordinator."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import TTL

import palisade
from palisade import LostReason, State
from palisade.calls import CLOSE_SESSION, RELEASE
from palisade.v1 import lease_service_pb2 as messages

LIMIT = 60


def test_one_holds_and_the_others_are_told(client: palisade.Client, resource: str) -> None:
    with client.lease(resource, ttl=TTL, label="one") as lease:
        with pytest.raises(palisade.Held) as held:
            client.lease(resource, ttl=TTL)
        assert (held.value.resource, held.value.token) == (resource, lease.token)
        with pytest.raises(palisade.WaitExpired):
            client.lease(resource, ttl=TTL, wait=0.2)
    with client.lease(resource, ttl=TTL) as later:
        assert later.token > lease.token
        assert later.holder != lease.holder


def test_waiters_are_served_in_order_as_soon_as_it_is_released(client: palisade.Client, resource: str) -> None:
    served: list[int] = []
    waiting = [threading.Event() for _ in range(3)]

    def wait_for_it(number: int) -> int:
        waiting[number].set()
        with client.lease(resource, ttl=60, wait=LIMIT) as lease:
            served.append(number)
            return lease.token

    with ThreadPoolExecutor(3) as pool:
        with client.lease(resource, ttl=60) as lease:
            tokens = []
            for number in range(3):
                tokens.append(pool.submit(wait_for_it, number))
                waits_for(client, resource, number + 1)
        begun = time.monotonic()
        granted = [token.result(LIMIT) for token in tokens]
        assert time.monotonic() - begun < 30, "a hand-over waits for no TTL"
    assert served == [0, 1, 2]
    assert [lease.token, *granted] == sorted({lease.token, *granted})


def waits_for(client: palisade.Client, resource: str, count: int) -> None:
    from palisade.calls import Method

    look = Method("/palisade.v1.LeaseService/GetLease", messages.GetLeaseResponse)
    end = time.monotonic() + LIMIT
    while True:
        asked = messages.GetLeaseRequest(resource=resource)
        if client._shared.try_once(look, asked, 10**10).body.waiters == count:
            return
        assert time.monotonic() < end
        time.sleep(0.02)


def test_one_session_holds_many(client: palisade.Client, resource: str) -> None:
    with client.session(ttl=TTL, label="many") as session:
        assert session.ttl == TTL
        leases = [session.lease(f"{resource}/{number}") for number in range(20)]
        assert all(lease.state is State.HELD for lease in leases)
        with pytest.raises(palisade.AlreadyHeld) as already:
            session.lease(f"{resource}/7")
        assert already.value.token == leases[7].token
        leases[7].release()
        assert leases[7].lost_reason is LostReason.RELEASED
        with session.lease(f"{resource}/7") as again:
            assert again.token > leases[7].token
    assert {lease.lost_reason for lease in leases} == {LostReason.CLOSED, LostReason.RELEASED}
    with client.lease(f"{resource}/8", ttl=TTL):
        pass


def test_it_is_renewed_for_longer_than_its_ttl(client: palisade.Client, resource: str) -> None:
    with client.lease(resource, ttl=TTL) as lease:
        end = time.monotonic() + TTL + 1
        while time.monotonic() < end:
            assert lease.grant.token == lease.token
            time.sleep(0.05)
        with pytest.raises(palisade.Held):
            client.lease(resource, ttl=TTL)


def test_a_lease_ended_behind_its_back_is_noticed(client: palisade.Client, resource: str) -> None:
    with client.session(ttl=TTL) as session:
        lease, other = session.lease(resource), session.lease(f"{resource}/other")
        core = session._owner.core
        release = messages.ReleaseRequest(
            session=core.credentials.at(core.epochs.current), resource=resource, token=lease.token
        )
        client._shared.try_once(RELEASE, release, 10**10)
        assert lease.lost.wait(LIMIT)
        assert lease.lost_reason is LostReason.GONE
        assert (other.state.is_held, session.state.is_held) == (True, True)
        close = messages.CloseSessionRequest(session=core.credentials.at(core.epochs.current))
        client._shared.try_once(CLOSE_SESSION, close, 10**10)
        assert other.lost.wait(LIMIT)
        # As the next call hears it: that the session renews no more, or that the lease is not its own.
        assert other.lost_reason in (LostReason.ENDED, LostReason.GONE)
        end = time.monotonic() + LIMIT
        while session.state is not State.LOST:
            assert time.monotonic() < end
            time.sleep(0.02)


def test_names_are_checked_by_the_coordinator(client: palisade.Client) -> None:
    with pytest.raises(palisade.Invalid) as invalid:
        client.lease("a//b", ttl=TTL)
    assert invalid.value.field == "resource"
