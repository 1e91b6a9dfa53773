from palisade.v1 import error_pb2 as _error_pb2
from palisade.v1 import lease_pb2 as _lease_pb2
from palisade.v1 import session_pb2 as _session_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AttachRequest(_message.Message):
    __slots__ = ("seq", "open", "renew", "acquire", "cancel", "release", "close", "revoke_ack", "drain_ack")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    RENEW_FIELD_NUMBER: _ClassVar[int]
    ACQUIRE_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    REVOKE_ACK_FIELD_NUMBER: _ClassVar[int]
    DRAIN_ACK_FIELD_NUMBER: _ClassVar[int]
    seq: int
    open: AttachOpen
    renew: AttachRenew
    acquire: AttachAcquire
    cancel: AttachCancel
    release: AttachRelease
    close: AttachClose
    revoke_ack: AttachRevokeAck
    drain_ack: AttachDrainAck
    def __init__(self, seq: _Optional[int] = ..., open: _Optional[_Union[AttachOpen, _Mapping]] = ..., renew: _Optional[_Union[AttachRenew, _Mapping]] = ..., acquire: _Optional[_Union[AttachAcquire, _Mapping]] = ..., cancel: _Optional[_Union[AttachCancel, _Mapping]] = ..., release: _Optional[_Union[AttachRelease, _Mapping]] = ..., close: _Optional[_Union[AttachClose, _Mapping]] = ..., revoke_ack: _Optional[_Union[AttachRevokeAck, _Mapping]] = ..., drain_ack: _Optional[_Union[AttachDrainAck, _Mapping]] = ...) -> None: ...

class AttachResponse(_message.Message):
    __slots__ = ("reply_to", "opened", "renewed", "granted", "queued", "refused", "released", "closed", "lost", "revoke_requested", "draining")
    REPLY_TO_FIELD_NUMBER: _ClassVar[int]
    OPENED_FIELD_NUMBER: _ClassVar[int]
    RENEWED_FIELD_NUMBER: _ClassVar[int]
    GRANTED_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    RELEASED_FIELD_NUMBER: _ClassVar[int]
    CLOSED_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    REVOKE_REQUESTED_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    reply_to: int
    opened: AttachOpened
    renewed: AttachRenewed
    granted: AttachGranted
    queued: AttachQueued
    refused: AttachRefused
    released: AttachReleased
    closed: AttachClosed
    lost: AttachLost
    revoke_requested: AttachRevokeRequested
    draining: AttachDraining
    def __init__(self, reply_to: _Optional[int] = ..., opened: _Optional[_Union[AttachOpened, _Mapping]] = ..., renewed: _Optional[_Union[AttachRenewed, _Mapping]] = ..., granted: _Optional[_Union[AttachGranted, _Mapping]] = ..., queued: _Optional[_Union[AttachQueued, _Mapping]] = ..., refused: _Optional[_Union[AttachRefused, _Mapping]] = ..., released: _Optional[_Union[AttachReleased, _Mapping]] = ..., closed: _Optional[_Union[AttachClosed, _Mapping]] = ..., lost: _Optional[_Union[AttachLost, _Mapping]] = ..., revoke_requested: _Optional[_Union[AttachRevokeRequested, _Mapping]] = ..., draining: _Optional[_Union[AttachDraining, _Mapping]] = ...) -> None: ...

class AttachOpen(_message.Message):
    __slots__ = ("session", "opening", "open_requests")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    OPENING_FIELD_NUMBER: _ClassVar[int]
    OPEN_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    session: _session_pb2.SessionRef
    opening: _session_pb2.SessionOpening
    open_requests: _containers.RepeatedCompositeFieldContainer[_session_pb2.OpenRequest]
    def __init__(self, session: _Optional[_Union[_session_pb2.SessionRef, _Mapping]] = ..., opening: _Optional[_Union[_session_pb2.SessionOpening, _Mapping]] = ..., open_requests: _Optional[_Iterable[_Union[_session_pb2.OpenRequest, _Mapping]]] = ...) -> None: ...

class AttachOpened(_message.Message):
    __slots__ = ("session_id", "ttl_ms", "ttl_left_ms", "resumed", "requests")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    TTL_LEFT_MS_FIELD_NUMBER: _ClassVar[int]
    RESUMED_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    ttl_ms: int
    ttl_left_ms: int
    resumed: bool
    requests: _containers.RepeatedCompositeFieldContainer[_session_pb2.OpenRequestStatus]
    def __init__(self, session_id: _Optional[str] = ..., ttl_ms: _Optional[int] = ..., ttl_left_ms: _Optional[int] = ..., resumed: bool = ..., requests: _Optional[_Iterable[_Union[_session_pb2.OpenRequestStatus, _Mapping]]] = ...) -> None: ...

class AttachRenew(_message.Message):
    __slots__ = ("open_requests",)
    OPEN_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    open_requests: _containers.RepeatedCompositeFieldContainer[_session_pb2.OpenRequest]
    def __init__(self, open_requests: _Optional[_Iterable[_Union[_session_pb2.OpenRequest, _Mapping]]] = ...) -> None: ...

class AttachRenewed(_message.Message):
    __slots__ = ("ttl_ms", "ttl_left_ms")
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    TTL_LEFT_MS_FIELD_NUMBER: _ClassVar[int]
    ttl_ms: int
    ttl_left_ms: int
    def __init__(self, ttl_ms: _Optional[int] = ..., ttl_left_ms: _Optional[int] = ...) -> None: ...

