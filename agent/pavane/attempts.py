"""Attempts: call, and call again by policy, until there is an answer, a deadline, an end, no attempt left, or a long pause."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final, TypeVar

from pavane.breaker import BreakerOpen
from pavane.fence import EffectUndone
from pavane.kit import Kit
from pavane.retry import Rejected, Retry
from pavane.step import WrongOutput
from pavane.tiers import Delay, fits, is_long
from pavane.units import Abandoned, Interruption, UndoUnit, Unit
from pavane_tracing.work import Work

log: Final = logging.getLogger("pavane.attempts")

T = TypeVar("T")

_LONGEST_REASON: Final = 500


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no answer. ``dead``: the input goes to the dead letters, too (a business "no" does not).

    The reason goes into facts and headers, so it is made fit for them: text, at most 500 characters of it.
    """

    code: str
    reason: str
    attempt: int
    dead: bool

    def __post_init__(self) -> None:
        reason = str(self.reason).encode(errors="replace").decode()
        object.__setattr__(self, "reason", reason[:_LONGEST_REASON])


ENDED: Final = "saga.ended"
ENDED_WAITING: Final = Failure(ENDED, "its saga ended while it was waiting to be tried again", 0, dead=False)
ENDED_IN_DOUBT: Final = Failure(ENDED, "its saga had ended; whether it began is not known", 0, dead=False)


class Policy:
    """How one call is tried: its retries, and its deadline in seconds since the epoch."""

    __slots__ = ("deadline_s", "retry")

    def __init__(self, retry: Retry, deadline_s: float | None = None) -> None:
        self.retry = retry
        self.deadline_s = deadline_s


class DeadlineExpired(Exception):
    """A call was still running when its step's deadline came."""


class AttemptExpired(Exception):
    """One attempt was not over in the time that each of them has: it was cancelled, and has failed."""


class CancelledWithin(Exception):
    """A call ended as cancelled although nobody cancelled it: something that it awaited was. A failed attempt, no more."""


async def attempt(
    attempted: Callable[[int], Awaitable[T]],
    policy: Policy,
    unit: Unit | UndoUnit,
    kit: Kit,
    work: Work,
    aside: Callable[[bool], None],
    fallback: Callable[[], Awaitable[T]] | None = None,
) -> T | Failure | Delay:
    """The answer of ``attempted(number)``, or why there is none, or not yet: then the unit waits in a delay tier.

    Numbers go on from the attempts that the unit has behind it. ``aside(True)`` and ``aside(False)`` bracket each pause,
    so that others may work meanwhile. ``fallback`` stands in while a breaker is open. Raises :class:`Abandoned` where the
    lane stops during a pause.
    """
    number = unit.attempts
    while True:
        number += 1
        opened: BreakerOpen | None = None
        try:
            try:
                return await (
                    attempted(number) if policy.deadline_s is None else _in_time(attempted, number, policy.deadline_s, kit)
                )
            except asyncio.CancelledError as error:
                raise _within(error) from error
        except Rejected as rejected:
            return Failure("rejected", rejected.reason, number, dead=False)
        except EffectUndone:
            return Failure("effect.undone", "the effect was undone before and stays undone", number, dead=False)
        except DeadlineExpired:
            return Failure("deadline", "no answer within its deadline", number, dead=True)
        except WrongOutput as wrong:
            return Failure("output.wrong-type", str(wrong), number, dead=True)
        except BreakerOpen as breaker:
            opened = breaker
            name = breaker.code
        except Exception as error:
            name = _name_of(error)
            log.info("attempt %d of %s failed: %r", number, unit.name, error)
            if number >= policy.retry.attempts:
                return Failure("attempts.exhausted", name, number, dead=True)
        if opened is not None and fallback is not None:
            return await _fall_back(fallback, number, policy, kit)
        number -= 1 if opened is not None else 0
        pause_s = (
            _pause_after(number, name, policy, kit, work) if opened is None else max(0.001, opened.retry_at_s - kit.clock())
        )
        no_more = await _wait(Delay(number, pause_s, name), policy, unit, kit, aside)
        if no_more is not None:
            return no_more


def _pause_after(number: int, name: str, policy: Policy, kit: Kit, work: Work) -> float:
    """How long the next attempt waits for this one's failure to pass; it is told on the span."""
    pause_s = policy.retry.pause_s(number, kit.chance())
    work.event("retry", {"attempt": number, "error.type": name, "pause_s": pause_s})
    return pause_s


async def _wait(
    delay: Delay, policy: Policy, unit: Unit | UndoUnit, kit: Kit, aside: Callable[[bool], None]
) -> Failure | Delay | None:
    """Pause here, and return None; or say why there is no further attempt now."""
    if policy.deadline_s is not None:
        delay = replace(delay, pause_s=min(delay.pause_s, max(0.0, policy.deadline_s - kit.clock())), exact=True)
    if unit.interrupted != "ended" and is_long(delay.pause_s, kit.limits.in_lane_s) and fits(unit.record):
        return delay
    interruption = await _pause(delay.pause_s, unit, aside)
    if interruption is None:
        return None
    if interruption == "ended":
        return replace(ENDED_WAITING, attempt=delay.attempts)
    raise Abandoned


async def _fall_back(fallback: Callable[[], Awaitable[T]], number: int, policy: Policy, kit: Kit) -> T | Failure:
    try:
        try:
            return await (
                fallback() if policy.deadline_s is None else _in_time(lambda _: fallback(), number, policy.deadline_s, kit)
            )
        except asyncio.CancelledError as error:
            raise _within(error) from error
    except Rejected as rejected:
        return Failure("rejected", rejected.reason, number, dead=False)
    except Exception as error:
        log.exception("a fallback failed")
        return Failure("fallback.failed", _name_of(error), number, dead=True)


async def bounded(call: Awaitable[T], within: timedelta | None) -> T:
    """The answer of one attempt; :class:`AttemptExpired` where there is none in time: then it was cancelled."""
    if within is None:
        return await call
    bound = asyncio.timeout(within.total_seconds())
    try:
        async with bound:
            return await call
    except TimeoutError:
        if bound.expired():
            raise AttemptExpired from None
        raise


def _name_of(error: Exception) -> str:
    return f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")


def _within(error: asyncio.CancelledError) -> BaseException:
    """What a call that ended as cancelled is to raise: the same where somebody did cancel it."""
    task = asyncio.current_task()
    return error if task is None or task.cancelling() else CancelledWithin()


async def _in_time(attempted: Callable[[int], Awaitable[T]], number: int, deadline_s: float, kit: Kit) -> T:
    remaining = deadline_s - kit.clock()
    if remaining <= 0:
        raise DeadlineExpired
    bound = asyncio.timeout(remaining)
    try:
        async with bound:
            return await attempted(number)
    except TimeoutError:
        if bound.expired():
            raise DeadlineExpired from None
        raise


async def _pause(pause_s: float, unit: Unit | UndoUnit, aside: Callable[[bool], None]) -> Interruption | None:
    if unit.interrupted is not None:
        return unit.interrupted
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Interruption | None] = loop.create_future()
    unit.pause = future
    timer = loop.call_later(pause_s, _end_pause, future)
    aside(True)
    try:
        return await future
    finally:
        timer.cancel()
        unit.pause = None
        aside(False)


def _end_pause(future: "asyncio.Future[Interruption | None]") -> None:
    if not future.done():
        future.set_result(None)
