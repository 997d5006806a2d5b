from typing import Self

class ControlRecord:
    version: int
    type_: int
    def __init__(self, version: int, type_: int) -> None: ...
    @classmethod
    def parse(cls, data: bytes) -> Self: ...

ABORT_MARKER: ControlRecord
COMMIT_MARKER: ControlRecord
