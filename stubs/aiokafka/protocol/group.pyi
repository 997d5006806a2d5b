from aiokafka.protocol.api import Request, RequestStruct

class LeaveGroupRequest(Request[RequestStruct]):
    def __init__(self, group: str, member_id: str) -> None: ...

class HeartbeatRequest(Request[RequestStruct]):
    def __init__(self, group: str, generation_id: int, member_id: str) -> None: ...

class JoinGroupRequest(Request[RequestStruct]):
    def __init__(
        self,
        group: str,
        session_timeout: int,
        rebalance_timeout: int,
        member_id: str,
        group_instance_id: str,
        protocol_type: str,
        group_protocols: list[tuple[str, bytes]],
    ) -> None: ...

class SyncGroupRequest(Request[RequestStruct]): ...
