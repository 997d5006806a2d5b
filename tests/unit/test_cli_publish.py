"""``pavane publish``: all or nothing, every problem listed, and the same event twice is one."""

import asyncio
import io
import json
from pathlib import Path

import pytest

from pavane_events.buses.address import open_bus
from pavane_events.envelope import NO_TRACE, parse
from pavane_events.record import Record
from pavane_saga.intake import saga_id_of
from pavane_tracing.propagation import span_context
from pavane_tracing.store import SPANS_TOPIC, decode
from unit import cli_toy
from unit.cli_shell import Said, Shell

APP = ("--app", "unit.cli_toy:EVERYTHING")
GOOD = {"order_id": "A-1", "amount": 20}
BUS = "sqlite:///bus.db"


@pytest.fixture
def pavane(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Shell:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PAVANE_BUS", BUS)
    return Shell(monkeypatch, capsys)


def on(topic: str) -> list[Record]:
    async def read() -> list[Record]:
        async with await open_bus(BUS) as bus:
            return [record async for record in bus.read(topic)] if topic in await bus.topics() else []

    return asyncio.run(read())


def orders(pavane: Shell, *arguments: str) -> Said:
    return pavane("publish", "toy.orders", *arguments, *APP)


def test_an_object_on_the_command_line_is_published_as_a_cloudevent(pavane: Shell) -> None:
    said = orders(pavane, "--data", json.dumps(GOOD), "--id-field", "order_id")
    assert said == (0, "published 1 event of type toy.order-placed to toy.orders, valid by OrderPlaced\n", "")
    (record,) = on("toy.orders")
    event = parse(record)
    assert (event.id, event.source, event.type, event.subject) == ("A-1", "/cli", "toy.order-placed", "A-1")
    assert event.dataschema == "urn:pavane:toy.order-placed:1"
    assert json.loads(record.value or b"") == GOOD
    assert record.key == saga_id_of("/cli", "A-1").encode()


def test_it_begins_no_trace_where_tracing_is_switched_off(pavane: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAVANE_TRACE", "false")
    orders(pavane, "--data", json.dumps(GOOD))
    (record,) = on("toy.orders")
    assert parse(record).trace == NO_TRACE
    assert on(SPANS_TOPIC) == []


def test_it_begins_a_trace_that_is_kept_beside_it(pavane: Shell) -> None:
    orders(pavane, "--data", json.dumps(GOOD), "--id-field", "order_id")
    (record,) = on("toy.orders")
    (kept,) = on(SPANS_TOPIC)
    (span,) = decode(kept)
    context = span_context(parse(record).trace)
    assert context is not None
    assert (span.name, span.service, span.parent_span_id) == ("send toy.orders", "cli", None)
    assert span.span_id == f"{context.span_id:016x}"


@pytest.mark.parametrize(
    "text",
    [
        '{"order_id": "A", "amount": 1}\n{"order_id": "B", "amount": 2}\n\n',
        '[{"order_id": "A", "amount": 1}, {"order_id": "B", "amount": 2}]',
        '\ufeff[{"order_id": "A", "amount": 1},\n{"order_id": "B", "amount": 2}]',
    ],
)
def test_lines_and_arrays_are_read(pavane: Shell, tmp_path: Path, text: str) -> None:
    (tmp_path / "orders.json").write_text(text, encoding="utf-8")
    said = orders(pavane, "orders.json", "--json")
    assert (said.code, said.document["published"], len(on("toy.orders"))) == (0, 2, 2)


def test_standard_input_is_read(pavane: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(json.dumps(GOOD).encode())))
    assert orders(pavane, "-").code == 0
    assert len(on("toy.orders")) == 1


def test_one_invalid_line_publishes_nothing_and_every_problem_is_listed(pavane: Shell, tmp_path: Path) -> None:
    lines = [GOOD, {"order_id": "B"}, {"order_id": "C", "amount": "many", "colour": "red"}]
    (tmp_path / "orders.jsonl").write_text("\n".join(map(json.dumps, lines)))
    said = orders(pavane, "orders.jsonl")
    assert said.code == 2
    assert said.err.splitlines() == [
        "error: nothing was published: not everything is valid",
        "  - line 2, data.amount: Field required",
        "  - line 3, data.amount: Input should be a valid integer, unable to parse string as an integer",
        "  - line 3, data.colour: Extra inputs are not permitted",
    ]
    assert on("toy.orders") == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "input: not JSON"),
        ('{"a": NaN}', "NaN is no JSON"),
        ("[]", "the array is empty"),
        ("[1]", "item 1: an event's data is a JSON object, this is a number"),
        ('{"a": 1}\n"b"\n{', "line 3: not JSON"),
        ("  \n", "there is nothing in it to publish"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_what_cannot_be_read_is_refused(pavane: Shell, text: str, problem: str) -> None:
    said = orders(pavane, "--data", text)
    assert said.code == 2
    assert problem in said.err


def test_a_file_that_is_missing_or_no_text_is_refused(pavane: Shell, tmp_path: Path) -> None:
    assert "No such file" in orders(pavane, "missing.json").err
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    said = orders(pavane, "binary.json")
    assert (said.code, "it is not UTF-8 (byte 0)" in said.err) == (2, True)


def test_input_is_named_once(pavane: Shell) -> None:
    assert orders(pavane).code == 2
    assert orders(pavane, "orders.json", "--data", "{}").code == 2


def test_an_event_larger_than_the_bus_takes_is_refused(pavane: Shell) -> None:
    said = orders(pavane, "--data", json.dumps({"order_id": "x" * 2_000_000, "amount": 1}))
    assert said.code == 2
    assert on("toy.orders") == []


def test_a_dry_run_checks_and_publishes_nothing(pavane: Shell) -> None:
    said = orders(pavane, "--data", json.dumps(GOOD), "--dry-run")
    assert said.out.startswith("would publish 1 event")
    assert on("toy.orders") == []
    assert orders(pavane, "--data", "{}", "--dry-run").code == 2


def test_without_an_id_field_every_event_is_new(pavane: Shell) -> None:
    for _ in range(2):
        orders(pavane, "--data", json.dumps(GOOD))
    assert len({parse(record).id for record in on("toy.orders")}) == 2


def test_an_id_field_must_be_there(pavane: Shell) -> None:
    said = orders(pavane, "--data", json.dumps(GOOD), "--id-field", "number")
    assert (said.code, "number: --id-field names it" in said.err) == (2, True)


def test_a_class_may_be_named_instead_of_the_application(pavane: Shell) -> None:
    orders(pavane, "--data", json.dumps(GOOD))
    bad = pavane("publish", "toy.orders", "--data", "{}", "--event", "unit.cli_toy:OrderPlaced")
    assert bad.code == 2
    other = pavane(
        "publish", "toy.orders", "--data", json.dumps(GOOD), "--event", "unit.cli_toy:Paid", "--type", "toy.order-placed"
    )
    assert "Paid is toy.paid, not toy.order-placed" in other.err


def test_without_a_class_it_says_that_nothing_was_validated(pavane: Shell) -> None:
    orders(pavane, "--data", json.dumps(GOOD))
    asyncio.run(cli_toy.perform(BUS, []))
    said = pavane("publish", "toy.orders", "--data", "{}")
    assert (said.code, "not validated here" in said.out) == (0, True)


def test_a_topic_that_does_not_exist_is_refused_and_intakes_are_named(pavane: Shell) -> None:
    orders(pavane, "--data", json.dumps(GOOD))
    said = pavane("publish", "toy.order", "--data", "{}", *APP)
    assert said.code == 2
    assert "there is no topic 'toy.order'; intakes: toy.orders" in said.err


@pytest.mark.parametrize("topic", ["pavane.facts", "payment.commands", "payment.dead-letters"])
def test_the_platforms_own_topics_are_refused(pavane: Shell, topic: str) -> None:
    orders(pavane, "--data", json.dumps(GOOD))
    said = pavane("publish", topic, "--data", "{}")
    assert (said.code, "only the platform writes there" in said.err) == (2, True)


def test_a_type_that_the_application_does_not_declare_is_refused(pavane: Shell) -> None:
    said = orders(pavane, "--data", json.dumps(GOOD), "--type", "toy.order-shipped")
    assert (said.code, "no class of type 'toy.order-shipped'" in said.err) == (2, True)
