"""Bad days, with a clock beside them: a backlog, a worker that is killed, a lane with much state that finds a new owner."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import AsyncExitStack
from itertools import pairwise

from bench.kafka_child import a_child, a_sender, all_lanes, at_rate, eventually, fill, follow
from bench.kafka_place import Broker, Place
from bench.kafka_relay import data_of, hop, message_of, relay
from bench.kafka_worker import Figures

from pavane_events.bus import TopicSpec
from pavane_events.record import Record

_KEYS_OF_ONE_COMMIT = 1000
_VALUE = b"x" * 100


async def memory(broker: Broker, *, records: int) -> Mapping[str, Figures]:
    """What an agent's process holds while it works off a backlog, beside what it holds with nothing to do."""
    place = Place.fresh(broker)
    crew = [relay(0)]
    await place.create(crew)
    async with a_child(place, ["relay-0"]) as child:
        await all_lanes([child], place.partitions)
        idle = child.memory()
    data = data_of(300)
    await fill(place, hop(0).event_type, records, lambda: message_of(data))
    async with a_child(place, ["relay-0"], until=records) as child:
        await child.until("ended")
        busy = child.memory() | child.window()
    return {"idle": {"peak_mb": idle["peak_mb"]}, f"backlog of {records:,}": busy}


async def kill(broker: Broker, *, rate: float, sessions_ms: tuple[int, ...] = (10_000, 6_000)) -> Mapping[str, Figures]:
    """Two workers share the lanes, one is killed at load: how long until its lanes' events come out again."""
    return {f"session of {each / 1000:.0f} s, {rate:.0f}/s": await _killed(broker, rate, each) for each in sessions_ms}


async def _killed(broker: Broker, rate: float, session_ms: int) -> Figures:
    place = Place.fresh(broker).patient(session_ms)
    await place.create([relay(0)])
    arrivals: dict[int, list[float]] = defaultdict(list)
    sent = 0

    def take(record: Record) -> None:
        arrivals[record.partition].append(time.monotonic())

    async def everything() -> bool:
        return sum(map(len, arrivals.values())) >= sent

    async with AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(a_child(place, ["relay-0"])) for _ in range(2)]
        following = asyncio.create_task(follow(place, hop(1).event_type, take))
        await all_lanes(workers, place.partitions)

        async def shared() -> bool:
            return all([0 < (await each.figures())["lanes"] < place.partitions for each in workers])

        await eventually(shared, 0.2)
        send = await stack.enter_async_context(a_sender(place))
        data = data_of(300)
        sent += await at_rate(rate, 5.0, lambda: send(message_of(data)))
        await eventually(everything)
        sending = asyncio.create_task(at_rate(rate, 5.0 + session_ms / 1000, lambda: send(message_of(data))))
        await asyncio.sleep(2.0)
        mask = int((await workers[0].figures())["partitions"])
        workers[0].kill()
        killed = time.monotonic()
        sent += await sending
        await eventually(everything)
        following.cancel()
        await asyncio.wait([following])
    victims = [number for number in range(place.partitions) if mask >> number & 1]
    gaps = {number: _longest_gap(times, killed) for number, times in arrivals.items()}
    found = sum(map(len, arrivals.values()))
    return {
        "lanes": len(victims),
        "session_s": session_ms / 1000,
        "lanes_go_on_s": max(gaps[number] for number in victims),
        "beyond_session_s": max(gaps[number] for number in victims) - session_ms / 1000,
        "others_paused_s": max(gaps[number] for number in gaps if number not in victims),
        "doubled_or_lost": found - sent,
    }


def _longest_gap(times: list[float], since: float) -> float:
    """The longest silence that ended after that moment, counted from that moment at the earliest."""
    seen = sorted(times)
    return max((later - max(since, earlier) for earlier, later in pairwise(seen) if later > since), default=0)


async def restore(broker: Broker, *, keys: int) -> Mapping[str, Figures]:
    """How long a new holder of one lane with that many keys of 100 bytes takes from joining until it works."""
    place = Place.fresh(broker, 1)
    async with await place.open() as bus:
        await bus.create_topics([TopicSpec("in")])
        lane = await anext(await bus.lanes("keeper", ["in"]))
        began = time.monotonic()
        for start in range(0, keys, _KEYS_OF_ONE_COMMIT):
            numbers = range(start, min(keys, start + _KEYS_OF_ONE_COMMIT))
            await lane.commit({}, (), {b"key-%012d" % number: _VALUE for number in numbers})
        written_s = time.monotonic() - began
    async with await place.open() as bus:
        began, cpu_s = time.monotonic(), time.process_time()
        lane = await anext(await bus.lanes("keeper", ["in"]))
        restored_s, cpu_s = time.monotonic() - began, time.process_time() - cpu_s
        count = sum(1 for _ in lane.state.scan(b"key-"))
    if count != keys:
        raise SystemExit(f"{count} keys came back of {keys}: the figures are worth nothing")
    return {f"{keys:,} keys": {"written_s": written_s, "restored_s": restored_s, "restore_cpu_s": cpu_s}}
