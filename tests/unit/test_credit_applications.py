"""Applications: the thousand real ones, and clear errors by line for files of one's own."""

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest

from pavane_credit.applications import read_applications
from pavane_events.errors import ConfigurationError, Problem

TEXT = (files("pavane_credit") / "data" / "german-credit.csv").read_text(encoding="utf-8")
HEADER, *ROWS = TEXT.splitlines()
COLUMNS = HEADER.split(",")

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(*lines: str) -> Path:
        path = tmp_path / "applications.csv"
        path.write_text("\n".join(lines), encoding="utf-8")
        return path

    return write


def problems_of(path: Path) -> list[Problem]:
    with pytest.raises(ConfigurationError) as caught:
        read_applications(path)
    return list(caught.value.problems)


def with_value(row: str, column: str, value: str) -> str:
    values = row.split(",")
    values[COLUMNS.index(column)] = value
    return ",".join(values)


def test_a_thousand_real_applications_come_with_the_package() -> None:
    applications = read_applications()
    assert len(applications) == len({each.id for each in applications}) == 1000
    assert sum(each.repaid is True for each in applications) == 700
    assert sum(each.repaid is False for each in applications) == 300


def test_a_file_of_ones_own_is_read_the_same(write: Write) -> None:
    assert read_applications(write(HEADER, *ROWS[:10])) == read_applications()[:10]


def test_a_byte_order_mark_and_windows_line_ends_are_no_matter(tmp_path: Path) -> None:
    path = tmp_path / "windows.csv"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join([HEADER, *ROWS[:3], ""]).encode())
    assert read_applications(path) == read_applications()[:3]


def test_the_outcome_may_be_unknown_or_left_out(write: Write) -> None:
    assert [each.repaid for each in read_applications(write(HEADER, with_value(ROWS[0], "repaid", "")))] == [None]
    position = COLUMNS.index("repaid")
    lines = [
        ",".join(value for number, value in enumerate(line.split(",")) if number != position) for line in (HEADER, ROWS[0])
    ]
    assert [each.repaid for each in read_applications(write(*lines))] == [None]


def test_a_header_alone_is_no_application(write: Write) -> None:
    assert read_applications(write(HEADER)) == []


def test_columns_that_are_missing_or_unknown_are_all_named(write: Write) -> None:
    header = HEADER.replace("age_years", "age").replace("amount_dm", "amount")
    assert [(each.where, each.code, each.message) for each in problems_of(write(header, *ROWS[:3]))] == [
        ("line 1", "applications.column-missing", "no column age_years"),
        ("line 1", "applications.column-missing", "no column amount_dm"),
        ("line 1", "applications.column-unknown", "'age' is no column"),
        ("line 1", "applications.column-unknown", "'amount' is no column"),
    ]


def test_a_column_that_is_there_twice_is_ambiguous(write: Write) -> None:
    problems = problems_of(write(f"{HEADER},age_years", f"{ROWS[0]},30"))
    assert [(each.code, each.message) for each in problems] == [
        ("applications.column-doubled", "column age_years is there more than once")
    ]


def test_an_empty_file_lacks_every_column(write: Write) -> None:
    assert {each.code for each in problems_of(write(""))} == {"applications.column-missing"}


def test_every_wrong_line_is_named_with_its_field(write: Write) -> None:
    path = write(
        HEADER,
        ROWS[0],
        with_value(ROWS[1], "age_years", "young"),
        ROWS[2] + ",extra",
        ROWS[3].rpartition(",")[0],
        with_value(with_value(ROWS[4], "purpose", "yacht"), "amount_dm", "-1"),
        with_value(ROWS[5], "telephone", "perhaps"),
        with_value(ROWS[6], "repaid", "partly"),
        ROWS[0],
    )
    assert [(each.where, each.code) for each in problems_of(path)] == [
        ("line 3, data.age_years", "int_parsing"),
        ("line 4", "applications.columns"),
        ("line 5", "applications.columns"),
        ("line 6, data.purpose", "literal_error"),
        ("line 6, data.amount_dm", "greater_than_equal"),
        ("line 7, data.telephone", "bool_parsing"),
        ("line 8, repaid", "applications.outcome"),
        ("line 9", "applications.doubled"),
    ]


def test_a_file_that_is_wrong_throughout_is_not_listed_to_the_end(write: Write) -> None:
    problems = problems_of(write(HEADER, *(with_value(row, "age_years", "7") for row in ROWS[:80])))
    assert len(problems) == 51
    assert problems[-1].message == "30 more problems"


def test_a_file_that_is_not_there_or_no_text_is_one_sentence(tmp_path: Path) -> None:
    missing, binary = tmp_path / "missing.csv", tmp_path / "binary.csv"
    binary.write_bytes(b"\xff\xfe\x00")
    assert [each.code for each in problems_of(missing)] == ["applications.unreadable"]
    assert [each.code for each in problems_of(binary)] == ["applications.unreadable"]


def test_a_field_without_end_is_no_csv(write: Write) -> None:
    problems = problems_of(write(HEADER, '"' + "x" * 200_000))
    assert [(each.code, each.message) for each in problems] == [
        ("applications.unreadable", "no CSV: field larger than field limit (131072)")
    ]
