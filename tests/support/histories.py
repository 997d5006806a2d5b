"""Histories of real sagas as files: the facts as they were written, and what the engine of that day made of them.

``python -m support.histories BUS DIRECTORY NAME`` (from ``tests/``) adds to a directory one saga of each shape that a bus file
holds and the directory does not.
"""

import asyncio
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from pavane_events.buses.address import open_bus
from pavane_saga.commands import Acquire, Command, End, Grant, Halt, Refuse, Undo
from pavane_saga.engine import due, open_debts, status, undo_owed
from pavane_saga.facts import Declared, Ended, Fact, Happened, fact_from_json
from pavane_saga.history import History, Plan, declared_after
from pavane_saga.story import Story, list_sagas, read_story

FOLDER = Path(__file__).parents[1] / "histories"


@dataclass(frozen=True, slots=True)
class Recorded:
    """One saga: its plan, its facts but for the end, and what was judged of them."""

    plan: Plan
    facts: tuple[Fact, ...]
    judged: Mapping[str, object]


def judgement(plan: Plan, facts: Iterable[Fact]) -> dict[str, object]:
    """What the engine says of a set of facts, as JSON has it. ``standing`` is what owes an undo, as it was when the first were
    recorded: what nothing undoes stands besides."""
    history = History().with_facts(facts)
    return {
        "status": status(plan, history),
        "due": sorted(_said(command) for command in due(plan, history)),
        "standing": [[step, list(causes)] for step, causes in undo_owed(plan, history)],
        "owed": [[debt.event, debt.step, debt.waiting] for debt in open_debts(plan, history)],
    }


def _said(command: Command) -> str:
    if isinstance(command, Halt):
        return f"halt {command.code}"
    if isinstance(command, Undo):
        return f"undo {command.step} {','.join(command.causes)} {command.outcome} {','.join(command.outputs)} {command.retry}"
    if isinstance(command, Grant):
        return f"grant {command.step} {','.join(command.causes)} {command.retry}"
    if isinstance(command, Acquire | Refuse):
        return f"{type(command).__name__.lower()} {command.lock}"
    return f"end {command.verdict}" if isinstance(command, End) else f"park {command.step} {command.code} {command.retry}"


def read(path: Path) -> Recorded:
    """What was written."""
    document = cast("dict[str, object]", json.loads(path.read_bytes()))
    facts = [fact_from_json(_bytes(each)) for each in cast("list[object]", document["facts"])]
    declared = [fact_from_json(_bytes(each)) for each in cast("list[object]", document["declared"])]
    saga = cast("dict[str, object]", document["saga"])
    known: dict[str, tuple[Declared, ...]] = {}
    for each in declared:
        if isinstance(each, Declared):
            known[each.agent] = declared_after(known.get(each.agent, ()), each)
    plan = Plan(
        saga=str(saga["name"]),
        starts=str(saga["starts"]),
        completes=str(saga["completes"]),
        fails=frozenset(cast("list[str]", saga["fails"])),
        declared={agent: found[-1] for agent, found in known.items()},
        former=dict.fromkeys(cast("list[str]", document.get("former", ()))),
        earlier={agent: found[:-1] for agent, found in known.items() if len(found) > 1},
    )
    return Recorded(plan, tuple(facts), cast("dict[str, object]", document["judged"]))


def _bytes(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def write(story: Story, path: Path) -> None:
    """Write one saga."""
    plan = story.plan
    facts = [fact for fact in story.history.facts if not isinstance(fact, Ended)]
    document = {
        "saga": {"name": plan.saga, "starts": plan.starts, "completes": plan.completes, "fails": sorted(plan.fails)},
        "declared": [
            json.loads(each.to_json())
            for agent, last in plan.declared.items()
            for each in (*plan.earlier.get(agent, ()), last)
        ],
        "former": sorted(plan.former),
        "facts": [json.loads(each.to_json()) for each in facts],
        "judged": judgement(plan, facts),
    }
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def shape(facts: Iterable[Fact]) -> str:
    """What a saga looks like but for its ids: sagas of one shape show the same."""
    counted = Counter(_kind(fact) for fact in facts if not isinstance(fact, Ended))
    return hashlib.sha256(repr(sorted(counted.items())).encode()).hexdigest()[:10]


def _kind(fact: Fact) -> str:
    if isinstance(fact, Happened):
        return f"{fact.type} {fact.step} {len(fact.causes)} {fact.part}/{fact.parts}"
    members = cast("dict[str, object]", json.loads(fact.to_json()))
    names = ("fact", "step", "how", "began", "code", "rule", "verb", "retry")
    return " ".join(
        [*(str(members.get(name, "")) for name in names), *cast("dict[str, object]", members.get("corrected", {}))]
    )


async def add(url: str, folder: Path, name: str, known: set[str]) -> int:
    """Add one saga of each shape that is not known, and say how many that was."""
    added = 0
    async with await open_bus(url) as bus:
        for summary in await list_sagas(bus):
            story = await read_story(bus, summary.saga)
            found = shape(story.history.facts) if story is not None else ""
            if story is not None and found not in known:
                known.add(found)
                write(story, folder / f"{name}-{summary.state}-{found}.json")
                added += 1
    return added


def main() -> None:
    """The command."""
    url, folder, name = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    known = {shape(read(path).facts) for path in folder.glob("*.json")}
    print(f"added {asyncio.run(add(url, folder, name, known))}")


if __name__ == "__main__":
    main()
