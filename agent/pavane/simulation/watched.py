"""Watched: a user's agents, with every call of a step made through :class:`Calls`."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from pavane.agent import Agent
from pavane.context import Context
from pavane.simulation.calls import Calls
from pavane.step import AnyStep, Found, Outputs, Step, call
from pavane_events.event import Event

_CONTEXT = "pavane_context"


class _Watched(Step[..., object]):
    """A step whose calls are made through :class:`Calls`, with a context even where the user's asks for none."""

    def __init__(self, inner: AnyStep, calls: Callable[[], Calls]) -> None:
        signature, options = inner.signature, inner.options
        fallback = options.fallback
        if signature.context is None:
            signature = replace(signature, context=_CONTEXT)
            if fallback is not None:
                options = replace(options, fallback=_without_context(fallback))
        super().__init__(inner.wire_name, inner.function, signature, options)
        self.undo = inner.undo
        self.reconciliation = inner.reconciliation
        self._inner = inner
        self._calls = calls

    async def perform(self, inputs: Mapping[str, Event], context: Context | None) -> Outputs:
        if context is None:  # never: its signature asks for one
            return await self._inner.perform(inputs, context)
        return await self._calls().do(self._inner, inputs, context)

    async def perform_undo(self, inputs: Mapping[str, Event], done: Outputs | None, context: Context) -> None:
        await self._calls().undo(self._inner, inputs, done, context)

    async def perform_reconciliation(self, inputs: Mapping[str, Event], context: Context) -> Found:
        return await self._calls().ask(self._inner, inputs, context)


def watched(agent: Agent, calls: Callable[[], Calls]) -> Agent:
    """The agent, with every step of it watched. It lives with the agent's own lifespan."""
    found = Agent(agent.name)
    found.steps = {name: _Watched(step, calls) for name, step in agent.steps.items()}
    found.breakers = agent.breakers
    found.living(agent)
    return found


def _without_context(fallback: Callable[..., object]) -> Callable[..., object]:
    async def fall_back(**arguments: object) -> object:
        arguments.pop(_CONTEXT)
        return await call(fallback, arguments)

    return fall_back
