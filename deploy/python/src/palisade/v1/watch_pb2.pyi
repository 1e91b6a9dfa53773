from palisade.v1 import lease_pb2 as _lease_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LeaseEventType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LEASE_EVENT_TYPE_UNSPECIFIED: _ClassVar[LeaseEventType]
    LEASE_EVENT_TYPE_SNAPSHOT: _ClassVar[LeaseEventType]
    LEASE_EVENT_TYPE_SNAPSHOT_END: _ClassVar[LeaseEventType]
    LEASE_EVENT_TYPE_GRANTED: _ClassVar[LeaseEventType]
    LEASE_EVENT_TYPE_RELEASED: _ClassVar[LeaseEventType]
    LEASE_EVENT_TYPE_EXPIRED: _ClassVar[LeaseEventType]
    LEASE_EVENT_TYPE_REVOKED: _ClassVar[LeaseEventType]
    LEASE_EVENT_TYPE_ENDED: _ClassVar[LeaseEventType]
    LEASE_EVENT_TYPE_VACANT: _ClassVar[LeaseEventType]
    LEASE_EVENT_TYPE_BOOKMARK: _ClassVar[LeaseEventType]
    LEASE_EVENT_TYPE_RESYNC: _ClassVar[LeaseEventType]
LEASE_EVENT_TYPE_UNSPECIFIED: LeaseEventType
LEASE_EVENT_TYPE_SNAPSHOT: LeaseEventType
LEASE_EVENT_TYPE_SNAPSHOT_END: LeaseEventType
LEASE_EVENT_TYPE_GRANTED: LeaseEventType
LEASE_EVENT_TYPE_RELEASED: LeaseEventType
LEASE_EVENT_TYPE_EXPIRED: LeaseEventType
LEASE_EVENT_TYPE_REVOKED: LeaseEventType
LEASE_EVENT_TYPE_ENDED: LeaseEventType
LEASE_EVENT_TYPE_VACANT: LeaseEventType
LEASE_EVENT_TYPE_BOOKMARK: LeaseEventType
LEASE_EVENT_TYPE_RESYNC: LeaseEventType

class LeaseEvent(_message.Message):
    __slots__ = ("type", "revision", "resource", "lease", "reason")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    type: LeaseEventType
    revision: int
    resource: str
    lease: _lease_pb2.Lease
    reason: str
    def __init__(self, type: _Optional[_Union[LeaseEventType, str]] = ..., revision: _Optional[int] = ..., resource: _Optional[str] = ..., lease: _Optional[_Union[_lease_pb2.Lease, _Mapping]] = ..., reason: _Optional[str] = ...) -> None: ...

class WatchLeasesRequest(_message.Message):
    __slots__ = ("resource", "prefix", "resume_revision", "bookmark_interval_ms")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    RESUME_REVISION_FIELD_NUMBER: _ClassVar[int]
    BOOKMARK_INTERVAL_MS_FIELD_NUMBER: _ClassVar[int]
    resource: str
    prefix: str
    resume_revision: int
    bookmark_interval_ms: int
    def __init__(self, resource: _Optional[str] = ..., prefix: _Optional[str] = ..., resume_revision: _Optional[int] = ..., bookmark_interval_ms: _Optional[int] = ...) -> None: ...

class WatchLeasesResponse(_message.Message):
    __slots__ = ("events",)
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[LeaseEvent]
    def __init__(self, events: _Optional[_Iterable[_Union[LeaseEvent, _Mapping]]] = ...) -> None: ...
