import abc
from typing import Any, ClassVar, Generic, TypeVar

from aiokafka.protocol.struct import Struct
from aiokafka.protocol.types import Schema

T = TypeVar("T", bound=RequestStruct, covariant=True)

class Request(abc.ABC, Generic[T]):
    """Kept without ``build`` here, so that any request is a ``Request[RequestStruct]``; those of ours define it."""

    API_KEY: ClassVar[int]
    ALLOW_UNKNOWN_API_VERSION: ClassVar[bool]

class RequestStruct(Struct):
    FLEXIBLE_VERSION: ClassVar[bool]
    API_KEY: ClassVar[int]
    API_VERSION: ClassVar[int]
    RESPONSE_TYPE: ClassVar[type[Response]]
    SCHEMA: ClassVar[Schema]

class Response(Struct):
    """Its fields are those of its schema."""

    API_KEY: ClassVar[int]
    API_VERSION: ClassVar[int]
    def to_object(self) -> dict[str, Any]: ...
    def __getattr__(self, name: str) -> Any: ...
