"""A coordinator that asks who calls, which tests/scenarios/python_package.rs starts: `PALISADE_TEST_TLS_ADDR`, and
certificates in `PALISADE_TEST_PKI`. Only alice may have what is below `orders`."""

import os
from pathlib import Path

import pytest

import palisade
from palisade.errors import Cause

TTL = 3.0


def pem(name: str) -> bytes:
    return (Path(os.environ["PALISADE_TEST_PKI"]) / name).read_bytes()


def client(tls: palisade.Tls | None, operation_timeout: float = 30) -> palisade.Client:
    return palisade.Client(os.environ["PALISADE_TEST_TLS_ADDR"], tls=tls, operation_timeout=operation_timeout)


def test_a_certificate_says_who_calls() -> None:
    alice = palisade.Tls(ca=pem("ca.pem"), cert=pem("alice.pem"), key=pem("alice.key"))
    with client(alice) as calls, calls.lease("orders/eu", ttl=TTL) as lease:
        assert lease.grant.token > 0
    with client(alice) as calls, pytest.raises(palisade.Denied) as denied:
        calls.lease("stock/eu", ttl=TTL)
    assert not denied.value.may_have_happened
    bob = palisade.Tls(ca=pem("ca.pem"), cert=pem("bob.pem"), key=pem("bob.key"))
    with client(bob) as calls, pytest.raises(palisade.Denied):
        calls.lease("orders/eu", ttl=TTL)


def test_the_environment_says_so_too(monkeypatch: pytest.MonkeyPatch) -> None:
    pki = Path(os.environ["PALISADE_TEST_PKI"])
    monkeypatch.setenv("PALISADE_ADDR", os.environ["PALISADE_TEST_TLS_ADDR"])
    for variable, file in (("CA", "ca.pem"), ("CERT", "alice.pem"), ("KEY", "alice.key")):
        monkeypatch.setenv(f"PALISADE_{variable}_FILE", str(pki / file))
    with palisade.Client(operation_timeout=30) as calls, calls.lease("orders/env", ttl=TTL):
        pass


def test_nobody_is_trusted_unasked() -> None:
    alice = palisade.Tls(ca=pem("ca.pem"), cert=pem("alice.pem"), key=pem("alice.key"))
    with client(alice) as calls, calls.session(ttl=TTL):
        """It is up."""
    # The machine's roots; another authority than the coordinator's; and no certificate of one's own.
    for tls in (None, palisade.Tls(ca=pem("other.pem")), palisade.Tls(ca=pem("ca.pem"))):
        with client(tls, operation_timeout=1) as calls, pytest.raises(palisade.Unavailable) as away:
            calls.session(ttl=TTL)
        if tls is None or tls.ca != pem("ca.pem"):
            assert away.value.cause is Cause.UNREACHABLE
