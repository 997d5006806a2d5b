"""The platform's own JSON: whatever ``json`` reads and writes is read and written, to the same effect."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pavane_events.compact import read_json, write_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


def nested(levels: int) -> object:
    value: object = "ü"
    for _ in range(levels):
        value = [value]
    return value


@given(VALUES)
def test_what_is_written_is_read_by_anybody(value: object) -> None:
    assert json.loads(write_json(value)) == read_json(write_json(value)) == value
    assert read_json(json.dumps(value)) == value


@pytest.mark.parametrize(
    "value", ["\ud800", {"\udfff": 1}, nested(300), float("inf")], ids=["text", "name", "deep", "infinite"]
)
def test_what_only_json_can_is_left_to_it(value: object) -> None:
    assert read_json(write_json(value)) == json.loads(write_json(value)) == value


def test_encodings_are_those_of_json() -> None:
    assert read_json('{"a":"ü"}'.encode("utf-16")) == {"a": "ü"}


def test_nothing_is_written_that_takes_space() -> None:
    assert write_json({"a": (1, "ü")}) == '{"a":[1,"ü"]}'.encode()


@pytest.mark.parametrize("document", [b"", b"{", b"[1,]", b"\xff", b'{"a":1} x'])
def test_what_is_no_json_is_an_error(document: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (of json, with words of its own)
        read_json(document)
