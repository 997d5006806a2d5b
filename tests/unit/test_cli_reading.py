"""``sagas``, ``trace``, ``tail`` and ``dead-letters``: what a bus file tells after the fact."""

import asyncio
import json
import re
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from pavane.plan import plan_of
from pavane.testing import ContinuityReport, assert_continuous
from pavane_events.bus import TopicSpec
from pavane_events.buses.address import open_bus
from pavane_events.envelope import Envelope
from pavane_events.errors import ConfigurationError
from pavane_events.partition import partition_of
from pavane_events.record import Message
from pavane_saga.story import Story, read_story
from pavane_saga.wire import FACTS, fact_envelope
from pavane_tracing.span import SpanLink, SpanRow
from pavane_tracing.store import all_spans
from unit import cli_toy
from unit.cli_shell import Said, Shell

AMOUNTS = (20, cli_toy.REFUSED, cli_toy.DECLINED, cli_toy.STUCK)
SHIPPED, REFUSED, DECLINED, STUCK = (f"order-{number}" for number in range(4))
JUNK = (b"\xff\x00no json\x1b[31m", b'{"order_id": 7}')


@pytest.fixture(scope="module")
def bus(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Four orders taken and done with, one of them parked, and two records of junk."""
    url = f"sqlite:///{tmp_path_factory.mktemp('toy') / 'bus.db'}"
    asyncio.run(cli_toy.perform(url, AMOUNTS, JUNK))
    return url


@pytest.fixture
def pavane(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], bus: str) -> Shell:
    monkeypatch.setenv("PAVANE_BUS", bus)
    return Shell(monkeypatch, capsys)


def test_sagas_are_listed_with_their_states(pavane: Shell) -> None:
    said = pavane("sagas", "list", "--json")
    assert said.code == 0
    assert {each["subject"]: each["state"] for each in said.documents} == {
        SHIPPED: "completed",
        REFUSED: "compensated",
        DECLINED: "compensated",
        STUCK: "parked",
    }
    assert {each["saga"] for each in said.documents} == {cli_toy.saga_of(f"order-{number}") for number in range(4)}


def test_sagas_of_one_state_are_listed_in_columns(pavane: Shell) -> None:
    said = pavane("sagas", "list", "--state", "parked")
    header, row = said.out.splitlines()
    assert header.split() == ["SAGA", "SUBJECT", "STATE", "STARTED", "TOOK", "NAME"]
    assert row.split()[:3] == [cli_toy.saga_of(STUCK), STUCK, "parked"]
    assert said.err == "1 parked\n"


def test_an_unknown_state_is_wrong_usage(pavane: Shell) -> None:
    assert pavane("sagas", "list", "--state", "lost").code == 2


def test_a_compensated_saga_is_told_from_start_to_verdict(pavane: Shell) -> None:
    told = pavane("sagas", "show", REFUSED, "--json").document
    assert told["state"] == "compensated"
    assert told["failure"] == {"code": "toy.refused", "reason": "toy.refused happened", "step": "shipping/ship"}
    assert (told["owed"], told["standing"], told["unseen"]) == ([], [], [])
    timeline = [(each["who"], each["what"]) for each in as_list(told["timeline"])]
    assert timeline[0] == ("sagas/order", "toy.order-placed")
    assert timeline[-1] == ("pavane.coordinator", "compensated")
    assert timeline.index(("shipping/ship", "toy.refused")) < timeline.index(("payment/charge", "undo asked for (done)"))
    assert timeline.index(("payment/charge", "undo asked for (done)")) < timeline.index(("payment/charge", "undone"))


def test_a_rejection_is_told_with_its_reason(pavane: Shell) -> None:
    said = pavane("sagas", "show", DECLINED)
    assert "turned back: rejected (payment/charge): the card was declined" in said.out


def test_a_parked_saga_says_which_effect_may_stand(pavane: Shell) -> None:
    told = pavane("sagas", "show", STUCK, "--json").document
    assert told["state"] == "parked"
    assert [each["step"] for each in as_list(told["standing"])] == ["packing/pack"]
    text = pavane("sagas", "show", STUCK).out
    assert "undo failed: its effect may stand" in text
    assert "effects that may stand:\n  packing/pack\n" in text


def test_a_completed_sagas_effects_stand(pavane: Shell) -> None:
    told = pavane("sagas", "show", SHIPPED, "--json").document
    assert told["state"] == "completed"
    assert sorted(str(each["step"]) for each in as_list(told["standing"])) == ["packing/pack", "payment/charge"]


def test_a_saga_is_found_by_the_beginning_of_its_id(pavane: Shell) -> None:
    saga = cli_toy.saga_of(SHIPPED)
    assert pavane("sagas", "show", saga[:13], "--json").document["saga"] == saga
    assert pavane("sagas", "show", saga, "--json").document["saga"] == saga


def test_an_unknown_saga_is_invalid_input(pavane: Shell) -> None:
    said = pavane("sagas", "show", "order-99")
    assert said.code == 2
    assert "`pavane sagas list` shows all" in said.err


def test_where_several_sagas_may_be_meant_they_are_named(pavane: Shell) -> None:
    said = pavane("sagas", "show", "4")
    assert said.code == 2
    assert "2 sagas may be meant" in said.err
    assert cli_toy.saga_of(SHIPPED) in said.err
    assert cli_toy.saga_of(DECLINED) in said.err


@pytest.mark.parametrize("blank", ["", "  "])
@pytest.mark.parametrize(
    "command",
    [
        ("sagas", "show"),
        ("sagas", "abandon", "--why", "x"),
        ("sagas", "retry", "--why", "x"),
        ("answer", "--data", "{}"),
        ("trace",),
        ("trace", "--check"),
        ("tail", "--saga"),
    ],
)
def test_no_saga_is_meant_by_a_blank_id(pavane: Shell, command: tuple[str, ...], blank: str) -> None:
    said = pavane(*command, blank)
    assert (said.code, said.out) == (2, "")
    assert "the id of a saga is blank" in said.err


def test_a_saga_on_its_way_shows_who_owes_what(tmp_path: Path) -> None:
    async def tell() -> Story | None:
        async with await open_bus(f"sqlite:///{tmp_path / 'bus.db'}") as bus:
            await cli_toy.perform_partly(bus, "order-1")
            return await read_story(bus, cli_toy.saga_of("order-1"))

    story = asyncio.run(tell())
    assert story is not None
    assert story.summary.state == "running"
    owed = {(debt.step, debt.type, debt.waiting) for debt in story.owed}
    assert owed == {("packing/pack", "toy.order-placed", False), ("shipping/ship", "toy.paid", True)}


def test_what_an_earlier_version_said_waits_for_no_declaration(tmp_path: Path) -> None:
    async def tell() -> Story | None:
        saga = cli_toy.saga_of("order-1")
        async with await open_bus(f"sqlite:///{tmp_path / 'bus.db'}") as bus:
            await cli_toy.perform_partly(bus, "order-1")
            await bus.create_topics([TopicSpec(cli_toy.Packed.event_type)])
            later = plan_of(cli_toy.packing).manifest.declared([(cli_toy.OrderPlaced.event_type, 0)])
            for declared in (replace(later, version="packing@earlier"), later):
                fact = fact_envelope(declared, saga=None, source="/agents/packing", time_s=0)
                await bus.publish([fact.to_message(FACTS, partition=partition_of(saga.encode(), bus.partitions))])
            packed = Envelope(
                id="packed",
                source="/agents/packing",
                type=cli_toy.Packed.event_type,
                data=cli_toy.Packed(order_id="order-1").to_json(),
                saga=saga,
                causation="start",
                causes=("start",),
                step="packing/pack",
                declaration="packing@earlier",
                depth=1,
            )
            await bus.publish([packed.to_message()])
            return await read_story(bus, saga)

    story = asyncio.run(tell())
    assert story is not None
    assert (story.unseen, [debt.step for debt in story.owed]) == ((), ["shipping/ship", "shipping/ship"])


def test_a_trace_is_drawn_and_is_whole(pavane: Shell) -> None:
    said = pavane("trace", REFUSED)
    assert (said.code, said.err) == (0, "")
    assert f"saga {cli_toy.saga_of(REFUSED)} order" in said.out
    assert "payment ↩ undoes charge" in said.out


def test_a_trace_as_json_says_that_it_is_continuous(pavane: Shell) -> None:
    document = pavane("trace", SHIPPED, "--json").document
    assert (document["continuous"], document["findings"], document["sagaName"]) == (True, [], "order")


def test_every_send_is_drawn_on_demand(pavane: Shell) -> None:
    assert len(pavane("trace", SHIPPED, "--all-spans").out) > len(pavane("trace", SHIPPED).out)


def broken_copy(tmp_path: Path, bus: str) -> str:
    """The same bus, without one commit's spans."""
    broken = tmp_path / "broken.db"
    shutil.copy(bus.removeprefix("sqlite:///"), broken)
    with sqlite3.connect(broken) as connection:
        topics = "SELECT id FROM topics WHERE name = 'pavane.spans'"
        connection.execute(
            f"DELETE FROM records WHERE topic = ({topics}) AND key = ? AND instr(value, ?)",
            (cli_toy.saga_of(SHIPPED).encode(), b'"process toy.paid"'),
        )
    connection.close()
    return f"sqlite:///{broken}"


LOST = "toy.paid -> shipping/ship: the process span is missing"


def test_a_trace_with_a_break_is_named_and_fails(pavane: Shell, tmp_path: Path, bus: str) -> None:
    said = pavane("trace", SHIPPED, "--bus", broken_copy(tmp_path, bus))
    assert said.code == 1
    assert f"broken: {LOST} (hop.lost)" in said.err


def test_every_saga_of_a_bus_is_checked(pavane: Shell) -> None:
    said = pavane("trace", "--check", "--all")
    assert (said.code, said.err) == (0, "")
    assert re.fullmatch(
        r"4 sagas, \d+ traces, \d+ roots, 0 orphans, \d+ spans, \d+ hops; 0 spans missing: no finding\n", said.out
    )
    document = pavane("trace", "--check", SHIPPED, "--json").document
    assert (document["continuous"], document["sagas"], document["findings"]) == (True, 1, [])


@pytest.mark.parametrize("which", [("--all",), (SHIPPED, "--check")])
def test_a_check_that_finds_something_fails_unless_so_much_may_be_lost(
    pavane: Shell, tmp_path: Path, bus: str, which: tuple[str, ...]
) -> None:
    broken = broken_copy(tmp_path, bus)
    said = pavane("trace", *which, "--bus", broken)
    assert said.code == 1
    assert f"hop.lost  {LOST}  saga {cli_toy.saga_of(SHIPPED)}" in said.out
    document = pavane("trace", *which, "--bus", broken, "--json").document
    assert document["continuous"] is False
    missing = cast("int", document["missing"])
    allowed = pavane("trace", *which, "--bus", broken, "--lost-allowed", str(missing))
    assert allowed.code == 0
    assert "are passed over" in allowed.out


@pytest.mark.parametrize("wrong", [(), (SHIPPED, "--all"), ("--check",), (SHIPPED, "--check", "--jaeger")])
def test_a_check_is_of_one_saga_or_of_all(pavane: Shell, wrong: tuple[str, ...]) -> None:
    assert pavane("trace", *wrong).code == 2


def test_a_trace_that_was_never_exported_has_a_link_all_the_same(pavane: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    said = pavane("trace", SHIPPED, "--jaeger")
    assert said.code == 2
    assert "PAVANE_JAEGER_URL" in said.err
    monkeypatch.setenv("PAVANE_JAEGER_URL", "http://jaeger:16686")
    trace = pavane("trace", SHIPPED, "--json").document["traceId"]
    assert pavane("trace", SHIPPED, "--jaeger").out == f"http://jaeger:16686/trace/{trace}\n"


@pytest.fixture(scope="module")
def unsampled(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One order, of which no span was to be made."""
    url = f"sqlite:///{tmp_path_factory.mktemp('unsampled') / 'bus.db'}"
    with pytest.MonkeyPatch.context() as variables:
        variables.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
        asyncio.run(cli_toy.perform(url, AMOUNTS[:1]))
    return url


def test_of_a_saga_that_was_not_sampled_it_is_said(pavane: Shell, unsampled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAVANE_BUS", unsampled)
    said = pavane("trace", SHIPPED)
    assert said.code == 1
    assert "this saga was not sampled (OTEL_TRACES_SAMPLER)" in said.err
    document = pavane("trace", SHIPPED, "--json").document
    assert (document["sampled"], document["link"], document["searchLink"]) == (False, None, None)
    monkeypatch.setenv("PAVANE_JAEGER_URL", "http://jaeger:16686")
    linked = pavane("trace", SHIPPED, "--jaeger")
    assert linked.code == 2
    assert "it was not sampled" in linked.err


def test_a_check_counts_the_sagas_that_were_not_sampled(unsampled: str, tmp_path: Path) -> None:
    (tmp_path / "spans.jsonl").write_text("")
    report = assert_continuous(unsampled, otlp=tmp_path / "spans.jsonl")
    assert (report.sagas, report.unsampled) == (1, 1)
    assert str(report).startswith("1 saga (1 unsampled), 0 traces, 0 roots, 0 orphans, 0 spans, 0 hops; 0 spans missing")


def test_a_saga_of_several_traces_is_linked_to_by_its_tag_too(
    pavane: Shell, bus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [row for row in asyncio.run(spans_on(bus)) if row.text("saga.id") == cli_toy.saga_of(SHIPPED)]
    root = next(row for row in found if row.kind == "CONSUMER")
    later = replace(root, trace_id="e" * 32, span_id="e" * 16, parent_span_id=None)
    linked = replace(later, links=(SpanLink(root.trace_id, root.parent_span_id or ""),))
    (tmp_path / "spans.jsonl").write_text("".join(as_line(row) for row in (*found, linked)))
    monkeypatch.setenv("PAVANE_JAEGER_URL", "http://jaeger:16686")
    said = pavane("trace", SHIPPED, "--otlp", str(tmp_path / "spans.jsonl"))
    assert f"in Jaeger: http://jaeger:16686/trace/{found[0].trace_id}" in said.out
    assert re.search(r"all of its traces: http://jaeger:16686/search\?service=coordinator&tags=.*saga.id", said.out)
    assert cli_toy.saga_of(SHIPPED) in said.out.rpartition("all of its traces")[2]


def test_a_test_of_ones_own_asserts_it_in_one_line(bus: str, tmp_path: Path) -> None:
    assert assert_continuous(bus).sagas == 4
    assert assert_continuous(bus, SHIPPED).sagas == 1

    async def within_a_loop() -> ContinuityReport:
        return assert_continuous(bus)

    assert asyncio.run(within_a_loop()).findings == ()
    broken = broken_copy(tmp_path, bus)
    with pytest.raises(AssertionError, match=LOST):
        assert_continuous(broken)
    with pytest.raises(AssertionError, match="0 sagas may be meant by 'nobody'"):
        assert_continuous(bus, "nobody")
    with pytest.raises(ConfigurationError, match="the id of a saga is blank"):
        assert_continuous(bus, "")


def test_spans_in_a_collectors_file_are_held_against_the_bus(pavane: Shell, tmp_path: Path, bus: str) -> None:
    rows = asyncio.run(spans_on(bus))
    whole, gap = tmp_path / "spans.jsonl", tmp_path / "gap.jsonl"
    whole.write_text("".join(as_line(row) for row in rows))
    gap.write_text("".join(as_line(row) for row in rows if row.name != "process toy.paid"))
    untraced = without_spans(tmp_path, bus)
    assert pavane("trace", "--all", "--bus", untraced).code == 2
    assert pavane("trace", "--all", "--otlp", str(whole), "--bus", untraced).code == 0
    assert pavane("trace", SHIPPED, "--otlp", str(whole), "--bus", untraced).code == 0
    assert LOST in pavane("trace", "--all", "--otlp", str(gap), "--bus", untraced).out
    with pytest.raises(AssertionError, match=LOST):
        assert_continuous(untraced, SHIPPED, otlp=gap)


OTLP_TYPES = {"stringValue": str, "boolValue": bool, "intValue": int, "doubleValue": float}


async def spans_on(url: str) -> list[SpanRow]:
    async with await open_bus(url) as bus:
        return await all_spans(bus)


def as_line(row: SpanRow) -> str:
    """A span as a Collector's file exporter writes it, alone in its line."""
    kinds = {"INTERNAL": 1, "SERVER": 2, "CLIENT": 3, "PRODUCER": 4, "CONSUMER": 5}
    attributes = [{"key": key, "value": value_of(each)} for key, each in row.attributes.items()]
    times = {"startTimeUnixNano": str(row.start_ns), "endTimeUnixNano": str(row.end_ns)}
    own: dict[str, object] = {"kind": kinds[row.kind], "attributes": attributes, **times, "events": [], "status": {}}
    span: dict[str, object] = {**row.to_json(), **own}
    service = {"attributes": [{"key": "service.name", "value": {"stringValue": row.service}}]}
    return json.dumps({"resourceSpans": [{"resource": service, "scopeSpans": [{"spans": [span]}]}]}) + "\n"


def value_of(value: object) -> dict[str, object]:
    kind = next(name for name, each in OTLP_TYPES.items() if isinstance(value, each))
    return {kind: value}


def without_spans(tmp_path: Path, bus: str) -> str:
    """The same bus, as one whose spans were exported."""
    untraced = tmp_path / "untraced.db"
    shutil.copy(bus.removeprefix("sqlite:///"), untraced)
    with sqlite3.connect(untraced) as connection:
        connection.execute("DELETE FROM records WHERE topic = (SELECT id FROM topics WHERE name = 'pavane.spans')")
    connection.close()
    return f"sqlite:///{untraced}"


def test_a_saga_without_spans_says_so_and_fails(pavane: Shell, tmp_path: Path, bus: str) -> None:
    said = pavane("trace", SHIPPED, "--bus", without_spans(tmp_path, bus))
    assert said.code == 1
    assert "no span of this saga is kept here" in said.err


def test_a_file_without_spans_of_the_saga_is_named(
    pavane: Shell, tmp_path: Path, bus: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = tmp_path / "others.jsonl"
    others.write_text("")
    for _ in range(2):
        said = pavane("trace", SHIPPED, "--bus", without_spans(tmp_path, bus), "--otlp", str(others))
        assert said.code == 1
        assert f"{others} has no span of this saga; its trace is" in said.err
        monkeypatch.setenv("PAVANE_JAEGER_URL", "http://127.0.0.1:9")


def test_records_of_a_topic_are_shown_with_their_data(pavane: Shell) -> None:
    said = pavane("tail", "toy.refused")
    lines = said.out.splitlines()
    assert len(lines) == 4
    assert "toy.refused" in lines[0]
    assert "by shipping/ship" in lines[0]
    assert json.loads(lines[1]) in ({"order_id": REFUSED}, {"order_id": STUCK})


def test_records_as_json_are_one_object_per_line(pavane: Shell) -> None:
    (record,) = pavane("tail", "toy.shipped", "--json").documents
    assert record["topic"] == "toy.shipped"
    assert record["key"] == cli_toy.saga_of(SHIPPED)
    assert record["data"] == {"order_id": SHIPPED}
    assert as_dict(record["headers"])["ce_step"] == "shipping/ship"


def test_everything_of_one_saga_is_shown_in_order_of_time(pavane: Shell) -> None:
    records = pavane("tail", "--saga", SHIPPED, "--json").documents
    assert [record["topic"] for record in records][:2] == ["toy.orders", "toy.order-placed"]
    assert {record["key"] for record in records} == {cli_toy.saga_of(SHIPPED)}


def test_the_last_records_are_shown_on_demand(pavane: Shell) -> None:
    everything = pavane("tail", "--json").out.splitlines()
    assert pavane("tail", "--json", "--last", "3").out.splitlines() == everything[-3:]
    assert pavane("tail", "--last", "0").out == ""


def test_spans_are_shown_only_if_named(pavane: Shell) -> None:
    assert all(record["topic"] != "pavane.spans" for record in pavane("tail", "--json").documents)
    assert pavane("tail", "pavane.spans").out


def test_from_the_latest_record_on_there_is_nothing_yet(pavane: Shell) -> None:
    said = pavane("tail", "--from", "latest")
    assert (said.code, said.out) == (0, "")
    assert "without --follow" in said.err


def test_a_topic_that_does_not_exist_is_invalid_input(pavane: Shell) -> None:
    said = pavane("tail", "toy.orders", "toy.nothing")
    assert (said.code, "there is no topic 'toy.nothing'" in said.err) == (2, True)


def test_what_a_record_holds_cannot_change_the_terminal(pavane: Shell) -> None:
    for said in (pavane("tail", "toy.orders"), pavane("dead-letters", "list"), first_letter(pavane)):
        assert "\x1b" not in said.out
        assert "\x00" not in said.out


def first_letter(pavane: Shell) -> Said:
    offsets = [str(each["offset"]) for each in pavane("dead-letters", "list", "pavane.coordinator", "--json").documents]
    return pavane("dead-letters", "show", "pavane.coordinator", offsets[0])


def test_dead_letters_are_listed_with_reason_and_source(pavane: Shell) -> None:
    letters = pavane("dead-letters", "list", "--json").documents
    assert {(each["agent"], each["code"]) for each in letters} >= {("pavane.coordinator", "contract")}
    refused = next(each for each in letters if each["value"] == {"order_id": 7})
    wheres = [str(problem["where"]) for problem in as_list(refused["problems"])]
    assert wheres == ["data.order_id", "data.amount"]
    assert str(refused["source"]).startswith("toy.orders/")


def test_undecodable_bytes_are_kept_as_they_are(pavane: Shell) -> None:
    letters = pavane("dead-letters", "list", "pavane.coordinator", "--json").documents
    assert any(isinstance(each["value"], dict) and "base64" in each["value"] for each in letters)


def test_one_dead_letter_is_shown_with_every_problem(pavane: Shell) -> None:
    letters = pavane("dead-letters", "list", "--json").documents
    letter = next(each for each in letters if each["value"] == {"order_id": 7})
    said = pavane("dead-letters", "show", "pavane.coordinator", f"{letter['partition']}@{letter['offset']}")
    assert "  - data.amount: Field required\n" in said.out
    assert said.out.endswith('value {"order_id": 7}\n')
    assert pavane("dead-letters", "show", "pavane.coordinator", str(letter["offset"]), "--json").document == letter


def test_an_undo_that_failed_is_a_dead_letter_of_its_agent(pavane: Shell) -> None:
    (letter,) = pavane("dead-letters", "list", "packing", "--json").documents
    assert (letter["step"], letter["attempt"]) == ("packing/pack", 1)


@pytest.mark.parametrize("arguments", [("list", "nobody"), ("show", "nobody", "1"), ("show", "packing", "999999")])
def test_dead_letters_of_nobody_are_invalid_input(pavane: Shell, arguments: tuple[str, ...]) -> None:
    assert pavane("dead-letters", *arguments).code == 2


def test_an_empty_bus_has_nothing_to_tell(pavane: Shell, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'empty.db'}"

    async def make() -> None:
        async with await open_bus(url) as bus:
            await bus.create_topics([TopicSpec("some.topic")])
            await bus.publish([Message("some.topic", None, b"key")])

    asyncio.run(make())
    assert pavane("sagas", "list", "--json", "--bus", url).documents == []
    assert pavane("dead-letters", "list", "--json", "--bus", url).documents == []
    assert pavane("trace", "x", "--bus", url).code == 2
    assert [record["data"] for record in pavane("tail", "--json", "--bus", url).documents] == [None]


def as_list(found: object) -> list[dict[str, object]]:
    assert isinstance(found, list)
    return [as_dict(each) for each in cast("list[object]", found)]


def as_dict(found: object) -> dict[str, object]:
    assert isinstance(found, dict)
    return cast("dict[str, object]", found)
