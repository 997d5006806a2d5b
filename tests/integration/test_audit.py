"""``pavane audit``: agrees with a deployment whose ledgers and topics agree, and says what is wrong with any other."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import cast

import pytest

pytestmark = pytest.mark.slow

# the function itself, as typer takes it: the command `pavane audit` is the installation's
COMMAND = (sys.executable, "-c", "import typer; from pavane_credit.audit import audit; typer.run(audit)")
COUNT = 30


def decided(directory: Path) -> Path:
    """A bus and ledgers of applications that were all decided."""
    command = [sys.executable, "-m", "pavane", "demo", "--count", str(COUNT), "--keep", str(directory), "--json"]
    done = subprocess.run(command, env=environment(directory), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return directory


def environment(directory: Path) -> dict[str, str]:
    others = {name: value for name, value in os.environ.items() if not name.startswith(("PAVANE_", "CREDIT_", "OTEL_"))}
    return {**others, "CREDIT_LEDGERS": str(directory / "ledgers")}


def audit(directory: Path, *options: str) -> tuple[int, dict[str, object]]:
    """Exit code, and what it says."""
    bus = next(directory.glob("*.db"))
    command = [*COMMAND, "--bus", f"sqlite:///{bus}", "--json", *options]
    done = subprocess.run(command, env=environment(directory), capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout, done.stderr
    return done.returncode, cast("dict[str, object]", json.loads(done.stdout))


def change(directory: Path, agent: str, statement: str) -> None:
    with closing(sqlite3.connect(directory / "ledgers" / f"{agent}.db")) as ledger, ledger:
        ledger.execute(statement)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return decided(tmp_path_factory.mktemp("decided") / "place")


@pytest.fixture
def place(sound: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(sound, tmp_path / "place"))


def test_it_agrees_where_every_saga_ended_and_the_ledgers_say_the_same(place: Path) -> None:
    code, found = audit(place, "--expect", str(COUNT))
    assert (code, found["holds"], found["problems"]) == (0, True, [])
    assert sum(cast("dict[str, int]", found["sagas"]).values()) == COUNT
    assert found["booked_dm"] == found["approved_dm"] != 0


def test_an_effect_that_is_missing_is_a_problem_and_so_is_the_line_without_it(place: Path) -> None:
    change(place, "credit-score", "DELETE FROM effects WHERE rowid IN (SELECT rowid FROM effects WHERE standing LIMIT 1)")
    code, found = audit(place)
    (problem,) = cast("list[str]", found["problems"])
    assert code == 1
    assert problem.startswith("inquiry of saga ")
    assert problem.endswith(" is missing")


def test_an_effect_of_an_undone_saga_that_stands_is_a_problem(place: Path) -> None:
    undone = "SELECT rowid FROM effects WHERE NOT standing LIMIT 1"
    change(place, "fraud-detection", f"UPDATE effects SET standing = 1 WHERE rowid IN ({undone})")
    code, found = audit(place)
    (problem,) = cast("list[str]", found["problems"])
    assert code == 1
    assert problem.endswith(" stands and should not")


def test_an_effect_that_stands_twice_is_a_problem(place: Path) -> None:
    columns = "'another', saga, application_id, kind, amount_dm, booked_dm, standing"
    change(place, "approval", f"INSERT INTO effects SELECT {columns} FROM effects WHERE standing LIMIT 1")
    code, found = audit(place)
    (problem,) = cast("list[str]", found["problems"])
    assert code == 1
    assert problem.endswith(" stands 2 times")


def test_money_that_is_booked_without_an_approval_is_a_problem(place: Path) -> None:
    change(place, "risk-assessment", "UPDATE line SET booked_dm = booked_dm + 7")
    code, found = audit(place)
    assert code == 1
    assert cast("int", found["booked_dm"]) - cast("int", found["approved_dm"]) == 7


def test_a_ledger_that_is_not_there_is_a_problem_and_none_is_made(place: Path) -> None:
    missing = place / "ledgers" / "approval.db"
    missing.unlink()
    code, found = audit(place)
    assert code == 1
    assert any("there is no ledger of approval" in each for each in cast("list[str]", found["problems"]))
    assert not missing.exists()


def test_sagas_that_were_never_started_are_missed(place: Path) -> None:
    code, found = audit(place, "--expect", str(COUNT + 1))
    assert code == 1
    assert found["problems"] == [f"{COUNT} sagas were started, {COUNT + 1} were expected"]
