from palisade.v1 import attach_pb2 as _attach_pb2
from palisade.v1 import lease_pb2 as _lease_pb2
from palisade.v1 import session_pb2 as _session_pb2
from palisade.v1 import watch_pb2 as _watch_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TokenState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TOKEN_STATE_UNSPECIFIED: _ClassVar[TokenState]
    TOKEN_STATE_CURRENT: _ClassVar[TokenState]
    TOKEN_STATE_STALE: _ClassVar[TokenState]
    TOKEN_STATE_VACANT: _ClassVar[TokenState]
    TOKEN_STATE_AHEAD: _ClassVar[TokenState]
TOKEN_STATE_UNSPECIFIED: TokenState
TOKEN_STATE_CURRENT: TokenState
TOKEN_STATE_STALE: TokenState
TOKEN_STATE_VACANT: TokenState
TOKEN_STATE_AHEAD: TokenState

class OpenSessionRequest(_message.Message):
    __slots__ = ("opening",)
    OPENING_FIELD_NUMBER: _ClassVar[int]
    opening: _session_pb2.SessionOpening
    def __init__(self, opening: _Optional[_Union[_session_pb2.SessionOpening, _Mapping]] = ...) -> None: ...

class OpenSessionResponse(_message.Message):
    __slots__ = ("session_id", "ttl_ms", "ttl_left_ms")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    TTL_LEFT_MS_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    ttl_ms: int
    ttl_left_ms: int
    def __init__(self, session_id: _Optional[str] = ..., ttl_ms: _Optional[int] = ..., ttl_left_ms: _Optional[int] = ...) -> None: ...

class RenewSessionRequest(_message.Message):
    __slots__ = ("session", "list_open_requests")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    LIST_OPEN_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    session: _session_pb2.SessionRef
    list_open_requests: bool
    def __init__(self, session: _Optional[_Union[_session_pb2.SessionRef, _Mapping]] = ..., list_open_requests: bool = ...) -> None: ...

class RenewSessionResponse(_message.Message):
    __slots__ = ("ttl_ms", "ttl_left_ms", "open_requests")
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    TTL_LEFT_MS_FIELD_NUMBER: _ClassVar[int]
    OPEN_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    ttl_ms: int
    ttl_left_ms: int
    open_requests: _containers.RepeatedCompositeFieldContainer[_session_pb2.OpenRequest]
    def __init__(self, ttl_ms: _Optional[int] = ..., ttl_left_ms: _Optional[int] = ..., open_requests: _Optional[_Iterable[_Union[_session_pb2.OpenRequest, _Mapping]]] = ...) -> None: ...

class CloseSessionRequest(_message.Message):
    __slots__ = ("session",)
    SESSION_FIELD_NUMBER: _ClassVar[int]
    session: _session_pb2.SessionRef
    def __init__(self, session: _Optional[_Union[_session_pb2.SessionRef, _Mapping]] = ...) -> None: ...

class CloseSessionResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AcquireRequest(_message.Message):
    __slots__ = ("session", "opening", "request_id", "resource", "wait_ms", "lock_delay_ms", "metadata", "attempt")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    OPENING_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    LOCK_DELAY_MS_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    session: _session_pb2.SessionRef
    opening: _session_pb2.SessionOpening
    request_id: str
    resource: str
    wait_ms: int
    lock_delay_ms: int
    metadata: bytes
    attempt: int
    def __init__(self, session: _Optional[_Union[_session_pb2.SessionRef, _Mapping]] = ..., opening: _Optional[_Union[_session_pb2.SessionOpening, _Mapping]] = ..., request_id: _Optional[str] = ..., resource: _Optional[str] = ..., wait_ms: _Optional[int] = ..., lock_delay_ms: _Optional[int] = ..., metadata: _Optional[bytes] = ..., attempt: _Optional[int] = ...) -> None: ...