class AttachAcquire(_message.Message):
    __slots__ = ("request_id", "resource", "wait_ms", "lock_delay_ms", "metadata", "attempt")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    LOCK_DELAY_MS_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    resource: str
    wait_ms: int
    lock_delay_ms: int
    metadata: bytes
    attempt: int
    def __init__(self, request_id: _Optional[str] = ..., resource: _Optional[str] = ..., wait_ms: _Optional[int] = ..., lock_delay_ms: _Optional[int] = ..., metadata: _Optional[bytes] = ..., attempt: _Optional[int] = ...) -> None: ...

class AttachGranted(_message.Message):
    __slots__ = ("lease", "ttl_left_ms", "previous")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    TTL_LEFT_MS_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    lease: _lease_pb2.Lease
    ttl_left_ms: int
    previous: _lease_pb2.PreviousEnd
    def __init__(self, lease: _Optional[_Union[_lease_pb2.Lease, _Mapping]] = ..., ttl_left_ms: _Optional[int] = ..., previous: _Optional[_Union[_lease_pb2.PreviousEnd, _Mapping]] = ...) -> None: ...

class AttachQueued(_message.Message):
    __slots__ = ("request_id", "resource", "ahead", "wait_left_ms", "holder_token")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    AHEAD_FIELD_NUMBER: _ClassVar[int]
    WAIT_LEFT_MS_FIELD_NUMBER: _ClassVar[int]
    HOLDER_TOKEN_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    resource: str
    ahead: int
    wait_left_ms: int
    holder_token: int
    def __init__(self, request_id: _Optional[str] = ..., resource: _Optional[str] = ..., ahead: _Optional[int] = ..., wait_left_ms: _Optional[int] = ..., holder_token: _Optional[int] = ...) -> None: ...

class AttachRefused(_message.Message):
    __slots__ = ("request_id", "resource", "refusal")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    resource: str
    refusal: _error_pb2.Refusal
    def __init__(self, request_id: _Optional[str] = ..., resource: _Optional[str] = ..., refusal: _Optional[_Union[_error_pb2.Refusal, _Mapping]] = ...) -> None: ...

class AttachCancel(_message.Message):
    __slots__ = ("request_id", "resource")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    resource: str
    def __init__(self, request_id: _Optional[str] = ..., resource: _Optional[str] = ...) -> None: ...

class AttachRelease(_message.Message):
    __slots__ = ("resource", "token", "request_id", "refused_by_fence")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    REFUSED_BY_FENCE_FIELD_NUMBER: _ClassVar[int]
    resource: str
    token: int
    request_id: str
    refused_by_fence: int
    def __init__(self, resource: _Optional[str] = ..., token: _Optional[int] = ..., request_id: _Optional[str] = ..., refused_by_fence: _Optional[int] = ...) -> None: ...

class AttachReleased(_message.Message):
    __slots__ = ("resource", "request_id", "outcome", "end", "queue_place_given_back")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    QUEUE_PLACE_GIVEN_BACK_FIELD_NUMBER: _ClassVar[int]
    resource: str
    request_id: str
    outcome: _lease_pb2.ReleaseOutcome
    end: _lease_pb2.LeaseEnd
    queue_place_given_back: bool
    def __init__(self, resource: _Optional[str] = ..., request_id: _Optional[str] = ..., outcome: _Optional[_Union[_lease_pb2.ReleaseOutcome, str]] = ..., end: _Optional[_Union[_lease_pb2.LeaseEnd, str]] = ..., queue_place_given_back: bool = ...) -> None: ...

class AttachClose(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AttachClosed(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AttachLost(_message.Message):
    __slots__ = ("resource", "request_id", "token", "end", "superseded_by_token", "superseded_by_label", "reason")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    SUPERSEDED_BY_TOKEN_FIELD_NUMBER: _ClassVar[int]
    SUPERSEDED_BY_LABEL_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    resource: str
    request_id: str
    token: int
    end: _lease_pb2.LeaseEnd
    superseded_by_token: int
    superseded_by_label: str
    reason: str
    def __init__(self, resource: _Optional[str] = ..., request_id: _Optional[str] = ..., token: _Optional[int] = ..., end: _Optional[_Union[_lease_pb2.LeaseEnd, str]] = ..., superseded_by_token: _Optional[int] = ..., superseded_by_label: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class AttachRevokeRequested(_message.Message):
    __slots__ = ("resource", "request_id", "token", "deadline_ms", "reason", "actor")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    resource: str
    request_id: str
    token: int
    deadline_ms: int
    reason: str
    actor: str
    def __init__(self, resource: _Optional[str] = ..., request_id: _Optional[str] = ..., token: _Optional[int] = ..., deadline_ms: _Optional[int] = ..., reason: _Optional[str] = ..., actor: _Optional[str] = ...) -> None: ...

class AttachRevokeAck(_message.Message):
    __slots__ = ("resource", "token", "will_release")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    WILL_RELEASE_FIELD_NUMBER: _ClassVar[int]
    resource: str
    token: int
    will_release: bool
    def __init__(self, resource: _Optional[str] = ..., token: _Optional[int] = ..., will_release: bool = ...) -> None: ...

class AttachDraining(_message.Message):
    __slots__ = ("deadline_ms",)
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    deadline_ms: int
    def __init__(self, deadline_ms: _Optional[int] = ...) -> None: ...

class AttachDrainAck(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
