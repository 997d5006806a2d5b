"""``pavane tail``: the records of topics, readably, as they lie there and as they come."""

import asyncio
import json
import shutil
import textwrap
from collections import deque
from enum import StrEnum
from typing import Annotated

import typer

from pavane.cli.options import BusOption, JsonOption
from pavane.cli.output import clock_time, is_terminal, moment, paint, safe, say, timestamp
from pavane.cli.values import readable, text
from pavane_events.bus import Bus
from pavane_events.record import Record

_POLL_S = 0.2
_LONGEST_LINE = 2_000
_LONGEST_KEY = 13
_SHORT = {"ce_type": "", "ce_step": "by", "ce_source": "from", "ce_subject": "", "pavane_error_code": "error"}


class Place(StrEnum):
    """Where to begin."""

    EARLIEST = "earliest"
    LATEST = "latest"


def tail(
    topics: Annotated[
        list[str] | None, typer.Argument(metavar="[TOPIC...]", help="Topics. (default: all but spans)", show_default=False)
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")] = False,
    place: Annotated[
        Place, typer.Option("--from", help="Begin with the first record, or with what comes now.")
    ] = Place.EARLIEST,
    last: Annotated[
        int | None, typer.Option("--last", "-n", min=0, help="Of what is there, only the last so many.", show_default=False)
    ] = None,
    saga: Annotated[
        str | None, typer.Option("--saga", metavar="SAGA", help="Only records of that saga.", show_default=False)
    ] = None,
    bus: BusOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show records: headers short, data as JSON. It joins no group, so it disturbs nobody.

    In order of time; with --json one object per line, headers and data whole. Exits with 2 where a topic does not
    exist, 3 where the bus is unavailable, 130 on Ctrl-C.
    """
    from pavane.cli.session import with_bus

    async def read(opened: Bus) -> None:
        await _tail(opened, topics, follow=follow, place=place, last=last, saga=saga, as_json=as_json)

    with_bus(bus, read)


async def _tail(
    bus: Bus, topics: list[str] | None, *, follow: bool, place: Place, last: int | None, saga: str | None, as_json: bool
) -> None:
    from pavane.cli.follow import Follower
    from pavane.cli.sagas import saga_id
    from pavane_events.errors import UnknownTopic
    from pavane_tracing.store import SPANS_TOPIC

    there = await bus.topics()
    for topic in topics or ():
        if topic not in there:
            raise UnknownTopic(f"there is no topic {topic!r}; there are {', '.join(sorted(there)) or 'none'}")
    if saga is not None:
        saga = await saga_id(bus, saga)
    follower = Follower(bus, topics or sorted(set(there) - {SPANS_TOPIC}), saga=saga)
    if place is Place.LATEST and not follow:
        say("nothing comes after the latest record without --follow")
    width = shutil.get_terminal_size().columns if is_terminal() else None

    def show(record: Record) -> None:
        print(as_line(record) if as_json else as_text(record, width), flush=follow)

    if last is not None or place is Place.LATEST:
        kept = deque([record async for record in follower.news()], maxlen=0 if place is Place.LATEST else last)
        for record in kept:
            show(record)
    while True:
        async for record in follower.news():
            show(record)
        if not follow:
            return
        await asyncio.sleep(_POLL_S)


def as_line(record: Record) -> str:
    """A record as one line of JSON; bytes that are no text as base64."""
    return json.dumps(
        {
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "time": timestamp(record.timestamp_ms),
            "key": text(record.key),
            "headers": {name: text(value) for name, value in record.headers},
            "data": readable(record.value),
        },
        ensure_ascii=False,
    )


def as_text(record: Record, width: int | None = None) -> str:
    """A record as what it is and where, then its data; keys shortened and data wrapped where there is a width."""
    headers = {name: safe(value.decode(errors="replace")) for name, value in record.headers}
    if headers.get("ce_type") == record.topic:
        del headers["ce_type"]
    if "ce_step" in headers:
        headers.pop("ce_source", None)
    said = [f"{label} {value}".strip() for name, label in _SHORT.items() if (value := headers.get(name))]
    key = safe(record.key.decode(errors="replace")) if record.key else "no key"
    if width is not None and len(key) > _LONGEST_KEY:
        key = f"{key[:_LONGEST_KEY]}…"
    at = moment(record.timestamp_ms) if width is None else clock_time(record.timestamp_ms)
    head = [paint(at, "dim"), paint(record.topic, "bold"), f"{record.partition}@{record.offset}", key, *said]
    return f"{'  '.join(head)}\n{_data(record, width)}"


def _data(record: Record, width: int | None) -> str:
    found = readable(record.value)
    data = safe(found if isinstance(found, str) else json.dumps(found, ensure_ascii=False))
    if width is None:
        return f"    {data}"
    if len(data) > _LONGEST_LINE:
        data = f"{data[:_LONGEST_LINE]}… ({len(data):,} characters; --json shows all)"
    return textwrap.fill(data, width, initial_indent="    ", subsequent_indent="    ")
