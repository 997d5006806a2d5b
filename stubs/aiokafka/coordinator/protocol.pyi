from aiokafka.protocol.struct import Struct
from aiokafka.structs import TopicPartition

class ConsumerProtocolMemberMetadata(Struct):
    version: int
    subscription: list[str]
    user_data: bytes
    def __init__(self, version: int, subscription: list[str], user_data: bytes) -> None: ...

class ConsumerProtocolMemberAssignment(Struct):
    version: int
    assignment: list[tuple[str, list[int]]]
    user_data: bytes
    def __init__(self, version: int, assignment: list[tuple[str, list[int]]], user_data: bytes) -> None: ...
    def partitions(self) -> list[TopicPartition]: ...

class ConsumerProtocol:
    PROTOCOL_TYPE: str
    METADATA: type[ConsumerProtocolMemberMetadata]
    ASSIGNMENT: type[ConsumerProtocolMemberAssignment]
