"""What is read the short way reads the same the long way, whatever the headers are."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from pavane_events import envelope as envelopes
from pavane_events.envelope import Envelope, Trace, parse
from pavane_events.errors import UndecodableRecord
from pavane_events.plain import plain
from pavane_events.record import Headers, Record

USUAL = Envelope(
    id="one",
    source="/agents/credit-score",
    type="credit.score-computed",
    data=b"{}",
    time="2026-11-23T03:00:00.000Z",
    subject="application-1",
    dataschema="urn:pavane:credit.score-computed:1",
    saga="saga-1",
    causation="zero",
    causes=("zero",),
    step="credit-score/compute_score",
    depth=2,
    declaration="1.0",
    trace=Trace("00-" + "a" * 32 + "-" + "b" * 16 + "-01", "x=y"),
)
ODD = [
    "",
    " ",
    "/",
    "a/b",
    "é",
    "\x00",
    "\n",
    "\x7f",
    "0",
    "007",
    "100",
    "-1",
    "1/1",
    "1/2",
    "2/1",
    '["a"]',
    "[]",
    '["a","b"]',
]
MORE = ['["\\u0061"]', '[""]', '[ "a" ]', '["a"', "2026-11-23", "2026-11-23T03:00:00", "never", "x" * 3000, "application/json"]
names = st.sampled_from([name for name, _ in USUAL.to_message().headers] + ["baggage", "CE_ID", "ce_unknown", "other"])
texts = st.one_of(st.sampled_from(ODD + MORE), st.text(max_size=8)).map(lambda text: text.encode("utf-8", "surrogatepass"))
odd = st.lists(st.tuples(names, st.one_of(texts, st.binary(max_size=4))), max_size=4)


def record_of(headers: Headers, value: bytes | None = b"{}") -> Record:
    return Record("credit.score-computed", 0, 0, b"saga-1", value, headers, 0)


def read(record: Record, *, with_care: bool) -> "Envelope | tuple[str, ...]":
    try:
        return envelopes._parse_with_care(record) if with_care else parse(record)  # pyright: ignore[reportPrivateUsage]
    except UndecodableRecord as error:
        return tuple(str(problem) for problem in error.problems)


@given(odd, st.sets(st.integers(0, 20), max_size=3))
def test_both_ways_of_reading_give_the_same(changed: list[tuple[str, bytes]], left_out: set[int]) -> None:
    usual = [header for number, header in enumerate(USUAL.to_message().headers) if number not in left_out]
    new = dict(changed)
    replaced = tuple((name, new.pop(name, value)) for name, value in usual)
    for headers in (replaced, (*replaced, *new.items()), (*usual, *changed)):
        record = record_of(tuple(headers))
        assert read(record, with_care=False) == read(record, with_care=True)


def test_what_lanes_write_is_read_the_short_way() -> None:
    for written in (USUAL, replace(USUAL, trace=Trace()), replace(USUAL, causes=(), causation=None, step=None, depth=0)):
        message = written.to_message()
        assert plain(*record_of(message.headers).columns) is not None
        assert parse(record_of(message.headers)) == written


def test_a_null_value_and_several_causes_are_read_with_care() -> None:
    assert read(record_of(USUAL.to_message().headers, None), with_care=False) != USUAL
    joined = replace(USUAL, causes=("a", "b"))
    assert plain(*record_of(joined.to_message().headers).columns) is None
    assert parse(record_of(joined.to_message().headers)) == joined
