"""A holder that is paused for longer than its TTL, and wakes after another has taken over."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
from conftest import TTL

import palisade
from palisade.clock import SystemClock
from palisade.guard import guard, seal

WORKER = Path(__file__).with_name("worker.py")


def test_a_frozen_holder_wakes_lost_and_its_write_is_stale(
    addr: str, dsn: str, client: palisade.Client, connection: psycopg.Connection, table: str, resource: str
) -> None:
    arguments = [sys.executable, str(WORKER), addr, dsn, resource, table, str(TTL)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        try:
            first = json.loads(worker.stdout.readline())
            worker.send_signal(signal.SIGSTOP)
            with client.lease(resource, ttl=60, wait=60) as lease:
                granted_at = SystemClock().now()
                assert lease.token > first["token"]
                seal(connection, lease.grant)
                with guard(connection, lease) as tx:
                    tx.execute(f"INSERT INTO {table} VALUES (3, 'b')")
                worker.stdin.write("go on\n")
                worker.stdin.flush()
                worker.send_signal(signal.SIGCONT)
                report = json.loads(worker.stdout.readline())
                assert lease.state is palisade.State.HELD
        finally:
            worker.kill()
    assert report["last_held"] < granted_at, "it said held after another was granted"
    held = [state in ("HELD", "SUSPECT") for state in report["states"]]
    assert held[0]
    assert held == sorted(held, reverse=True), "held again after it was lost"
    assert report["state"] == report["states"][-1] == "EXPIRED"
    assert report["lost"]
    assert report["refused"] == ["Lost", "Stale", "Stale"]
    rows = connection.execute(f"SELECT id, state FROM {table} ORDER BY id").fetchall()
    assert rows == [(1, "a"), (3, "b")]
