"""What tracing takes of the processor for a message: agents that are all there at once take turns, again and again.

What a shared machine is worth changes from one second to the next by more than tracing costs. Turns are short, and next to
each other: what differs between them is what the agents do. An agent's processor time counts from the end of one of its
turns to the end of the next: what it hands over later counts, too, and so does what it takes while idle, for all alike.
"""

import statistics
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from bench.kafka_child import Child, Sender, a_child, a_sender, all_lanes, declare, eventually
from bench.kafka_place import Broker, Place
from bench.kafka_relay import data_of, hop, message_of, relay
from bench.kafka_spans import Counting, a_counting_collector
from bench.kafka_tracing import HANDING_ON, LEAN, OFF, STOCK, UNSAMPLED, VARIANTS, Variant, in_turn
from bench.kafka_worker import Figures

_SIZE = 300
_WARM = 4
"""Turns of each agent before it counts."""
_STOCK_EVERY = 4
"""The stock SDK has a turn in every fourth cycle only: it takes five times as long as the others, and is as far off."""
_LOOK_S = 0.1
_QUIET_S = 0.005
"""So little of the processor's time within a look is an agent that has nothing to do."""


@dataclass(slots=True)
class Player:
    """An agent, whoever sends to it, and what its turns took: microseconds of processor time a message."""

    variant: Variant
    child: Child
    send: Sender
    sent: int = 0
    cpu_s: float = 0.0
    turns: dict[int, float] = field(default_factory=dict[int, float])

    async def turn(self, number: int, data: bytes, records: int) -> None:
        """Let it take in so many records, and wait until all it makes of them is committed."""
        for message in [message_of(data, self.variant.flags) for _ in range(records)]:
            await self.send(message, hop(0).event_type)
        self.sent += records

        async def all_out() -> bool:
            return (await self.child.figures())["outputs"] >= self.sent

        await eventually(all_out, 0.02)
        taken_s = (await self.child.figures())["cpu_s"]
        self.turns[number] = (taken_s - self.cpu_s) / records * 1e6
        self.cpu_s = taken_s

    async def quiet(self) -> None:
        """Wait until it has nothing left to do: nobody else's turn is to be beside its work."""
        before = self.cpu_s

        async def is_idle() -> bool:
            nonlocal before
            last, before = before, (await self.child.figures())["cpu_s"]
            return before - last < _QUIET_S

        await eventually(is_idle, _LOOK_S)


async def tax(broker: Broker, *, records: int, cycles: int) -> Mapping[str, Figures]:
    """In each cycle each variant has a turn, the stock SDK in some of them, every time another first.

    ``tax_us``: the median of what it takes more than with tracing off in the same cycle, in half of them between
    ``tax_us_quarter`` and ``tax_us_three_quarters``; ``beside_us``, of unsampled messages: the same, more than where tracing
    is off and contexts are handed on.
    """
    data = data_of(_SIZE)
    with a_counting_collector() as collector:
        async with _players(broker, collector) as players:
            for number in range(_WARM + cycles):
                for name in in_turn(number):
                    if name != STOCK or number % _STOCK_EVERY == 0:
                        await players[name].turn(number, data, records)
                        await players[name].quiet()
        collector.check(sum(each.sent * each.variant.spans for each in players.values()), "all together")
    taken = {name: {number: us for number, us in each.turns.items() if number >= _WARM} for name, each in players.items()}
    found: dict[str, Figures] = {}
    for name, turns in taken.items():
        found[name] = {"cpu_us_per_msg": statistics.median(turns.values()), **_more("tax_us", turns, taken[OFF])}
    found[UNSAMPLED] |= _more("beside_us", taken[UNSAMPLED], taken[HANDING_ON])
    found[LEAN]["of_stock"] = found[LEAN]["tax_us"] / found[STOCK]["tax_us"]
    return found


def _more(name: str, turns: Mapping[int, float], others: Mapping[int, float]) -> Figures:
    pairs = [us - others[number] for number, us in turns.items()]
    first, middle, third = statistics.quantiles(pairs, n=4) if len(pairs) > 1 else pairs * 3
    return {name: middle, f"{name}_quarter": first, f"{name}_three_quarters": third}


@asynccontextmanager
async def _players(broker: Broker, collector: Counting) -> AsyncGenerator[Mapping[str, Player]]:
    """All variants, each with topics of its own, until they are told to stop."""
    async with AsyncExitStack() as stack:
        players: dict[str, Player] = {}
        for name, variant in VARIANTS.items():
            place = Place.fresh(broker)
            await place.create([relay(0)])
            await declare(place, [relay(0)])
            variables = {**variant.environment, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
            child = await stack.enter_async_context(
                a_child(place, [relay(0).name], trace=variant.traced, environment=variables)
            )
            await all_lanes([child], place.partitions)
            send = await stack.enter_async_context(a_sender(place))
            players[name] = Player(variant, child, send)
        yield players
