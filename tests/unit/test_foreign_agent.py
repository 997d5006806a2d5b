"""The agent without Pavane says what Pavane's own says: on the same records, but for time and version."""

import ast
import json
import re
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError, KafkaException, Message, murmur2
from examples import foreign_agent
from hypothesis import given
from hypothesis import strategies as st

from pavane_events.dead_letter import reason_headers
from pavane_events.ids import derived
from pavane_events.partition import partition_of
from pavane_events.record import Headers, Record
from pavane_saga.facts import Declared, Fact, Settled, UndoFailed, fact_from_json
from pavane_saga.wire import FACTS
from support.foreign_records import records_of, said, said_by

ROOT = Path(__file__).parents[2]
PARTITIONS = 2
ORDER = b'{"order":"o-1","cents":500,"item":"tea"}'
STEP = "payment/charge"


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    return records_of("unicorn", "compensated", tmp_path_factory.mktemp("shop"))


class Payment:
    """The agent without Kafka: a record comes to records."""

    def __init__(self, folder: Path) -> None:
        self.ended: set[str] = set()
        self.ledger = foreign_agent.open_ledger(str(folder / "charges.db"))

    def answer(self, record: Message, *, maybe_begun: bool = False) -> list[Record]:
        outs = foreign_agent.answers(
            record.topic() or "", record, self.ledger, PARTITIONS, self.ended, maybe_begun=maybe_begun
        )
        return [written(out) for out in outs]

    def undo(self, command: dict[str, object]) -> Record:
        return written(foreign_agent.undo(command, {"ce_sagaid": "s", "ce_id": "u"}, self.ledger))


def written(out: foreign_agent.Out) -> Record:
    """What the agent would write; what its key places lies nowhere yet."""
    topic, key, value, headers, partition = out
    return Record(topic, partition, 0, key, value, tuple(headers), 0)


@pytest.fixture
def payment(tmp_path: Path) -> Payment:
    return Payment(tmp_path)


def message(record: Record) -> Message:
    """A record as librdkafka hands it out."""
    return Message(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        key=record.key,
        value=record.value,
        headers=list(record.headers),
    )


def order(
    value: bytes = ORDER, saga: str = "s", identity: str = "e", extra: Headers = (), partition: int | None = None
) -> Message:
    """An order of a saga, where it belongs unless said otherwise."""
    named = {"specversion": "1.0", "id": identity, "source": "/sagas/order", "type": "shop.order-placed", "sagaid": saga}
    headers = (*((f"ce_{name}", text.encode()) for name, text in named.items()), *extra)
    place = partition_of(saga.encode(), PARTITIONS) if partition is None else partition
    return message(Record("shop.order-placed", place, 7, saga.encode(), value, headers, 0))


def facts(outs: Sequence[Record]) -> list[Fact]:
    return [fact_from_json(out.value or b"") for out in outs if out.topic == FACTS]


def test_it_knows_nothing_of_pavane_but_the_page() -> None:
    imported = re.findall(r"^(?:from|import) (\w+)", Path(foreign_agent.__file__).read_text(encoding="utf-8"), re.MULTILINE)
    assert {name for name in imported if name not in sys.stdlib_module_names} == {"confluent_kafka"}


def test_it_charges_and_takes_back_in_the_same_words(payment: Payment, records: list[Record]) -> None:
    for topic in ("shop.order-placed", "payment.commands"):
        (given_record,) = [each for each in records if each.topic == topic]
        (out,) = payment.answer(message(given_record))
        same = [
            said_by(each)
            for each in records
            if each.topic == out.topic and dict(each.headers)["ce_source"] == b"/agents/payment"
        ]
        found = said(out.topic, out.key, tuple(sorted(out.headers)), out.value)
        assert found in [(topic, key, tuple(sorted(headers)), data) for topic, key, headers, data in same]


def test_it_declares_itself_as_it_would_be_declared(records: list[Record]) -> None:
    (manifest,) = [each for each in records if each.key == b"agent:payment"]
    own, theirs = fact_from_json(json.dumps(foreign_agent.declared({})).encode()), fact_from_json(manifest.value or b"")
    assert isinstance(own, Declared)
    assert isinstance(theirs, Declared)
    assert (own.agent, own.steps, own.since) == (theirs.agent, theirs.steps, theirs.since)


def test_what_meets_a_tombstone_is_skipped_where_it_never_began_and_failed_where_it_may_have(payment: Payment) -> None:
    payment.ended.add("s")
    skipped, failed = (facts(payment.answer(order(), maybe_begun=maybe)) for maybe in (False, True))
    assert skipped == [Settled(STEP, ("e",), "skipped", began=False, code="saga.ended", declaration="payment@1")]
    assert failed == [Settled(STEP, ("e",), "failed", began=True, code="saga.ended", declaration="payment@1")]


def test_every_fact_has_the_id_that_is_derived_from_what_it_says(payment: Payment) -> None:
    command: dict[str, object] = {
        "step": "payment/gone",
        "causes": ["b", "a"],
        "outcome": "unknown",
        "inputs": [],
        "outputs": [],
    }
    outs = [
        *payment.answer(order(b"{}")),
        *payment.answer(order(identity="dear", value=b'{"order":"o","cents":9999999}')),
        payment.undo(command),
        payment.undo({**command, "step": STEP, "causes": ["e"]}),
        *payment.answer(order()),
    ]
    said_so = [out for out in outs if out.topic == FACTS]
    assert [type(fact).__name__ for fact in facts(outs)] == ["Settled", "Settled", "UndoFailed", "Undone", "Settled"]
    for out in said_so:
        fact = fact_from_json(out.value or b"")
        kind = type(fact).__name__.lower()
        named = dict(out.headers)
        assert named["ce_id"].decode() == derived("fact", "s", kind, fact.identity)
        assert named["ce_type"].decode() == f"pavane.fact.{kind}"
    assert facts(outs)[2] == UndoFailed("payment/gone", ("a", "b"), "undo.no-step", "this agent has no such step")


