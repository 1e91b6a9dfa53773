"""A holder that can be frozen: writes, then looks at its lease without a pause until it is told to write again.

worker.py ADDR DSN RESOURCE TABLE TTL
"""

import json
import sys
import threading

import psycopg

import palisade
from palisade.clock import SystemClock
from palisade.guard import guard, seal


def main(addr: str, dsn: str, resource: str, table: str, ttl: str) -> None:
    clock = SystemClock()
    client = palisade.Client(addr)
    connection = psycopg.connect(dsn)
    lease = client.lease(resource, ttl=float(ttl))
    grant = lease.grant
    seal(connection, grant)
    with guard(connection, grant) as tx:
        tx.execute(f"INSERT INTO {table} VALUES (1, 'a')")
    told = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.readline(), told.set()), daemon=True).start()
    last_held, states = 0, [lease.state.name]
    print(json.dumps({"token": lease.token}), flush=True)

    while True:
        before = clock.now()
        state = lease.state
        if state.is_held:
            last_held = before
        elif told.is_set():
            break
        if states[-1] != state.name:
            states.append(state.name)
    if states[-1] != state.name:
        states.append(state.name)
    refused = []
    for with_what in (lease, grant, grant):
        try:
            with guard(connection, with_what) as tx:
                tx.execute(f"INSERT INTO {table} VALUES (2, 'a')")
            refused.append(None)
        except palisade.PalisadeError as error:
            refused.append(type(error).__name__)
    report = {
        "last_held": last_held,
        "states": states,
        "refused": refused,
        "lost": lease.lost.wait(30),
        "state": lease.state.name,
    }
    print(json.dumps(report), flush=True)


main(*sys.argv[1:])
