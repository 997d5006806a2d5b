"""Kit: what every lane of an agent's process shares."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from pavane.breaker import Breakers
from pavane.plan import AgentPlan
from pavane_tracing.work import Tracing


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a lane takes on. The defaults suit most; memory per lane is about ``window`` records.

    ``batch``: records taken at once. ``concurrency``: handlers running at once per lane. ``window``: inputs taken and not
    yet finished, past which a lane stops receiving. ``mark_window``: how far ahead of what was received the begun mark
    is written, in offsets. ``drain_s``: how long a graceful stop waits for running work. ``in_lane_s``: a pause between
    attempts of up to this, and of up to the shortest delay tier in any case, is spent in memory, a longer one in a tier.
    """

    batch: int = 256
    concurrency: int = 64
    window: int = 4096
    mark_window: int = 10_000
    drain_s: float = 10.0
    in_lane_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Kit:
    """One agent's process: its plan and its surroundings. ``clock`` gives seconds since the epoch, ``chance`` [0, 1).

    ``look_s``: how often a lane that hears nothing looks at the clock; None: as often as suits what it waits for.
    ``keeps_s``: how long topics keep records; None: for ever.
    """

    plan: AgentPlan
    deployment: str
    partitions: int
    tracing: Tracing
    breakers: Breakers
    limits: Limits = field(default_factory=Limits)
    clock: Callable[[], float] = time.time
    chance: Callable[[], float] = random.random
    look_s: float | None = None
    keeps_s: float | None = None