def test_an_undo_leaves_a_fence_and_may_come_twice(payment: Payment) -> None:
    for _ in range(2):
        payment.undo({"step": STEP, "causes": ["e"]})
    (refused,) = facts(payment.answer(order()))
    assert isinstance(refused, Settled)
    assert (refused.how, refused.began, refused.code) == ("failed", True, "effect.undone")


@pytest.mark.parametrize(
    ("record", "code", "where"),
    [
        (order(extra=(("ce_id", b"f"),)), "header.doubled", "ce_id"),
        (order(saga=""), "attribute.missing", "ce_sagaid"),
        (order(partition=1 - partition_of(b"s", PARTITIONS)), "partition.misplaced", "partition"),
        (order(b"no JSON"), "value.json", "value"),
        (order(b"[1]"), "value.json", "value"),
    ],
)
def test_what_it_cannot_take_is_a_dead_letter_with_its_bytes_untouched(
    payment: Payment, record: Message, code: str, where: str
) -> None:
    (out,) = payment.answer(record)
    assert (out.topic, out.key, out.value, out.partition) == (
        "payment.dead-letters",
        record.key(),
        record.value(),
        record.partition(),
    )
    assert list(out.headers[: len(record.headers() or ())]) == record.headers()
    reason = reason_headers(out.headers)
    assert reason["error_code"] == code
    assert [each["where"] for each in json.loads(reason["error_problems"])] == [where]
    assert (reason["source_topic"], reason["source_offset"]) == ("shop.order-placed", "7")


@given(st.binary(max_size=40), st.integers(1, 50))
def test_it_places_a_key_as_kafka_does(key: bytes, partitions: int) -> None:
    assert murmur2(key, partitions) == partition_of(key, partitions)


@given(st.lists(st.text(st.characters(codec="utf-8")), min_size=1, max_size=5))
def test_its_ids_are_derived_as_ours_are(parts: list[str]) -> None:
    assert foreign_agent.derived(*parts) == derived(*parts)


def test_an_undo_that_is_asked_for_again_and_fails_says_which_time_it_was(payment: Payment) -> None:
    command: dict[str, object] = {"step": "payment/gone", "causes": ["e"], "outcome": "unknown", "inputs": [], "outputs": []}
    out = payment.undo({**command, "retry": 2})
    (failed,) = facts([out])
    assert failed == UndoFailed("payment/gone", ("e",), "undo.no-step", "this agent has no such step", retry=2)
    assert dict(out.headers)["ce_id"].decode() == derived("fact", "s", "undofailed", failed.identity)


def test_a_dead_letter_lists_all_that_is_wrong(payment: Payment) -> None:
    (out,) = payment.answer(order(b"[1]", extra=(("ce_id", b"f"),)))
    reason = reason_headers(out.headers)
    assert reason["error_code"] == "undecodable"
    listed = [(each["code"], each["where"]) for each in json.loads(reason["error_problems"])]
    assert listed == [("header.doubled", "ce_id"), ("value.json", "value")]


def test_tracestate_that_comes_in_parts_goes_on_whole(payment: Payment) -> None:
    parts = (("tracestate", b"a=1"), ("Tracestate", b"b=2"))
    (out,) = payment.answer(order(extra=(("traceparent", b"00-0af7-b7ad-01"), *parts)))
    assert out.topic == "shop.charged"
    assert dict(out.headers)["tracestate"] == b"a=1,b=2"


def test_brokers_that_are_away_as_it_begins_do_not_end_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """It begins anew once they answer; what each beginning made is closed."""
    asked: list[str] = []
    handlers: list[Callable[[int, object], None]] = []

    class Brokers:
        def __init__(self, settings: object) -> None: ...

        def list_topics(self, topic: str, timeout: float) -> None:
            asked.append("asked")
            if len(asked) > 2:
                handlers[0](signal.SIGTERM, None)
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))

        def close(self) -> None:
            asked.append("closed")

    class Hasty(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            return self.is_set()

    def handle(number: int, handler: Callable[[int, object], None]) -> None:
        handlers.append(handler)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(foreign_agent, "Consumer", Brokers)
    monkeypatch.setattr(foreign_agent, "Producer", Brokers)
    monkeypatch.setattr(foreign_agent, "signal", SimpleNamespace(SIGTERM=signal.SIGTERM, signal=handle))
    monkeypatch.setattr(foreign_agent, "threading", SimpleNamespace(Event=Hasty))
    foreign_agent.main()
    assert asked == ["asked", "closed", "asked", "closed"]
    assert capsys.readouterr().err.count("beginning anew") == 2


def test_it_is_as_long_as_the_readme_says() -> None:
    text = Path(foreign_agent.__file__).read_text(encoding="utf-8")
    strings = [
        each for each in ast.walk(ast.parse(text)) if isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant)
    ]
    words = {line for each in strings for line in range(each.lineno, (each.end_lineno or 0) + 1)}
    code = [line for number, line in enumerate(text.splitlines(), 1) if number not in words and line.split("#")[0].strip()]
    said = re.search(r"an agent of (\d+) lines of code", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert said is not None
    assert int(said[1]) - 10 < len(code) <= int(said[1])
