"""``pavane verify``: what it says to people and to programs, its exit codes, and its bar."""

import os
import pty
import shlex
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest

from unit.cli_shell import Shell

SOUND = ("verify", "unit.cli_verified:sound", "--jobs", "1", "--histories", "200")
FORGETFUL = ("verify", "unit.cli_verified:forgetful", "--jobs", "1", "--histories", "200")
TESTS = Path(__file__).parents[1]


@pytest.fixture
def pavane(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(monkeypatch, capsys)


def violations(document: dict[str, object]) -> list[dict[str, object]]:
    return cast("list[dict[str, object]]", document["violations"])


def test_programs_are_told_histories_violations_pace_and_seed_and_the_stages(pavane: Shell) -> None:
    said = pavane(*SOUND, "--seed", "7", "--json")
    document = said.document
    assert (said.code, document["histories"], document["violations"], document["seed"]) == (0, 200, [], 7)
    assert cast("float", document["histories_per_s"]) > 0
    stages = cast("dict[str, dict[str, int]]", document["stages"])
    assert list(stages) == ["sagas", "singles", "pairs", "by_lot"]
    assert sum(stage["played"] for stage in stages.values()) == 200
    assert stages["sagas"]["played"] == 1
    assert stages["singles"]["played"] > 10
    assert stages["singles"]["left_out"] == 0
    assert document["ends"] == {"it's the only one": ["completed"]}


def test_people_are_told_of_each_stage_and_then_of_all(pavane: Shell) -> None:
    said = pavane(*SOUND)
    assert said.code == 0
    *stages, summary, ends = said.out.splitlines()
    assert [line.split("  ")[1] for line in stages] == [
        "nothing goes wrong",
        "one thing goes wrong",
        "two things go wrong",
        "up to eight things, by lot",
    ]
    assert summary.startswith("200 histories, ")
    assert "0 violations; " in summary
    assert summary.endswith("in 1 process, seed 0")
    assert ends == "where nothing goes wrong, completed: it's the only one"


def test_whoever_stops_it_is_told_what_was_played_by_then(pavane: Shell) -> None:
    said = pavane("verify", "unit.cli_verified:stopped", "--jobs", "1", "--histories", "200")
    assert said.code == 130
    assert said.err.startswith("stopped; this was played by then")
    nothing, one, two, _, summary, *_ = said.out.splitlines()
    assert nothing.endswith("1 histories  (all)")
    assert one.endswith("left out)")
    assert two.endswith(" 0 histories")
    assert 20 <= int(summary.split()[0]) < 30
    assert "0 violations" in summary


def test_where_nobody_looks_a_line_a_minute_says_how_far_it_is(pavane: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pavane(*SOUND).err == ""
    monkeypatch.setattr("pavane.cli.verify._LINE_S", 0.0)
    said = pavane(*SOUND, "--json")
    assert said.document["histories"] == 200
    lines = said.err.splitlines()
    assert lines[0] == "0:00:00 nothing: 1 of 1 histories"
    assert lines[-1].startswith("0:00:0")
    assert {line.split(maxsplit=1)[1].partition(":")[0] for line in lines} >= {"nothing", "one thing", "two things"}


def test_a_violation_ends_it_with_one_and_is_told_as_a_story(pavane: Shell) -> None:
    said = pavane(*FORGETFUL)
    assert said.code == 1
    assert "invariant: an effect stands in a saga that is compensated\nin this history: it's the only one;do:" in said.out
    assert "ended: compensated" in said.out


def test_the_line_that_plays_a_violation_again_can_be_typed(pavane: Shell) -> None:
    line = pavane(*FORGETFUL).out.splitlines()[-1]
    program, *arguments = shlex.split(line.removeprefix("play it again: "))
    assert program == "pavane"
    again = pavane(*arguments)
    assert again.code == 1
    assert "ended: compensated" in again.out
    assert again.out.splitlines()[-1] == "invariant: an effect stands in a saga that is compensated"


def test_a_history_is_played_again_for_programs_too_and_may_be_right_now(pavane: Shell) -> None:
    found = pavane(*FORGETFUL, "--json")
    (violation,) = violations(found.document)
    history = str(violation["replay"])
    assert (found.code, violation["code"]) == (1, "invariant")
    wrong = pavane("verify", "unit.cli_verified:forgetful", "--replay", history, "--json")
    assert (wrong.code, wrong.document["replay"], wrong.document["story"]) == (1, history, violation["story"])
    assert [each["code"] for each in violations(wrong.document)] == ["invariant"]
    mended = pavane("verify", "unit.cli_verified:sound", "--replay", history)
    assert (mended.code, mended.out.splitlines()[-1]) == (0, "nothing is wrong with it")


@pytest.mark.parametrize(
    ("history", "message"),
    [
        ("it's the only one;do:only/act#1=explode", "do:only/act#1=explode: that is no fault, as do:"),
        ("it's the only one;after some", "after some: that is no fault, as do:"),
        ("another;do:only/act#1=fail", "no such scenario: there are it's the only one"),
        ("", "no such scenario: there are it's the only one"),
        ("it's the only one;do:only/act#9=fail", "do:only/act#9=fail: it never comes to that"),
    ],
)
def test_a_history_that_cannot_be_played_is_invalid_input(pavane: Shell, history: str, message: str) -> None:
    said = pavane("verify", "unit.cli_verified:sound", "--replay", history)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("error: that history cannot be ")
    assert message in said.err


def test_a_target_that_is_no_verification_is_invalid_input(pavane: Shell) -> None:
    said = pavane("verify", "unit.cli_toy:orders")
    assert said.code == 2
    assert "it is a Saga, no Verification(agents=..., sagas=..., starts=...)" in said.err


def test_a_terminal_has_a_bar_for_each_stage() -> None:
    terminal, side = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "pavane", *SOUND],
            cwd=TESTS,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
            stdout=subprocess.PIPE,
            stderr=side,
            text=True,
        )
        os.close(side)
        shown = _all_of(terminal)
        out, _ = process.communicate(timeout=60)
    finally:
        os.close(terminal)
    assert process.returncode == 0
    assert "\x1b" not in out
    *_, summary, ends = out.splitlines()
    assert summary.startswith("200 histories, ")
    assert ends.startswith("where nothing goes wrong, completed: ")
    for stage in ("nothing", "one thing", "two things"):
        assert stage in shown
    assert "1/1" in shown


def test_elsewhere_it_is_silent_until_it_is_over(pavane: Shell) -> None:
    assert pavane(*SOUND).err == ""


def _all_of(terminal: int) -> str:
    """What is written to a terminal until nobody holds its other side."""
    shown = b""
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # Linux says so where there is nobody left
            part = b""
        if not part:
            return shown.decode()
        shown += part
