"""``pavane topics``: the topics that agents and sagas need, as they should be, as they are, and made so."""

import asyncio
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Annotated

import typer

from pavane.cli.options import BusOption, JsonOption, TargetsArgument
from pavane.cli.output import paint, print_json, print_table, say

if TYPE_CHECKING:
    from pavane.cli.needs import Needs
    from pavane_events.bus import Bus
    from pavane_events.buses.kafka.provision import Applied
    from pavane_events.topics import TopicDifferences, WantedTopic

_DAY_MS = 86_400_000
_MOST_LISTED = 20

app = typer.Typer(help="The topics of agents and sagas: what is wanted, what differs, and make it so.", no_args_is_help=True)

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Let the brokers check, and change nothing.")]


@app.command("plan")
def plan(targets: TargetsArgument, bus: BusOption = None, as_json: JsonOption = False) -> None:
    """Print the topics that are wanted, with their settings. Asks no broker.

    On an embedded bus agents make them themselves. Exits with 2 where a target cannot be loaded, or Kafka would take no
    such topic.
    """
    from pavane.cli.needs import needs_of

    needs = needs_of(targets, bus)
    settings = needs.settings
    if as_json:
        topics = [_planned(topic, needs) for topic in needs.wanted]
        counts = {"partitions": settings.partitions, "replication": settings.kafka_replication}
        print_json({"bus": settings.bus, **counts, "topics": topics})
        return
    partitions = settings.partitions or "as the bus has, else 4"
    summary = f"{_count(len(needs.wanted), 'topic')}, partitions of each: {partitions}"
    if not needs.on_kafka:
        print_table(("TOPIC", "KIND"), [(topic.name, topic.kind) for topic in needs.wanted])
        say(summary)
        say(f"on {settings.bus} agents make them themselves; --bus kafka://host:port shows what brokers are asked for")
        return
    some = needs.wanted[0].config.items()
    common = {each for each in some if all(each in topic.config.items() for topic in needs.wanted)}
    rows = [(_physical(topic.name, needs), topic.kind, *_kept(topic, common)) for topic in needs.wanted]
    print_table(("TOPIC", "KIND", "KEPT", "SETTINGS"), rows)
    say(f"{summary}, copies: {settings.kafka_replication or 'as the brokers have it'}")
    say(f"all of them: {_listed(sorted(common))}")


@app.command("diff")
def diff(targets: TargetsArgument, bus: BusOption = None, as_json: JsonOption = False) -> None:
    """Compare the topics that are wanted with those that are there, and change nothing.

    Topics that none of the targets declares are listed; they are no difference. Exits with 0 where all is as wanted, 1
    where something differs, 2 where a target cannot be loaded or the brokers refuse, 3 where the bus is unavailable.
    """
    from pavane.cli.needs import needs_of
    from pavane.cli.session import brokers, with_bus

    needs = needs_of(targets, bus)
    if not needs.on_kafka:
        _tell_missing(with_bus(bus, lambda opened: _missing(opened, needs)), needs, as_json=as_json)
        return
    from pavane_events.buses.kafka.provision import compare

    settings = needs.settings
    compared = asyncio.run(compare(brokers(settings), settings.kafka_options(), needs.wanted, settings.partitions))
    found = compared.differences
    if as_json:
        print_json({"partitions": compared.partitions, "missing": [each.name for each in found.missing], **_rest(found)})
    else:
        _print_differences(found, compared.partitions, needs)
        say(f"{_count(len(needs.wanted), 'topic')} wanted: {_summary(found)}")
    raise typer.Exit(bool(found))


@app.command("apply")
def apply(targets: TargetsArgument, dry_run: DryRunOption = False, bus: BusOption = None, as_json: JsonOption = False) -> None:
    """Create the topics that are missing and put settings right; never deletes, never changes a partition count.

    Run it before agents start, and again whenever they change: it does only what is needed, and several at once come to
    the same. Ends when every broker knows every topic. Exits with 2 where a topic has another partition count, the
    brokers refuse, or a target cannot be loaded, and 3 where the bus is unavailable.
    """
    from pavane.cli.needs import needs_of
    from pavane.cli.session import brokers, with_bus

    needs = needs_of(targets, bus)
    if not needs.on_kafka:

        async def create(opened: "Bus") -> list[str]:
            missing = await _missing(opened, needs)
            if not dry_run:
                await opened.create_topics(needs.specs)
            return missing

        _tell_created(with_bus(bus, create, create=True, dry_run=dry_run), needs, dry_run=dry_run, as_json=as_json)
        return
    from pavane_events.buses.kafka.provision import apply as apply_to

    settings = needs.settings
    kafka = settings.kafka_options()
    applied = asyncio.run(apply_to(brokers(settings), kafka, needs.wanted, settings.partitions, dry_run=dry_run))
    if as_json:
        done = {"partitions": applied.partitions, "created": applied.created, "altered": _is_and_should(applied.altered)}
        print_json({**done, "undeclared": applied.remaining.undeclared, "dry_run": dry_run})
    else:
        _print_applied(applied, needs, dry_run=dry_run)


