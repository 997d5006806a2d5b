"""Throughput: consume, validate, publish, exactly once, by the agent runtime and by the bare loop; and how it grows."""

import statistics
from collections.abc import Mapping, Sequence

from bench.kafka_child import a_child, declare, fill
from bench.kafka_place import PACE, Broker, Place
from bench.kafka_relay import data_of, hop, message_of, relay
from bench.kafka_worker import Figures

from pavane_events.compiled import COMPILED

_INTERPRETED = "agent, interpreted"


async def drained(
    broker: Broker,
    *,
    bare: bool,
    records: int,
    size: int = 300,
    partitions: int = 4,
    agents: int = 1,
    pace: float = PACE,
    profile: str | None = None,
    trace: bool = False,
    environment: Mapping[str, str] | None = None,
    sampled_as: str | None = None,
) -> Figures:
    """What one process makes of a topic that is full when it comes: all agents of a chain in it.

    ``sampled_as``: the flags of the trace context that each record carries, in hex; None for no context.
    """
    place = Place.fresh(broker, partitions).paced(pace)
    crew = [relay(number) for number in range(agents)]
    await place.create(crew)
    await declare(place, crew)
    data = data_of(size)
    await fill(place, hop(0).event_type, records, lambda: message_of(data, sampled_as))
    names = [agent.name for agent in crew]
    async with a_child(
        place,
        () if bare else names,
        bare=bare,
        trace=trace,
        until=records * agents,
        environment=environment,
        profile=profile,
    ) as child:
        await child.until("ended")
        figures = child.window() | child.memory()
    if not bare:
        figures |= child.in_all()
    await check(place, agents, records)
    return figures


async def check(place: Place, agents: int, records: int) -> None:
    """What came out is what went in: else the figures are worth nothing."""
    async with await place.open() as bus:
        found = len([None async for _ in bus.read(hop(agents).event_type)])
    if found != records:
        raise SystemExit(f"{found} records came out of {records}: the figures are worth nothing")


def medians(rounds: Sequence[Figures]) -> Figures:
    """Of each figure."""
    return {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}


async def throughput(broker: Broker, *, records: int, rounds: int, pace: float = PACE) -> Mapping[str, Figures]:
    """The bare loop and the agent take turns, and the interpreted agent where the other is compiled."""
    found: dict[str, list[Figures]] = {"bare loop": [], "agent": []}
    if COMPILED:
        found[_INTERPRETED] = []
    for _ in range(rounds):
        for name, runs in found.items():
            sources = {"PYTHONPATH": ""} if name == _INTERPRETED else None
            bare = name == "bare loop"
            runs.append(await drained(broker, bare=bare, records=records, pace=pace, environment=sources))
    result = {name: medians(runs) for name, runs in found.items()}
    for name in [each for each in found if each != "bare loop"]:
        pairs = zip(found[name], found["bare loop"], strict=True)
        result[name]["of_bare"] = statistics.median(ours["msg_per_s"] / bare["msg_per_s"] for ours, bare in pairs)
    return result


async def growth(broker: Broker, *, records: int) -> Mapping[str, Figures]:
    """By partitions, by agents of a chain in one process (per delivery), by size."""
    found: dict[str, Figures] = {}
    for partitions in (2, 4, 12):
        found[f"{partitions} partitions"] = await _beside_bare(broker, records=records, partitions=partitions)
    for agents in (2, 5):
        found[f"{agents} agents"] = await drained(broker, bare=False, records=records // agents, agents=agents)
    for size, share in ((3_000, 4), (30_000, 20)):
        found[f"{size} bytes"] = await _beside_bare(broker, records=records // share, size=size)
    return found


async def _beside_bare(broker: Broker, *, records: int, size: int = 300, partitions: int = 4) -> Figures:
    bare = await drained(broker, bare=True, records=records, size=size, partitions=partitions)
    ours = await drained(broker, bare=False, records=records, size=size, partitions=partitions)
    return ours | {"of_bare": ours["msg_per_s"] / bare["msg_per_s"]}
