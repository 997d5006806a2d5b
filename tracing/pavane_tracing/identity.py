"""Ids of traces and spans: random, in hex, drawn from the operating system a hundred at a time, for one costs as much as all.

From any thread. A process that is forked draws its own.
"""

import os
from typing import Final

_DRAWN: Final = 128
_SPAN_IDS: Final[list[str]] = []
_NO_SPAN_ID: Final = "0" * 16


def new_span_id() -> str:
    """A random span id."""
    while True:
        try:
            return _SPAN_IDS.pop()
        except IndexError:
            drawn = os.urandom(8 * _DRAWN).hex()
            found = [drawn[first : first + 16] for first in range(0, 16 * _DRAWN, 16)]
            _SPAN_IDS.extend([each for each in found if each != _NO_SPAN_ID])


def new_trace_id() -> str:
    """A random trace id."""
    return new_span_id() + new_span_id()


os.register_at_fork(after_in_child=_SPAN_IDS.clear)
