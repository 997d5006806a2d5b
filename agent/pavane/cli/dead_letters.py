"""``pavane dead-letters``: what could not be worked on, why, and its bytes as they came."""

import json
from typing import Annotated, cast

import typer

from pavane.cli.options import BusOption, JsonOption
from pavane.cli.output import day_time, moment, paint, print_json, print_table, safe, say, timestamp
from pavane.cli.values import readable, text
from pavane_events.bus import Bus
from pavane_events.dead_letter import PREFIX, dead_letters_topic, reason_headers
from pavane_events.errors import ConfigurationError, Problem, UnknownTopic
from pavane_events.record import Record

app = typer.Typer(help="Dead letters: what could not be worked on, and why.", no_args_is_help=True)

_SUFFIX = dead_letters_topic("")
_MOST_SHOWN = 4_000


@app.command("list")
def list_(
    agent: Annotated[
        str | None,
        typer.Argument(metavar="[AGENT]", help="Of one agent, or of pavane.coordinator. (default: all)", show_default=False),
    ] = None,
    bus: BusOption = None,
    as_json: JsonOption = False,
) -> None:
    """List dead letters, oldest first.

    Exits with 2 where the agent is unknown, 3 where the bus is unavailable.
    """
    from pavane.cli.session import with_bus

    async def read(opened: Bus) -> list[Record]:
        return await _read(opened, agent)

    records = with_bus(bus, read)
    if as_json:
        print_json([_document(record) for record in records])
        return
    columns = ("AGENT", "OFFSET", "TIME", "CODE", "STEP", "TRIES", "FROM")
    print_table(columns, [_row(record) for record in records])
    say(f"{len(records)} dead {'letter' if len(records) == 1 else 'letters'}")


@app.command("show")
def show(
    agent: Annotated[str, typer.Argument(metavar="AGENT", show_default=False)],
    offset: Annotated[str, typer.Argument(metavar="OFFSET", help="As listed: PARTITION@OFFSET, or OFFSET alone.")],
    bus: BusOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one dead letter: every problem found, where it came from, its headers and its value.

    Bytes that are no text are shown as base64; nothing a record holds can change the terminal. Exits with 2 where
    there is no such dead letter.
    """
    from pavane.cli.session import with_bus

    async def read(opened: Bus) -> list[Record]:
        return await _read(opened, agent)

    partition, at, number = offset.rpartition("@")
    found = [
        record
        for record in with_bus(bus, read)
        if str(record.offset) == number and (not at or str(record.partition) == partition)
    ]
    if len(found) != 1:
        places = ", ".join(f"{record.partition}@{record.offset}" for record in found)
        message = f"which of {places}?" if found else f"there is none; `pavane dead-letters list {agent}` shows all"
        raise ConfigurationError("no such dead letter", [Problem(f"{agent} {offset}", "dead-letter.unknown", message)])
    if as_json:
        print_json(_document(found[0]))
    else:
        _print(found[0])


async def _read(bus: Bus, agent: str | None) -> list[Record]:
    topics = sorted(topic for topic in await bus.topics() if topic.endswith(_SUFFIX))
    if agent is not None:
        wanted = dead_letters_topic(agent)
        if wanted not in topics:
            known = ", ".join(topic.removesuffix(_SUFFIX) for topic in topics) or "none"
            raise UnknownTopic(f"nobody called {agent!r} has dead letters; there are {known}")
        topics = [wanted]
    records = [record for topic in topics async for record in bus.read(topic)]
    return sorted(records, key=lambda record: (record.timestamp_ms, record.offset))


def _row(record: Record) -> tuple[str, ...]:
    reason = {name: safe(value) for name, value in reason_headers(record.headers).items()}
    return (
        record.topic.removesuffix(_SUFFIX),
        f"{record.partition}@{record.offset}",
        day_time(record.timestamp_ms),
        reason.get("error_code", "?"),
        reason.get("error_step", "").partition("/")[2] or reason.get("error_step", ""),
        reason.get("error_attempt", ""),
        _source(reason),
    )


def _source(reason: dict[str, str]) -> str:
    return f"{reason.get('source_topic', '?')}/{reason.get('source_partition', '?')}@{reason.get('source_offset', '?')}"


def _problems(reason: dict[str, str]) -> list[dict[str, object]]:
    try:
        found: object = json.loads(reason.get("error_problems", "[]"))
    except ValueError:
        return []
    return cast("list[dict[str, object]]", found) if isinstance(found, list) else []


def _document(record: Record) -> dict[str, object]:
    reason = reason_headers(record.headers)
    return {
        "agent": record.topic.removesuffix(_SUFFIX),
        "partition": record.partition,
        "offset": record.offset,
        "time": timestamp(record.timestamp_ms),
        "code": reason.get("error_code"),
        "step": reason.get("error_step"),
        "attempt": int(reason.get("error_attempt") or 0),
        "version": reason.get("error_version"),
        "problems": _problems(reason),
        "source": _source(reason),
        "truncated": reason.get("truncated") == "true",
        "key": text(record.key),
        "headers": {name: text(value) for name, value in record.headers if not name.startswith(PREFIX)},
        "value": readable(record.value),
    }


def _print(record: Record) -> None:
    reason = {name: safe(value) for name, value in reason_headers(record.headers).items()}
    agent, where, _, code, _, tries, source = _row(record)
    print(f"{paint(code, 'red')}  {agent} {where}  {moment(record.timestamp_ms)}")
    print(f"step {reason.get('error_step', '')}, attempt {tries}, version {reason.get('error_version', '')}")
    print(f"from {source}")
    for problem in _problems(reason_headers(record.headers)):
        parts = (problem.get("where"), problem.get("message"))
        print(f"  - {safe(': '.join(str(part) for part in parts if part))}")
    print(f"key {safe(str(text(record.key)))}")
    for name, value in record.headers:
        if not name.startswith(PREFIX):
            print(f"  {safe(name)}: {safe(value.decode(errors='replace'))}")
    if reason.get("truncated") == "true":
        print(f"the value was too large to be kept beside its reason: it still lies at {source}")
        return
    shown = safe(json.dumps(readable(record.value), ensure_ascii=False))
    more = f"… ({len(shown):,} characters; --json shows all)" if len(shown) > _MOST_SHOWN else ""
    print(f"value {shown[:_MOST_SHOWN]}{more}")