class AcquireResponse(_message.Message):
    __slots__ = ("lease", "session_id", "ttl_left_ms", "previous")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    TTL_LEFT_MS_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    lease: _lease_pb2.Lease
    session_id: str
    ttl_left_ms: int
    previous: _lease_pb2.PreviousEnd
    def __init__(self, lease: _Optional[_Union[_lease_pb2.Lease, _Mapping]] = ..., session_id: _Optional[str] = ..., ttl_left_ms: _Optional[int] = ..., previous: _Optional[_Union[_lease_pb2.PreviousEnd, _Mapping]] = ...) -> None: ...

class ReleaseRequest(_message.Message):
    __slots__ = ("session", "resource", "token", "request_id", "refused_by_fence")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    REFUSED_BY_FENCE_FIELD_NUMBER: _ClassVar[int]
    session: _session_pb2.SessionRef
    resource: str
    token: int
    request_id: str
    refused_by_fence: int
    def __init__(self, session: _Optional[_Union[_session_pb2.SessionRef, _Mapping]] = ..., resource: _Optional[str] = ..., token: _Optional[int] = ..., request_id: _Optional[str] = ..., refused_by_fence: _Optional[int] = ...) -> None: ...

class ReleaseResponse(_message.Message):
    __slots__ = ("outcome", "end", "queue_place_given_back", "revision")
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    QUEUE_PLACE_GIVEN_BACK_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    outcome: _lease_pb2.ReleaseOutcome
    end: _lease_pb2.LeaseEnd
    queue_place_given_back: bool
    revision: int
    def __init__(self, outcome: _Optional[_Union[_lease_pb2.ReleaseOutcome, str]] = ..., end: _Optional[_Union[_lease_pb2.LeaseEnd, str]] = ..., queue_place_given_back: bool = ..., revision: _Optional[int] = ...) -> None: ...

class GetLeaseRequest(_message.Message):
    __slots__ = ("resource", "queue_size")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    QUEUE_SIZE_FIELD_NUMBER: _ClassVar[int]
    resource: str
    queue_size: int
    def __init__(self, resource: _Optional[str] = ..., queue_size: _Optional[int] = ...) -> None: ...

class GetLeaseResponse(_message.Message):
    __slots__ = ("lease", "waiters", "revision", "queue", "previous", "lock_delay_left_ms")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    WAITERS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    LOCK_DELAY_LEFT_MS_FIELD_NUMBER: _ClassVar[int]
    lease: _lease_pb2.Lease
    waiters: int
    revision: int
    queue: _containers.RepeatedCompositeFieldContainer[_lease_pb2.Waiter]
    previous: _lease_pb2.PreviousEnd
    lock_delay_left_ms: int
    def __init__(self, lease: _Optional[_Union[_lease_pb2.Lease, _Mapping]] = ..., waiters: _Optional[int] = ..., revision: _Optional[int] = ..., queue: _Optional[_Iterable[_Union[_lease_pb2.Waiter, _Mapping]]] = ..., previous: _Optional[_Union[_lease_pb2.PreviousEnd, _Mapping]] = ..., lock_delay_left_ms: _Optional[int] = ...) -> None: ...

class ListLeasesRequest(_message.Message):
    __slots__ = ("prefix", "page_size", "page_token")
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    prefix: str
    page_size: int
    page_token: str
    def __init__(self, prefix: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListLeasesResponse(_message.Message):
    __slots__ = ("leases", "next_page_token", "revision")
    LEASES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    leases: _containers.RepeatedCompositeFieldContainer[_lease_pb2.Lease]
    next_page_token: str
    revision: int
    def __init__(self, leases: _Optional[_Iterable[_Union[_lease_pb2.Lease, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...

class CheckTokenRequest(_message.Message):
    __slots__ = ("resource", "token")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    resource: str
    token: int
    def __init__(self, resource: _Optional[str] = ..., token: _Optional[int] = ...) -> None: ...

class CheckTokenResponse(_message.Message):
    __slots__ = ("state", "current_token", "revision")
    STATE_FIELD_NUMBER: _ClassVar[int]
    CURRENT_TOKEN_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    state: TokenState
    current_token: int
    revision: int
    def __init__(self, state: _Optional[_Union[TokenState, str]] = ..., current_token: _Optional[int] = ..., revision: _Optional[int] = ...) -> None: ...
