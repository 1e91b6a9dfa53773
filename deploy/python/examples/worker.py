"""One of several workers, of which one at a time works on a queue of orders; it outlives pauses and takeovers.

    PALISADE_ADDR=http://127.0.0.1:7650 DATABASE_URL=postgres://localhost/shop python worker.py RESOURCE

It needs `palisade guard install --postgres URL`, and in the database:

    CREATE TABLE orders (id bigint PRIMARY KEY, state text NOT NULL);
    SELECT palisade.protect('orders', 'orders');
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading

import psycopg

import palisade
from palisade.guard import guard, seal

log = logging.getLogger("worker")
stop = threading.Event()


def pay_one(connection: psycopg.Connection, lease: palisade.Lease) -> bool:
    """One guarded transaction. Whether there was something to do."""
    with guard(connection, lease) as tx:
        order = tx.execute("SELECT id FROM orders WHERE state = 'new' ORDER BY id LIMIT 1").fetchone()
        if order is None:
            return False
        tx.execute("UPDATE orders SET state = 'paid' WHERE id = %s", order)
    log.info("paid order %s with token %s", order[0], lease.token)
    return True


def lead(connection: psycopg.Connection, lease: palisade.Lease) -> None:
    """Works until it is told to stop or the lease is lost."""
    # First of all: from here on nobody before us writes, so what is read is the whole truth.
    seal(connection, lease.grant)
    while not stop.is_set() and not lease.lost.is_set():
        if not pay_one(connection, lease):
            lease.lost.wait(0.2)


def main(resource: str) -> None:
    with palisade.Client() as client:
        while not stop.is_set():
            try:
                with (
                    client.lease(resource, ttl=10, wait=5, label=f"worker {os.getpid()}") as lease,
                    psycopg.connect(os.environ["DATABASE_URL"]) as connection,
                ):
                    log.info("leads with token %s", lease.token)
                    lead(connection, lease)
            except palisade.WaitExpired:
                continue
            except (palisade.Lost, palisade.GuardError, palisade.Unavailable) as error:
                # Whatever it was: nothing stale was written. Stand for election again.
                log.warning("%s: %s", type(error).__name__, error)
                stop.wait(1)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    main(sys.argv[1])
