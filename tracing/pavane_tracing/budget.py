"""Budget: how many spans may still come in a trace below a message, so that no trace of a saga grows without bound.

It travels in ``tracestate``, in a member of our own, ``pavane=<spans>``. Each unit of work takes from it what it says
itself, and shares the rest out among what it sends; a message for which too little is left is stamped ``pavane=0``: its
receiver begins a new trace, linked to it, with a budget of its own. Nothing is counted together, so nothing is shared
between processes, and the same hops roll over at the same places. https://www.w3.org/TR/trace-context-2/#tracestate-header
"""

from typing import Final

from mypy_extensions import mypyc_attr

FRESH: Final = 480
"""What a trace begins with, and what a message has that says nothing, as those from elsewhere do.

A fourth of what a trace may have (:data:`MOST_IN_TRACE`). It is counted along what is sent: how many listen to an event its
sender cannot know. So each may be worked on by four on the average before a trace is larger than that.
"""

MOST_IN_TRACE: Final = 2_000
"""What a trace of a saga is to stay below."""

MEMBER: Final = "pavane"

_FEWEST: Final = 2
"""The least that is worth handing on: to be processed, and to be answered."""
_MOST_OTHERS: Final = 31
_PREFIX: Final = f"{MEMBER}="
_STATES: Final = tuple(f"{_PREFIX}{left}" for left in range(FRESH + 1))
_LEFT: Final = {state: left for left, state in enumerate(_STATES)}


def split_state(header: str) -> tuple[str | None, int | None]:
    """A ``tracestate`` as what others say in it, untouched, and our budget; None for what is not there or not ours to read."""
    left = _LEFT.get(header)
    if left is not None:
        return None, left
    if _PREFIX not in header:
        return header, None
    members = [member.strip(" \t") for member in header.split(",")]
    own = [member for member in members if member.startswith(_PREFIX)]
    if not own:
        return header, None
    others = ",".join(member for member in members if member and not member.startswith(_PREFIX))
    return others or None, _LEFT.get(own[0])


def stamped(left: int, others: str | None = None) -> str:
    """A ``tracestate`` that hands on so much, or, where that is too little, says that a new trace begins (0).

    Our member goes first, since it changed last; of the others there is room for 31.
    """
    own = _STATES[left if left >= _FEWEST else 0]
    if others is None:
        return own
    members = others.split(",")
    return f"{own},{others}" if len(members) <= _MOST_OTHERS else ",".join((own, *members[:_MOST_OTHERS]))


_ONWARD: Final = tuple(stamped(left - 2) for left in range(FRESH + 1))
"""By what is left: what a unit hands on that sends one message, as most do."""


@mypyc_attr(free_list_len=1)
class Budget:
    """What one unit of work may spend, its own span included, and hand on. ``left``: as its message says; None or 0: afresh.

    ``others``: the members of other vendors, which go with every message.
    """

    __slots__ = ("_left", "_others", "_sends", "_spare", "_state")

    def __init__(self, left: int | None, others: str | None) -> None:
        self._left = left = left or FRESH
        self._others = others
        self._sends = 1 if left > 1 else 0
        self._spare = 0
        self._state = _ONWARD[left] if others is None else stamped(left - 2, others)

    def split(self, count: int, spare: int = 0) -> None:
        """So many messages will be sent, and share alike. Said before the first one; unsaid it is one.

        ``spare``: so much is kept back for messages beyond these, which lead to little: each gets half of what is left.
        """
        room = self._left - 1
        share = (room - count - spare) // count if count else 0
        if share < _FEWEST:
            share = 0
        self._sends = min(count, room)
        self._spare = room - self._sends * (1 + share)
        self._state = stamped(share, self._others)

    def take(self) -> str | None:
        """The ``tracestate`` of the next message. None: not even its span has room, so that a trace begins with it."""
        if self._sends:
            self._sends -= 1
            return self._state
        room = self._spare - 1
        if room < 0:
            return None
        share = room // 2 if room // 2 >= _FEWEST else 0
        self._spare = room - share
        return stamped(share, self._others)

    def none(self) -> str:
        """The ``tracestate`` of a message with which, by policy, a new trace begins."""
        return stamped(0, self._others)
