"""Workers: in order by key, side by side otherwise, pauses step aside, a stop drains."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from pavane.units import Interruption
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
