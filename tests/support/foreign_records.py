"""What the shop of the examples writes of one order, by Pavane alone: what foreign clients are held to."""

import asyncio
import json
import re
from pathlib import Path

import pytest
from examples import shop

from pavane_events.record import Headers, Record
from support.stage import stage

TILL = "/till/7"
Said = tuple[str, str | None, Headers, object]
"""Topic, key, headers and data of a record, without what differs from run to run."""


def records_of(item: str, verdict: str, folder: Path) -> list[Record]:
    """Every record of the shop after one order of that item has come to that verdict. Its ids are the same in each run."""

    async def run() -> list[Record]:
        async with stage(shop.AGENTS, [shop.order]) as running:
            saga = await running.publish({"order": "o-2", "cents": 900, "item": item}, name="o-2", source=TILL)
            assert await running.ended(saga) == verdict
            return [record for topic in await running.bus.topics() for record in await running.records(topic)]

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # the shop keeps its store where it runs
        return asyncio.run(run())


def said(topic: str, key: bytes | None, headers: Headers, value: bytes | None) -> Said:
    """A record without times, and with all versions alike."""
    named = tuple((name, _plain(text.decode()).encode()) for name, text in headers)
    return topic, key.decode() if key is not None else None, named, json.loads(_plain((value or b"null").decode()))


def said_by(record: Record) -> Said:
    """The same of a record."""
    return said(record.topic, record.key, record.headers, record.value)


def _plain(text: str) -> str:
    text = re.sub(r"\b(payment|warehouse|shipping)@[0-9a-f]{12}\b", r"\1@1", text)
    return re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00", "then", text)
