from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LeaseEnd(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LEASE_END_UNSPECIFIED: _ClassVar[LeaseEnd]
    LEASE_END_RELEASED: _ClassVar[LeaseEnd]
    LEASE_END_EXPIRED: _ClassVar[LeaseEnd]
    LEASE_END_REVOKED: _ClassVar[LeaseEnd]
    LEASE_END_UNKNOWN: _ClassVar[LeaseEnd]

class ReleaseOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RELEASE_OUTCOME_UNSPECIFIED: _ClassVar[ReleaseOutcome]
    RELEASE_OUTCOME_RELEASED: _ClassVar[ReleaseOutcome]
    RELEASE_OUTCOME_NOT_HELD: _ClassVar[ReleaseOutcome]
LEASE_END_UNSPECIFIED: LeaseEnd
LEASE_END_RELEASED: LeaseEnd
LEASE_END_EXPIRED: LeaseEnd
LEASE_END_REVOKED: LeaseEnd
LEASE_END_UNKNOWN: LeaseEnd
RELEASE_OUTCOME_UNSPECIFIED: ReleaseOutcome
RELEASE_OUTCOME_RELEASED: ReleaseOutcome
RELEASE_OUTCOME_NOT_HELD: ReleaseOutcome

class Lease(_message.Message):
    __slots__ = ("resource", "token", "holder", "session_id", "request_id", "label", "metadata", "granted_revision", "generation", "lock_delay_ms", "ttl_ms", "granted_unix_ms", "waiters")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    GRANTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    LOCK_DELAY_MS_FIELD_NUMBER: _ClassVar[int]
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    GRANTED_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    WAITERS_FIELD_NUMBER: _ClassVar[int]
    resource: str
    token: int
    holder: bytes
    session_id: str
    request_id: str
    label: str
    metadata: bytes
    granted_revision: int
    generation: Generation
    lock_delay_ms: int
    ttl_ms: int
    granted_unix_ms: int
    waiters: int
    def __init__(self, resource: _Optional[str] = ..., token: _Optional[int] = ..., holder: _Optional[bytes] = ..., session_id: _Optional[str] = ..., request_id: _Optional[str] = ..., label: _Optional[str] = ..., metadata: _Optional[bytes] = ..., granted_revision: _Optional[int] = ..., generation: _Optional[_Union[Generation, _Mapping]] = ..., lock_delay_ms: _Optional[int] = ..., ttl_ms: _Optional[int] = ..., granted_unix_ms: _Optional[int] = ..., waiters: _Optional[int] = ...) -> None: ...

class Generation(_message.Message):
    __slots__ = ("nonce", "base", "since_revision")
    NONCE_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    SINCE_REVISION_FIELD_NUMBER: _ClassVar[int]
    nonce: bytes
    base: int
    since_revision: int
    def __init__(self, nonce: _Optional[bytes] = ..., base: _Optional[int] = ..., since_revision: _Optional[int] = ...) -> None: ...

class PreviousEnd(_message.Message):
    __slots__ = ("end", "token", "reason", "label")
    END_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    end: LeaseEnd
    token: int
    reason: str
    label: str
    def __init__(self, end: _Optional[_Union[LeaseEnd, str]] = ..., token: _Optional[int] = ..., reason: _Optional[str] = ..., label: _Optional[str] = ...) -> None: ...

class Waiter(_message.Message):
    __slots__ = ("session_id", "request_id", "label", "enqueued_revision")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    ENQUEUED_REVISION_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    request_id: str
    label: str
    enqueued_revision: int
    def __init__(self, session_id: _Optional[str] = ..., request_id: _Optional[str] = ..., label: _Optional[str] = ..., enqueued_revision: _Optional[int] = ...) -> None: ...
