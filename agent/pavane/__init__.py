"""Pavane: agents that say beside each step how to undo it, on Kafka or one file, with one trace."""

from pavane.agent import Agent
from pavane.breaker import BreakerOpen
from pavane.context import Context
from pavane.fence import EffectUndone, Fence
from pavane.retry import Rejected, Retry
from pavane.step import Step
from pavane_events.event import Event
from pavane_saga.saga import Saga, SagaEnded

__all__ = [
    "Agent",
    "BreakerOpen",
    "Context",
    "EffectUndone",
    "Event",
    "Fence",
    "Rejected",
    "Retry",
    "Saga",
    "SagaEnded",
    "Step",
]
