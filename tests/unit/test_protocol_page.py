"""The page for participants without Pavane is true: its vectors, and its examples against the records of a real run."""

import ast
import asyncio
import json
import re
from pathlib import Path

import pytest
from examples import shop
from support.stage import Stage, stage

from pavane_events.dead_letter import Reason, dead_letter
from pavane_events.envelope import MOST_CAUSES, MOST_PARTS, parse
from pavane_events.errors import Problem
from pavane_events.ids import NAMESPACE, derived
from pavane_events.partition import murmur2
from pavane_events.record import Headers, Record
from pavane_saga.facts import fact_from_json
from pavane_saga.wire import FACTS

PAGE = (Path(__file__).parents[2] / "docs/reference/protocol.md").read_text(encoding="utf-8")
TILL = "/till/7"


def example(name: str) -> str:
    found = re.search(rf"<!-- example: {name} -->\n```\w+\n(.*?)\n```", PAGE, re.DOTALL)
    assert found is not None, f"the page has no example {name}"
    return found[1]


def shown(name: str) -> tuple[str, str | None, Headers, object]:
    """Topic, key, headers and data of a record on the page."""
    head, _, data = example(name).partition("\n\n")
    topic, *lines = head.splitlines()
    pairs = [(each.partition(": ")[0], each.partition(": ")[2]) for each in lines]
    key = pairs.pop(0)[1] if pairs[0][0] == "key" else None
    return topic, key, tuple((header, value.encode()) for header, value in pairs), json.loads(data)


def told(record: Record) -> tuple[str, str | None, Headers, object]:
    """The same of a real record; times and versions, which differ from run to run, as the page has them."""
    return (
        record.topic,
        record.key.decode() if record.key is not None else None,
        tuple((name, plain(value.decode()).encode()) for name, value in record.headers),
        json.loads(plain((record.value or b"").decode())),
    )


def plain(text: str) -> str:
    text = re.sub(r"\b(payment|warehouse|shipping)@[0-9a-f]{12}\b", r"\1@1", text)
    return re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00", "2026-11-23T00:00:00.000000+00:00", text)


def timeless(record: tuple[str, str | None, Headers, object]) -> tuple[str, str | None, Headers, object]:
    topic, key, headers, data = record
    return (
        topic,
        key,
        tuple((name, plain(value.decode()).encode()) for name, value in headers),
        json.loads(plain(json.dumps(data))),
    )


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    """Everything that the shop wrote about the order of a unicorn."""

    async def told_by(running: Stage) -> list[Record]:
        saga = await running.publish({"order": "o-2", "cents": 900, "item": "unicorn"}, name="o-2", source=TILL)
        assert await running.ended(saga) == "compensated"
        return [record for topic in await running.bus.topics() for record in await running.records(topic)]

    async def run() -> list[Record]:
        async with stage(shop.AGENTS, [shop.order]) as running:
            return await told_by(running)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("shop"))
        return asyncio.run(run())


@pytest.mark.parametrize("name", ["event", "failed", "skipped", "ended", "undo", "undone"])
def test_the_page_shows_records_as_they_are(name: str, records: list[Record]) -> None:
    wanted = timeless(shown(name))
    identity = dict(wanted[2])["ce_id"]
    (record,) = [each for each in records if ("ce_id", identity) in each.headers]
    assert told(record) == wanted
