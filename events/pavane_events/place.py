"""Place: the file and line of the code, outside the platform, that declares something."""

import inspect
from dataclasses import dataclass
from types import FrameType

_NOT_THE_USERS = frozenset({"pavane", "pavane_events", "pavane_saga", "pavane_tracing", "pydantic", "abc"})
"""The platform, and what stands between it and a class of events that is being made."""


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a file."""

    file: str
    line: int


def calling_place() -> Place | None:
    """Where whoever uses the platform called into it just now; None where nobody did."""
    frame = inspect.currentframe()
    while frame is not None:
        if _is_users(frame):
            return Place(frame.f_code.co_filename, frame.f_lineno)
        frame = frame.f_back
    return None


def raising_place(error: BaseException) -> Place | None:
    """Where whoever uses the platform called into it when the error was raised; None where nobody did."""
    found: Place | None = None
    traceback = error.__traceback__
    while traceback is not None:
        if _is_users(traceback.tb_frame):
            found = Place(traceback.tb_frame.f_code.co_filename, traceback.tb_lineno)
        traceback = traceback.tb_next
    return found


def _is_users(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] not in _NOT_THE_USERS
