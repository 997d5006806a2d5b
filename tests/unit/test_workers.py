"""Workers: in order by key, side by side otherwise, pauses step aside, a stop drains."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pavane.units import Abandoned, Interruption
from pavane.workers import Workers


@dataclass(eq=False)
class Piece:
    key: str | None
    number: int
    interrupted: list[Interruption] = field(default_factory=list[Interruption])

    def interrupt(self, why: Interruption) -> None:
        self.interrupted.append(why)


def perform(
    work: Callable[[Piece], Awaitable[None]], scenario: Callable[[Workers[Piece]], Awaitable[None]], concurrency: int = 8
) -> None:
    async def main() -> None:
        workers = Workers(work, concurrency)
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            workers.start(group)
            await scenario(workers)
            workers.cancel()

    asyncio.run(main())


def test_one_key_is_in_order_although_others_overtake() -> None:
    done: list[tuple[str | None, int]] = []
    gates = {"a": asyncio.Event()}

    async def work(piece: Piece) -> None:
        if piece.key in gates:
            await gates[piece.key].wait()
        done.append((piece.key, piece.number))

    async def scenario(workers: Workers[Piece]) -> None:
        for number in range(3):
            workers.submit(Piece("a", number))
            workers.submit(Piece("b", number))
        workers.wake()
        await asyncio.sleep(0.01)
        assert done == [("b", 0), ("b", 1), ("b", 2)]
        gates["a"].set()
        await asyncio.sleep(0.01)
        assert done[3:] == [("a", 0), ("a", 1), ("a", 2)]

    perform(work, scenario)


def test_no_more_run_at_once_than_allowed_unless_they_step_aside() -> None:
    running: set[int] = set()
    most: list[int] = []
    leave = asyncio.Event()

    async def work(piece: Piece) -> None:
        running.add(piece.number)
        most.append(len(running))
        await leave.wait()
        running.discard(piece.number)

    async def scenario(workers: Workers[Piece]) -> None:
        for number in range(10):
            workers.submit(Piece(f"k{number}", number))
        workers.wake()
        await asyncio.sleep(0.01)
        assert len(running) == 3
        workers.step_aside(True)
        await asyncio.sleep(0.01)
        assert len(running) == 4
        workers.step_aside(False)
        leave.set()
        await asyncio.sleep(0.01)
        assert running == set()
        assert len(most) == 10

    perform(work, scenario, concurrency=3)


def test_what_has_no_key_goes_ahead_of_what_waits() -> None:
    order: list[int] = []

    async def work(piece: Piece) -> None:
        order.append(piece.number)

    async def scenario(workers: Workers[Piece]) -> None:
        workers.submit(Piece("a", 1))
        workers.submit(Piece("b", 2))
        workers.submit(Piece(None, 0))
        workers.wake()
        await asyncio.sleep(0.01)
        assert order == [0, 1, 2]

    perform(work, scenario)


def test_one_can_wait_until_nothing_of_a_key_runs() -> None:
    leave = asyncio.Event()

    async def work(piece: Piece) -> None:
        await leave.wait()

    async def scenario(workers: Workers[Piece]) -> None:
        workers.submit(Piece("a", 1))
        workers.wake()
        await asyncio.sleep(0.01)
        assert workers.running("a") is not None
        waiting = asyncio.create_task(workers.finished("a"))
        await asyncio.sleep(0)
        assert not waiting.done()
        leave.set()
        await waiting
        assert workers.running("a") is None

    perform(work, scenario)


def test_a_stop_begins_nothing_more_and_lets_what_runs_finish() -> None:
    leave = asyncio.Event()
    done: list[int] = []
    pieces = [Piece("a", 1), Piece("a", 2), Piece(None, 3)]

    async def work(piece: Piece) -> None:
        await leave.wait()
        done.append(piece.number)

    async def scenario(workers: Workers[Piece]) -> None:
        for piece in pieces:
            workers.submit(piece)
        workers.wake()
        await asyncio.sleep(0.01)
        draining = asyncio.create_task(workers.drain(5))
        await asyncio.sleep(0.01)
        assert not draining.done()
        leave.set()
        assert await draining
        await asyncio.sleep(0.01)
        assert sorted(done) == [1, 3]
        assert [piece.interrupted for piece in pieces] == [["stopping"], [], ["stopping"]]

    perform(work, scenario)


def test_a_drain_gives_up_after_its_time() -> None:
    async def work(piece: Piece) -> None:
        await asyncio.Event().wait()

    async def scenario(workers: Workers[Piece]) -> None:
        workers.submit(Piece("a", 1))
        workers.wake()
        await asyncio.sleep(0.01)
        assert not await workers.drain(0.02)

    perform(work, scenario)


def test_what_a_unit_raises_ends_the_lane_and_a_unit_given_up_does_not() -> None:
    class Died(BaseException):
        pass

    done: list[int] = []

    async def work(piece: Piece) -> None:
        if piece.number == 0:
            raise Abandoned
        if piece.number == 2:
            raise Died
        done.append(piece.number)

    async def scenario(workers: Workers[Piece]) -> None:
        for number in range(4):
            workers.submit(Piece("a", number))
        workers.wake()
        await asyncio.Event().wait()

    with pytest.raises(BaseExceptionGroup) as raised:
        perform(work, scenario)
    assert raised.group_contains(Died)
    assert done == [1]


def test_a_pause_during_a_stop_is_waited_for_until_it_has_ended() -> None:
    resume = asyncio.Event()
    workers_of: list[Workers[Piece]] = []

    async def work(piece: Piece) -> None:
        workers_of[0].step_aside(True)
        await resume.wait()
        workers_of[0].step_aside(False)

    async def scenario(workers: Workers[Piece]) -> None:
        workers_of.append(workers)
        workers.submit(Piece("a", 1))
        workers.wake()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        draining = asyncio.create_task(workers.drain(5))
        await asyncio.sleep(0.01)
        assert not draining.done()
        resume.set()
        assert await draining

    perform(work, scenario)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), max_size=40), st.integers(1, 4), st.integers(0, 2**16))
@settings(deadline=None, max_examples=50)
def test_each_key_is_in_order_and_no_more_run_than_allowed_whatever_the_load(
    load: list[tuple[str, int]], concurrency: int, seed: int
) -> None:
    chance = random.Random(seed)
    done: list[tuple[str | None, int]] = []
    running: list[str | None] = []
    everything = asyncio.Event()

    async def work(piece: Piece) -> None:
        running.append(piece.key)
        assert len(running) <= concurrency
        assert running.count(piece.key) == 1
        for _ in range(piece.number % 4):
            await asyncio.sleep(0)
        running.remove(piece.key)
        done.append((piece.key, piece.number))
        if len(done) == len(load):
            everything.set()

    async def scenario(workers: Workers[Piece]) -> None:
        for place, (key, turns) in enumerate(load):
            workers.submit(Piece(key, 4 * place + turns))
            if chance.random() < 0.5:
                workers.wake()
                await asyncio.sleep(0)
        workers.wake()
        if load:
            await everything.wait()

    perform(work, scenario, concurrency)
    for key in "abc":
        mine = [number for each, number in done if each == key]
        assert mine == sorted(mine)
