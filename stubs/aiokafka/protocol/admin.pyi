from collections.abc import Sequence

from aiokafka.protocol.api import Request, RequestStruct

class DescribeConfigsRequest(Request[RequestStruct]):
    def __init__(self, resources: Sequence[tuple[int, str, list[str] | None]], include_synonyms: bool = False) -> None: ...

class DescribeGroupsRequest(Request[RequestStruct]):
    def __init__(self, groups: list[str], include_authorized_operations: bool = False) -> None: ...

class ListGroupsRequest(Request[RequestStruct]):
    def __init__(self) -> None: ...

class DeleteTopicsRequest(Request[RequestStruct]):
    def __init__(self, topics: list[str], timeout: int) -> None: ...

class DeleteRecordsRequest(Request[RequestStruct]):
    def __init__(
        self, topics: list[tuple[str, list[tuple[int, int]]]], timeout_ms: int, tags: dict[int, bytes] | None = None
    ) -> None: ...
