"""Verifications for the tests of the command line: one that holds, one whose undo forgets, and one that somebody stops."""

from dataclasses import replace
from datetime import timedelta
from itertools import count

from pavane import Agent, Context, Event, Saga
from pavane.testing import HistoryPlayed, Verification


class Begun(Event, type="verified.begun"):
    n: int = 0


class Over(Event, type="verified.over"):
    n: int = 0


def _verification(*, forgets: bool) -> Verification:
    standing: dict[str, str | None] = {}
    undone: set[str] = set()
    agent = Agent("only")

    @agent.step
    async def act(begun: Begun, ctx: Context) -> Over:
        if ctx.idempotency_key not in undone:
            standing[ctx.idempotency_key] = ctx.saga
        return Over()

    @act.compensate(within=timedelta(seconds=30))
    async def take_back(begun: Begun, done: Over | None, ctx: Context) -> None:
        if done is not None or not forgets:
            undone.add(ctx.idempotency_key)
            standing.pop(ctx.idempotency_key, None)

    def nothing_stands(history: HistoryPlayed) -> None:
        for saga in history.sagas:
            stands = saga.id in standing.values()
            assert saga.verdict == "completed" or not stands, "an effect stands in a saga that is compensated"

    def reset() -> None:
        standing.clear()
        undone.clear()

    return Verification(
        agents=[agent],
        sagas=[Saga("verified", starts=Begun, completes=Over, intake="verified.intake")],
        starts={"it's the only one": Begun()},
        invariant=nothing_stands,
        reset=reset,
    )


_played = count(1)


def _stopped() -> None:
    """Ctrl-C, in the middle of the thirtieth history."""
    if next(_played) == 30:
        raise KeyboardInterrupt


sound = _verification(forgets=False)
stopped = replace(sound, reset=_stopped)
forgetful = _verification(forgets=True)
