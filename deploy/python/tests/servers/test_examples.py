"""What the README and the example say, as they say it."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

PACKAGE = Path(__file__).parents[2]
LIMIT = 60


@pytest.fixture
def orders(dsn: str, resource: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute("CREATE TABLE orders (id bigint PRIMARY KEY, state text NOT NULL)")
        admin.execute("INSERT INTO orders SELECT id, 'new' FROM generate_series(1, 9) AS id")
        admin.execute("SELECT palisade.protect('orders', %s)", (resource,))
        yield admin
        admin.execute("SELECT palisade.unprotect('orders')")
        admin.execute("DROP TABLE orders")


def paid(orders: psycopg.Connection) -> list[int]:
    return [row[0] for row in orders.execute("SELECT id FROM orders WHERE state = 'paid' ORDER BY id")]


def test_the_readme(orders: psycopg.Connection, addr: str, dsn: str, resource: str) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", (PACKAGE / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    ours = {"http://127.0.0.1:7650": addr, "postgres://localhost/shop": dsn, '"orders"': f'"{resource}"'}
    for text, replacement in ours.items():
        assert block.count(text) == 1
        block = block.replace(text, replacement)
    exec(block, {})
    assert paid(orders) == [7]


def test_the_worker(orders: psycopg.Connection, addr: str, dsn: str, resource: str) -> None:
    """Two of them: one leads, and the other takes over once it ends."""
    environment = {**os.environ, "PALISADE_ADDR": addr, "DATABASE_URL": dsn}
    command = [sys.executable, str(PACKAGE / "examples/worker.py"), resource]
    workers = [
        subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True),
    ]
    try:
        wait_until(lambda: paid(orders) == list(range(1, 10)))
        workers.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
        first, second = workers
        first.send_signal(signal.SIGTERM)
        assert "leads with token" in first.communicate(timeout=LIMIT)[1]
        assert first.returncode == 0
        assert second.stderr is not None
        assert "leads with token" in second.stderr.readline()
        second.send_signal(signal.SIGTERM)
        second.communicate(timeout=LIMIT)
        assert second.returncode == 0
    finally:
        for worker in workers:
            worker.kill()
            worker.wait(LIMIT)


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
