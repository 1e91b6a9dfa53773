from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class OpenRequestState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OPEN_REQUEST_STATE_UNSPECIFIED: _ClassVar[OpenRequestState]
    OPEN_REQUEST_STATE_HELD: _ClassVar[OpenRequestState]
    OPEN_REQUEST_STATE_QUEUED: _ClassVar[OpenRequestState]
    OPEN_REQUEST_STATE_ABSENT: _ClassVar[OpenRequestState]
OPEN_REQUEST_STATE_UNSPECIFIED: OpenRequestState
OPEN_REQUEST_STATE_HELD: OpenRequestState
OPEN_REQUEST_STATE_QUEUED: OpenRequestState
OPEN_REQUEST_STATE_ABSENT: OpenRequestState

class SessionRef(_message.Message):
    __slots__ = ("session_id", "secret", "epoch")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    secret: bytes
    epoch: int
    def __init__(self, session_id: _Optional[str] = ..., secret: _Optional[bytes] = ..., epoch: _Optional[int] = ...) -> None: ...

class SessionOpening(_message.Message):
    __slots__ = ("open_id", "secret", "ttl_ms", "label", "epoch")
    OPEN_ID_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    open_id: str
    secret: bytes
    ttl_ms: int
    label: str
    epoch: int
    def __init__(self, open_id: _Optional[str] = ..., secret: _Optional[bytes] = ..., ttl_ms: _Optional[int] = ..., label: _Optional[str] = ..., epoch: _Optional[int] = ...) -> None: ...

class OpenRequest(_message.Message):
    __slots__ = ("resource", "request_id", "token")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    resource: str
    request_id: str
    token: int
    def __init__(self, resource: _Optional[str] = ..., request_id: _Optional[str] = ..., token: _Optional[int] = ...) -> None: ...

class OpenRequestStatus(_message.Message):
    __slots__ = ("request", "state")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    request: OpenRequest
    state: OpenRequestState
    def __init__(self, request: _Optional[_Union[OpenRequest, _Mapping]] = ..., state: _Optional[_Union[OpenRequestState, str]] = ...) -> None: ...
