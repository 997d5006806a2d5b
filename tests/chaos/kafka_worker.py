"""A worker on the Lane port: copies events and counts those of each key in its lane's state, until it is told to stop.

    python -m chaos.kafka_worker '{"servers": ..., "prefix": ...}'

It says in lines what happens to it: ``ready``, ``granted 3``, ``lost 3``, ``caught`` and ``open`` where it was told to stop;
``silent 3`` and ``polled 3`` as its health tells of a lane.
"""

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence

from chaos.kafka_order import Order, output_value
from pavane_events.bus import Lane
from pavane_events.buses.kafka import transactions
from pavane_events.buses.kafka.bus import KafkaBus
from pavane_events.errors import BusUnavailable, LaneLost
from pavane_events.record import Message, Record

COUNT = b"count:"
"""Before a key of an event: the key in the lane's state under which those of its key are counted."""

_RECEIVE_S = 1.0
_AGAIN_S = 0.2
_LOOK_S = 0.1


def say(line: str) -> None:
    """Tell the test."""
    print(line, flush=True)


def transform(lane: Lane, target: str, records: Sequence[Record]) -> tuple[list[Message], dict[bytes, bytes | None]]:
    """Outputs, and the counts after them."""
    counts: dict[bytes, int] = {}
    outputs: list[Message] = []
    for record in records:
        key = record.key or b""
        counts[key] = counts.get(key, int(lane.state.get(COUNT + key) or b"0")) + 1
        outputs.append(Message(target, output_value(record.value or b"", record.offset, counts[key]), key))
    return outputs, {COUNT + key: b"%d" % count for key, count in counts.items()}


async def copy(lane: Lane, order: Order) -> None:
    """Copy until the lane is lost."""
    say(f"granted {lane.partition}")
    try:
        while True:
            records = await lane.receive(order.batch, _RECEIVE_S)
            if records:
                await _copy_batch(lane, order, records)
    except LaneLost:
        say(f"lost {lane.partition}")


async def _copy_batch(lane: Lane, order: Order, records: Sequence[Record]) -> None:
    outputs, state = transform(lane, order.target, records)
    await asyncio.sleep(order.work_s)
    if order.stop == "before commit" and not _stopped.is_set():
        _stopped.set()
        say("caught")
        os.kill(os.getpid(), signal.SIGSTOP)
    while True:
        try:
            await lane.commit({order.source: records[-1].offset + 1}, outputs, state)
        except BusUnavailable as error:
            say(f"again {error}")
            await asyncio.sleep(_AGAIN_S)
        else:
            return


_stopped = asyncio.Event()


def wait_in_transactions() -> None:
    """Let no transaction end: outputs and offsets are written, and nobody asks for the end."""

    async def wait(self: transactions.Producer) -> None:
        say("open")
        await asyncio.Event().wait()

    setattr(transactions.Producer, "_end", wait)  # noqa: B010  the one place where a kill can be aimed at


def let_the_clock_jump(jump_s: float) -> None:
    """Let this process's wall clock jump each second: behind, right, ahead, behind..."""
    true_time = time.time
    time.time = lambda: true_time() + jump_s * (int(time.monotonic()) % 3 - 1)


async def tell_health(bus: KafkaBus) -> None:
    """Say when a lane falls silent, and when it does so no more, until cancelled."""
    silent: set[int] = set()
    while True:
        now = {lane.partition: lane.polling for lane in bus.health()}
        for number, polling in now.items():
            if polling == (number in silent):
                say(f"{'polled' if polling else 'silent'} {number}")
                silent ^= {number}
        silent &= now.keys()
        await asyncio.sleep(_LOOK_S)


async def work(order: Order) -> None:
    """Until SIGTERM."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    if order.stop == "in transaction":
        loop.add_signal_handler(signal.SIGUSR1, wait_in_transactions)
    async with await order.open() as bus:
        lanes = await bus.lanes(order.group, [order.source])
        say("ready")

        async def take() -> None:
            async with asyncio.TaskGroup() as copying:
                async for lane in lanes:
                    copying.create_task(copy(lane, order))

        taking, stopping = asyncio.create_task(take()), asyncio.create_task(stop.wait())
        telling = asyncio.create_task(tell_health(bus))
        await asyncio.wait([taking, stopping], return_when=asyncio.FIRST_COMPLETED)
        await lanes.close()
        await taking
        stopping.cancel()
        telling.cancel()


def main() -> None:
    """As its command line says."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(name)s %(levelname)s %(message)s")
    order = Order.from_json(sys.argv[1])
    if order.clock_jumps_s:
        let_the_clock_jump(order.clock_jumps_s)
    asyncio.run(work(order))


if __name__ == "__main__":
    main()
