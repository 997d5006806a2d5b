"""Edges: the ways by which work leads to further work, and whether a trace goes on along them or a new, linked one begins.

The sender decides, by these policies and by what is left of its trace's budget (:mod:`pavane_tracing.budget`), and stamps
its choice on what it sends; the receiver follows what is stamped, whatever it would have chosen itself.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

Policy = Literal["continue", "new_linked"]
Edge = Literal[
    "event",
    "admission",
    "answer",
    "grant",
    "undo",
    "end",
    "lock",
    "delayed_retry",
    "timer",
    "declaration",
    "operator",
    "redrive",
]

DEFAULTS: Final[Mapping[Edge, Policy]] = MappingProxyType(
    {
        "event": "continue",  # an event to whoever listens, a saga's start among them
        "admission": "continue",  # from an intake to the lane that owns the saga
        "answer": "continue",  # a fact: done, failed, skipped, undone
        "grant": "continue",  # the coordinator lets a step begin
        "undo": "continue",  # the coordinator has a step undone: a trace holds a saga's way back, too
        "end": "continue",  # the coordinator tells everybody that a saga has ended
        "lock": "continue",  # an order to the lane that owns a lock
        "delayed_retry": "new_linked",  # hours may lie before it: a trace that is open for hours is exported in pieces
        "timer": "new_linked",  # nothing sent it, and what it is about is long past
        "declaration": "new_linked",  # an agent's new version makes something due for sagas that may be days old
        "operator": "new_linked",  # a person decided or answered, hours or days later
        "redrive": "new_linked",  # the same, and its trace is to show this try and not the one that failed
    }
)
"""What is done along each edge unless it is set otherwise. Why: ``docs/decisions/0014-edges-of-a-trace.md``."""

NEW_LINKED: Final[frozenset[Edge]] = frozenset(edge for edge, policy in DEFAULTS.items() if policy == "new_linked")
"""The edges at which a new trace begins by default."""


_EDGES: Final[Mapping[str, Edge]] = {edge: edge for edge in DEFAULTS}
_POLICIES: Final[Mapping[str, Policy]] = {policy: policy for policy in DEFAULTS.values()}


def edges_of(text: str) -> frozenset[Edge]:
    """The edges at which a new trace begins, by the defaults and what a setting says: ``redrive=continue,undo=new_linked``.

    Raises :class:`ValueError` for an edge or a policy that there is not.
    """
    policies = dict(DEFAULTS)
    for part in filter(None, map(str.strip, text.split(","))):
        name, _, asked = (each.strip() for each in part.partition("="))
        edge, policy = _EDGES.get(name), _POLICIES.get(asked)
        if edge is None or policy is None:
            raise ValueError(f"use EDGE=continue or EDGE=new_linked, with commas between; the edges are {', '.join(DEFAULTS)}")
        policies[edge] = policy
    return frozenset(edge for edge, policy in policies.items() if policy == "new_linked")
