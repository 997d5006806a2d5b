from aiokafka.protocol.api import Request, RequestStruct

class OffsetRequest(Request[RequestStruct]):
    def __init__(self, replica_id: int, isolation_level: int, topics: list[tuple[str, list[tuple[int, int]]]]) -> None: ...
