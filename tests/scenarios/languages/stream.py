"""A client that was generated from proto/ and knows nothing else: one session over one stream.

It opens, acquires, renews, releases and closes, and prints what it saw as one line of JSON.
"""

import json
import os
import queue
import sys

import grpc
from palisade.v1 import attach_pb2, lease_pb2, session_pb2
from palisade.v1 import lease_service_pb2_grpc as services

LIMIT_S = 30
TTL_MS = 10_000


class Stream:
    """Sends numbered messages, and reads answers in order."""

    def __init__(self, stub):
        self.outgoing = queue.Queue()
        self.seq = 0
        self.answers = stub.Attach(iter(self.outgoing.get, None), timeout=LIMIT_S)

    def ask(self, **message):
        self.seq += 1
        self.outgoing.put(attach_pb2.AttachRequest(seq=self.seq, **message))
        for answer in self.answers:
            if answer.reply_to == self.seq:
                return answer
        raise AssertionError("the stream ended without an answer")

    def end(self):
        self.outgoing.put(None)
        return [answer.WhichOneof("message") for answer in self.answers]


def main(address, resource):
    stream = Stream(services.LeaseServiceStub(grpc.insecure_channel(address)))
    opening = session_pb2.SessionOpening(
        open_id=os.urandom(16).hex(), secret=os.urandom(32), ttl_ms=TTL_MS, epoch=1
    )
    opened = stream.ask(open=attach_pb2.AttachOpen(opening=opening)).opened
    wish = attach_pb2.AttachAcquire(request_id="first", resource=resource)
    granted = stream.ask(acquire=wish).granted
    named = session_pb2.OpenRequest(
        resource=resource, request_id="first", token=granted.lease.token
    )
    renewed = stream.ask(renew=attach_pb2.AttachRenew(open_requests=[named])).renewed
    release = attach_pb2.AttachRelease(resource=resource, token=granted.lease.token)
    released = stream.ask(release=release).released
    closed = stream.ask(close=attach_pb2.AttachClose()).WhichOneof("message")
    report = {
        "resumed": opened.resumed,
        "token": granted.lease.token,
        "renewed": 0 < renewed.ttl_left_ms <= TTL_MS,
        "released": lease_pb2.ReleaseOutcome.Name(released.outcome),
        "closed": closed,
        "rest": stream.end(),
    }
    print(json.dumps(report))


main(*sys.argv[1:])
