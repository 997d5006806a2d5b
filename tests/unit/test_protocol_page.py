"""The page for participants without Pavane is true: its vectors, and its examples against the records of a real run."""

import ast
import json
import re
from pathlib import Path
from typing import cast

import pytest

from pavane.answers import ROOM
from pavane_events.bus import MAX_RECORD_BYTES
from pavane_events.dead_letter import Reason, dead_letter
from pavane_events.envelope import MOST_CAUSES, MOST_PARTS, parse
from pavane_events.errors import Problem
from pavane_events.ids import NAMESPACE, derived
from pavane_events.partition import murmur2
from pavane_events.record import Headers, Record
from pavane_saga.facts import UndoFailed, fact_from_json
from pavane_saga.wire import FACTS
from support.foreign_records import Said, records_of, said, said_by

PAGE = (Path(__file__).parents[2] / "docs/reference/protocol.md").read_text(encoding="utf-8")


def example(name: str) -> str:
    found = re.search(rf"<!-- example: {name} -->\n```\w+\n(.*?)\n```", PAGE, re.DOTALL)
    assert found is not None, f"the page has no example {name}"
    return found[1]


def shown(name: str) -> Said:
    """A record on the page."""
    head, _, value = example(name).partition("\n\n")
    topic, *lines = head.splitlines()
    pairs = [(each.partition(": ")[0], each.partition(": ")[2].encode()) for each in lines]
    key = pairs.pop(0)[1] if pairs[0][0] == "key" else None
    return said(topic, key, tuple(pairs), value.encode())


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    return records_of("unicorn", "compensated", tmp_path_factory.mktemp("shop"))


@pytest.mark.parametrize("name", ["event", "failed", "skipped", "ended", "undo", "undone"])
def test_the_page_shows_records_as_they_are(name: str, records: list[Record]) -> None:
    wanted = shown(name)
    assert wanted in [said_by(record) for record in records]


@pytest.mark.parametrize("name", ["declared", "done", "undofailed"])
def test_a_fact_on_the_page_is_what_the_code_writes_of_it(name: str) -> None:
    data = example(name).rpartition("\n\n")[2].encode()
    assert fact_from_json(data).to_json() == data


def test_a_declaration_lies_in_its_lane_without_a_key(records: list[Record]) -> None:
    topic, key, headers, data = shown("declared")
    declarations = [said_by(record) for record in records if record.topic == FACTS and record.key is None]
    found = [each for each in declarations if dict(each[2])["ce_source"] == b"/agents/payment"]
    assert len(found) == 2  # one in each lane
    for each in found:
        assert (each[0], each[1], each[3]) == (topic, key, data)
        assert without_id(each[2]) == without_id(headers)


def without_id(headers: Headers) -> Headers:
    return tuple((name, value) for name, value in headers if name != "ce_id")


def test_a_manifest_is_a_declaration_without_offsets(records: list[Record]) -> None:
    (record,) = [each for each in records if (each.topic, each.key) == ("pavane.agents", b"agent:payment")]
    _, _, headers, data = said_by(record)
    declared = cast("dict[str, object]", shown("declared")[3])
    assert (headers, data) == ((), {**declared, "since": {}})


def test_the_vectors_are_right() -> None:
    found = re.search(r"<!-- vectors -->\n```text\n(.*?)\n```", PAGE, re.DOTALL)
    assert found is not None
    vectors = re.findall(r"^(derived|murmur2)\((.*?)\)(?: & 0x7fffffff)?\s+(\S+)$", found[1], re.MULTILINE)
    assert len(vectors) == 8
    for function, arguments, result in vectors:
        parts = ast.literal_eval(f"[{arguments}]")
        worked_out = derived(*parts) if function == "derived" else str(murmur2(parts[0].encode()) & 0x7FFFFFFF)
        assert worked_out == result, arguments


def test_the_namespace_and_the_limits_are_those_of_the_code() -> None:
    assert str(NAMESPACE) in PAGE
    limits = PAGE.split("## Limits")[1]
    for limit in (f"{MAX_RECORD_BYTES:,} bytes", f"{ROOM:,} bytes", f"Causes: {MOST_CAUSES}", f"Parts: {MOST_PARTS}"):
        assert limit in limits


def test_a_fact_is_identified_as_the_page_says(records: list[Record]) -> None:
    """The recipes of the page, followed by hand, give the ids of a run's facts."""
    facts = [parse(record) for record in records if record.topic == FACTS and record.key is not None]
    assert len(facts) == 4
    for each in facts:
        data = json.loads(each.data)
        causes = ",".join(sorted(data["causes"]))
        recipes = {
            "settled": f"s:{data['step']}|{data.get('how')}|{int(data.get('began', 0))}|{data.get('code')}|{causes}",
            "undone": f"u:{data['step']}|{causes}",
        }
        assert each.id == derived("fact", each.saga or "", data["fact"], recipes[data["fact"]])
        assert fact_from_json(each.data).identity == recipes[data["fact"]]
    failed = UndoFailed("payment/charge", ("a", "b"), "undo.no-step")
    assert failed.identity == "v:payment/charge|undo.no-step|a,b"


def test_a_dead_letter_says_why_in_the_headers_of_the_page() -> None:
    record = Record("shop.order-placed", 0, 7, b"k", b"v", (("ce_id", b"1"), ("ce_id", b"2")), 0)
    problem = Problem("ce_id", "header.doubled", "the header is there more than once: send it once")
    reason = Reason("header.doubled", step="payment/charge", version="payment@1", problems=(problem,))
    lines = [line.partition(": ") for line in example("dead").splitlines()]
    added = tuple((name, value.encode()) for name, _, value in lines)
    assert dead_letter(record, "payment", reason).headers == (*record.headers, *added)
