"""Dead letters keep the record as it was, say why, and always fit on the bus."""

import json

from hypothesis import given
from hypothesis import strategies as st

from pavane_events.bus import MAX_RECORD_BYTES
from pavane_events.dead_letter import Reason, dead_letter, dead_letters_topic, reason_headers
from pavane_events.errors import Problem
from pavane_events.record import Record

TEXT = st.text(max_size=30)
RECORDS = st.builds(
    Record,
    topic=st.just("a.b"),
    partition=st.integers(0, 7),
    offset=st.integers(0, 2**40),
    key=st.none() | st.binary(max_size=20),
    value=st.none() | st.binary(max_size=50),
    headers=st.lists(st.tuples(TEXT, st.binary(max_size=20)), max_size=5).map(tuple),
    timestamp_ms=st.just(0),
)


def record_of(size: int, headers: int = 0) -> Record:
    return Record("a.b", 3, 17, b"k" * 10, b"v" * size, (("h", b"x" * headers),) if headers else (), 0)


@given(RECORDS)
def test_key_value_and_headers_are_untouched_and_the_reason_stands_beside_them(record: Record) -> None:
    message = dead_letter(record, "score", Reason("contract", "score/compute", 2, "score@1", (Problem("data.n", "x", "y"),)))
    assert message.topic == dead_letters_topic("score") == "score.dead-letters"
    assert (message.key, message.value, message.partition) == (record.key, record.value, record.partition)
    assert message.headers[: len(record.headers)] == record.headers
    reason = reason_headers(message.headers)
    assert reason["error_code"] == "contract"
    assert reason["error_step"] == "score/compute"
    assert reason["error_attempt"] == "2"
    assert reason["error_version"] == "score@1"
    assert json.loads(reason["error_problems"]) == [{"where": "data.n", "code": "x", "message": "y"}]
    place = (reason["source_topic"], reason["source_partition"], reason["source_offset"])
    assert place == (record.topic, str(record.partition), str(record.offset))


def test_a_dead_letter_that_dies_again_says_the_last_reason() -> None:
    first = dead_letter(record_of(5), "score", Reason("first", "score/compute"))
    again = Record(first.topic, 3, 4, first.key, first.value, first.headers, 0)
    assert reason_headers(dead_letter(again, "score", Reason("second", "")).headers)["error_code"] == "second"


def test_a_record_that_leaves_no_room_for_the_reason_is_named_by_its_place() -> None:
    message = dead_letter(record_of(MAX_RECORD_BYTES - 100), "score", Reason("contract", "score/compute"))
    assert message.value is None
    reason = reason_headers(message.headers)
    assert reason["truncated"] == "true"
    assert (reason["source_topic"], reason["source_partition"], reason["source_offset"]) == ("a.b", "3", "17")


@given(
    st.integers(0, MAX_RECORD_BYTES),
    st.integers(0, MAX_RECORD_BYTES),
    st.lists(st.builds(Problem, where=TEXT, code=TEXT, message=st.text(max_size=10).map(lambda text: text * 100_000))),
)
def test_whatever_the_record_and_the_reason_a_dead_letter_fits(value: int, headers: int, problems: list[Problem]) -> None:
    record = record_of(value, headers)
    message = dead_letter(record, "score", Reason("contract", "score/compute", problems=tuple(problems * 20)))
    assert message.size() <= MAX_RECORD_BYTES


def test_words_that_are_no_unicode_do_not_keep_a_record_from_its_dead_letter() -> None:
    message = dead_letter(record_of(1), "score", Reason("x", "", problems=(Problem("data", "x", "\ud800"),)))
    assert json.loads(reason_headers(message.headers)["error_problems"])[0]["message"] == "?"