async def _missing(bus: "Bus", needs: "Needs") -> list[str]:
    there = await bus.topics()
    return [topic.name for topic in needs.wanted if topic.name not in there]


def _tell_missing(missing: list[str], needs: "Needs", *, as_json: bool) -> None:
    if as_json:
        print_json({"missing": missing})
    else:
        for name in missing:
            print(f"{paint('+', 'green')} {name}")
        say(f"{_count(len(needs.wanted), 'topic')} wanted: {len(missing)} missing; agents make them when they start")
    raise typer.Exit(bool(missing))


def _tell_created(created: list[str], needs: "Needs", *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        print_json({"created": created, "altered": {}, "dry_run": dry_run})
        return
    for name in created:
        print(f"{_did('create', dry_run)} {name}")
    say(f"{_count(len(needs.wanted), 'topic')}, {len(created)} of them new; agents make them when they start, too")


def _print_differences(found: "TopicDifferences", partitions: int, needs: "Needs") -> None:
    for topic in found.missing:
        print(f"{paint('+', 'green')} {_physical(topic.name, needs)}  missing")
    for name, each in found.config.items():
        for key, (value, should) in each.items():
            print(f"{paint('~', 'yellow')} {_physical(name, needs)}  {key} is {value}, should be {should}")
    for name, count in found.partitions.items():
        print(f"{paint('!', 'red')} {_physical(name, needs)}  has {_count(count, 'partition')}, should have {partitions}")
    _print_rest(found, needs)


def _print_applied(applied: "Applied", needs: "Needs", *, dry_run: bool) -> None:
    for name in applied.created:
        print(f"{_did('create', dry_run)} {_physical(name, needs)}")
    for name, each in applied.altered.items():
        for key, (value, should) in each.items():
            print(f"{_did('alter', dry_run)} {_physical(name, needs)}  {key} from {value} to {should}")
    _print_rest(applied.remaining, needs)
    made, changed = len(applied.created), len(applied.altered)
    asis = len(needs.wanted) - made - changed
    would = "would be " if dry_run else ""
    say(
        f"{_count(len(needs.wanted), 'topic')} of {_count(applied.partitions, 'partition')}: "
        f"{made} {would}created, {changed} {would}altered, {asis} as wanted"
    )


def _print_rest(found: "TopicDifferences", needs: "Needs") -> None:
    copies = needs.settings.kafka_replication
    for name, count in found.replication.items():
        fix = "move its copies with Kafka's own kafka-reassign-partitions"
        print(f"{paint('!', 'red')} {_physical(name, needs)}  copies: {count}, should be {copies}; {fix}")
    for name in found.undeclared[:_MOST_LISTED]:
        print(f"{paint('?', 'dim')} {_physical(name, needs)}  declared by none of these targets")
    if len(found.undeclared) > _MOST_LISTED:
        print(f"{paint('?', 'dim')} and {len(found.undeclared) - _MOST_LISTED} more that none of these targets declares")


def _summary(found: "TopicDifferences") -> str:
    parts = {
        "missing": len(found.missing),
        "to be altered": len(found.config),
        "with another partition count": len(found.partitions),
        "with another number of copies": len(found.replication),
    }
    return ", ".join(f"{count} {what}" for what, count in parts.items() if count) or "all as they should be"


def _rest(found: "TopicDifferences") -> dict[str, object]:
    return {
        "config": _is_and_should(found.config),
        "partition_counts": dict(found.partitions),
        "replication": dict(found.replication),
        "undeclared": found.undeclared,
    }


def _is_and_should(changes: Mapping[str, Mapping[str, tuple[str | None, str]]]) -> dict[str, object]:
    return {
        name: {key: {"is": value, "should": should} for key, (value, should) in each.items()} for name, each in changes.items()
    }


def _planned(topic: "WantedTopic", needs: "Needs") -> dict[str, object]:
    named: dict[str, object] = {"name": topic.name, "topic": _physical(topic.name, needs), "kind": topic.kind}
    return {**named, "config": dict(topic.config)} if needs.on_kafka else named


def _kept(topic: "WantedTopic", common: AbstractSet[tuple[str, str]]) -> tuple[str, str]:
    """How long records stay, and every setting that not all topics have in common."""
    kept_ms = int(topic.config.get("retention.ms", "-1"))
    compacted = topic.config["cleanup.policy"] == "compact"
    kept = "latest per key" if compacted else "for ever" if kept_ms < 0 else f"{kept_ms / _DAY_MS:g} days"
    return kept, _listed([each for each in topic.config.items() if each not in common])


def _listed(settings: Iterable[tuple[str, str]]) -> str:
    return " ".join(f"{key}={value}" for key, value in settings)


def _physical(name: str, needs: "Needs") -> str:
    return needs.settings.kafka_prefix + name if needs.on_kafka else name


def _did(what: str, dry_run: bool) -> str:
    return f"would {what}" if dry_run else f"{what}d" if what.endswith("e") else f"{what}ed"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
