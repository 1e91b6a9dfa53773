"""A client that was generated from proto/ and knows nothing else: unary calls and a watch.

It acquires, renews, watches and releases, and prints what it saw as one line of JSON.
"""

import json
import os
import sys
import threading

import grpc
from palisade.v1 import lease_service_pb2 as messages
from palisade.v1 import lease_service_pb2_grpc as services
from palisade.v1 import lease_pb2, session_pb2, watch_pb2

LIMIT_S = 30
TTL_MS = 10_000


def watched(stub, resource, opened, seen):
    """Follows a resource until it is vacant again after a grant."""
    request = watch_pb2.WatchLeasesRequest(resource=resource)
    names = watch_pb2.LeaseEventType.Name
    for response in stub.WatchLeases(request, timeout=LIMIT_S):
        for event in response.events:
            kind = names(event.type).removeprefix("LEASE_EVENT_TYPE_")
            seen.append(kind)
            if kind == "SNAPSHOT_END":
                opened.set()
            if kind == "VACANT" and "GRANTED" in seen:
                return


def main(address, resource):
    stub = services.LeaseServiceStub(grpc.insecure_channel(address))
    opened, seen = threading.Event(), []
    watcher = threading.Thread(target=watched, args=(stub, resource, opened, seen))
    watcher.start()
    assert opened.wait(LIMIT_S), "the watch shows a snapshot first"

    secret = os.urandom(32)
    opening = session_pb2.SessionOpening(
        open_id=os.urandom(16).hex(), secret=secret, ttl_ms=TTL_MS, label="python"
    )
    session = stub.OpenSession(messages.OpenSessionRequest(opening=opening), timeout=LIMIT_S)
    ref = session_pb2.SessionRef(session_id=session.session_id, secret=secret, epoch=1)
    asked = messages.AcquireRequest(session=ref, request_id="first", resource=resource)
    acquired = stub.Acquire(asked, timeout=LIMIT_S)
    again = stub.Acquire(asked, timeout=LIMIT_S)
    renewed = stub.RenewSession(messages.RenewSessionRequest(session=ref), timeout=LIMIT_S)
    checked = stub.CheckToken(
        messages.CheckTokenRequest(resource=resource, token=acquired.lease.token),
        timeout=LIMIT_S,
    )
    released = stub.Release(
        messages.ReleaseRequest(session=ref, resource=resource, token=acquired.lease.token),
        timeout=LIMIT_S,
    )
    watcher.join(LIMIT_S)
    stub.CloseSession(messages.CloseSessionRequest(session=ref), timeout=LIMIT_S)
    try:
        stub.RenewSession(messages.RenewSessionRequest(session=ref), timeout=LIMIT_S)
        refused = None
    except grpc.RpcError as error:
        refused = error.code().name
    report = {
        "token": acquired.lease.token,
        "same_token": again.lease.token == acquired.lease.token,
        "renewed": 0 < renewed.ttl_left_ms <= TTL_MS,
        "checked": messages.TokenState.Name(checked.state),
        "released": lease_pb2.ReleaseOutcome.Name(released.outcome),
        "watched": [kind for kind in seen if kind != "BOOKMARK"],
        "after_close": refused,
    }
    print(json.dumps(report))


main(*sys.argv[1:])
