"""What the command line refuses: one message, the right exit code, nothing half-written."""

import re
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from pavane.settings import Settings
from pavane_events.bus import Bus
from pavane_events.buses.sqlite import SqliteBus
from unit.cli_shell import Said, Shell

APP = ("--app", "unit.cli_toy:EVERYTHING")
ORDER = '{"order_id": "A-1", "amount": 20}'
EVERY_READING = [
    ("sagas", "list"),
    ("sagas", "show", "A-1"),
    ("trace", "A-1"),
    ("tail",),
    ("dead-letters", "list"),
    ("dead-letters", "show", "payment", "0@0"),
]


@pytest.fixture
def pavane(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Shell:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PAVANE_BUS", "sqlite:///bus.db")
    return Shell(monkeypatch, capsys)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bus that does not wait half a minute for a lock."""

    async def open_by(settings: Settings) -> Bus:
        return await SqliteBus.open(settings.bus.removeprefix("sqlite:///"), busy_timeout_s=0.05)

    monkeypatch.setattr("pavane.cli.session.open_by", open_by)


def orders(pavane: Shell, *arguments: str) -> Said:
    return pavane("publish", "toy.orders", *arguments, *APP)


def contents(path: Path) -> list[tuple[object, ...]]:
    """Everything in a bus file that somebody published."""
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.execute("SELECT * FROM records"))


@contextmanager
def locked(path: Path) -> Generator[None, None, None]:
    """Another program that has the file locked for writing."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield


def not_a_database(path: Path) -> None:
    path.write_bytes(b"dear diary, " * 1000)


def another_programs(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
        connection.commit()


def newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("spoil", [not_a_database, another_programs, newer, a_directory])
@pytest.mark.parametrize("command", [("publish", "toy.orders", "--data", ORDER, *APP), *EVERY_READING])
def test_a_bus_file_that_cannot_be_used_is_one_sentence(
    pavane: Shell, tmp_path: Path, command: tuple[str, ...], spoil: Callable[[Path], None]
) -> None:
    assert orders(pavane, "--data", ORDER).code == 0
    spoil(tmp_path / "bus.db")
    before = (tmp_path / "bus.db").read_bytes() if spoil is not a_directory else b""
    said = pavane(*command)
    assert (said.code, said.out) == (3, "")
    assert re.fullmatch(r"error: bus file bus\.db [^\n]+\n", said.err), said.err
    assert before == b"" or (tmp_path / "bus.db").read_bytes() == before


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("command", [("publish", "toy.orders", "--data", ORDER, *APP), ("sagas", "list")])
def test_a_bus_file_that_is_locked_is_one_sentence(pavane: Shell, tmp_path: Path, command: tuple[str, ...]) -> None:
    assert orders(pavane, "--data", ORDER).code == 0
    before = contents(tmp_path / "bus.db")
    with locked(tmp_path / "bus.db"):
        said = pavane(*command)
    assert said.code == 3
    assert re.fullmatch(r"error: bus file bus\.db is locked by another program; [^\n]+\n", said.err), said.err
    assert contents(tmp_path / "bus.db") == before


READ_ONLY = """
import contextlib, os, sys
from pathlib import Path
from pavane.cli import main

sys.argv = ["pavane", "sagas", "list", "--bus", f"sqlite:///{sys.argv[1]}"]
with contextlib.suppress(SystemExit):
    main.main()  # while root: all modules are loaded by this
Path(sys.argv[-1].removeprefix("sqlite:///")).chmod(0o444)
if os.geteuid() == 0:
    os.setuid(65534)  # root may write anything
main.main()
"""


@pytest.mark.slow
def test_a_bus_file_that_is_read_only_is_one_sentence(pavane: Shell) -> None:
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        file = Path(name) / "bus.db"
        assert orders(pavane, "--data", ORDER, "--bus", f"sqlite:///{file}").code == 0
        command = [sys.executable, "-c", READ_ONLY, str(file)]
        said = subprocess.run(command, check=False, capture_output=True, text=True, cwd="/")
    assert said.returncode == 3
    assert said.stderr.splitlines()[1:] == [
        f"error: bus file {file} is read-only; allow this user to write the file and its directory"
    ]


@pytest.mark.parametrize("topic", ["toy.order-placed", "toy.paid", "toy.shipped", "toy.refused"])
def test_what_sagas_build_on_is_not_written_from_outside(pavane: Shell, tmp_path: Path, topic: str) -> None:
    assert orders(pavane, "--data", ORDER).code == 0
    before = contents(tmp_path / "bus.db")
    said = pavane("publish", topic, "--data", ORDER, *APP)
    assert said.code == 2
    assert "everything from outside enters by an intake (toy.orders)" in said.err
    assert contents(tmp_path / "bus.db") == before


def test_a_dry_run_makes_no_bus(pavane: Shell, tmp_path: Path) -> None:
    said = orders(pavane, "--data", ORDER, "--dry-run")
    assert (said.code, said.out.startswith("would publish 1 event")) == (0, True)
    assert list(tmp_path.iterdir()) == []


def test_two_different_orders_of_one_id_are_refused_and_the_same_one_twice_is_not(pavane: Shell, tmp_path: Path) -> None:
    other = ORDER.replace("20", "30")
    (tmp_path / "orders.jsonl").write_text(f"{ORDER}\n{other}\n")
    said = orders(pavane, "orders.jsonl", "--id-field", "order_id")
    assert said.code == 2
    assert "line 2, order_id: line 1 has the same one and says something else" in said.err
    (tmp_path / "orders.jsonl").write_text(f"{ORDER}\n{ORDER}\n")
    assert orders(pavane, "orders.jsonl", "--id-field", "order_id").code == 0


def test_half_a_character_is_refused(pavane: Shell) -> None:
    said = orders(pavane, "--data", '{"order_id": "\\ud83d", "amount": 1}')
    assert (said.code, "half a character" in said.err) == (2, True)
    assert orders(pavane, "--data", '{"order_id": "\\ud83d\\ude00", "amount": 1}').code == 0


def test_a_line_separator_within_a_text_ends_no_line(pavane: Shell, tmp_path: Path) -> None:
    lines = [ORDER.replace("A-1", f"A\u2028{number}") for number in range(2)]
    (tmp_path / "orders.jsonl").write_text("\r\n".join(lines), encoding="utf-8")
    assert orders(pavane, "orders.jsonl", "--json").document["published"] == 2


def test_a_broken_array_is_one_problem_and_says_where(pavane: Shell, tmp_path: Path) -> None:
    (tmp_path / "orders.json").write_text('[\n{"order_id": "A",\n"amount": }\n]')
    said = orders(pavane, "orders.json")
    assert said.code == 2
    assert [line for line in said.err.splitlines() if "line 3 column" in line] == said.err.splitlines()[1:]


def test_what_an_error_quotes_cannot_change_the_terminal(pavane: Shell) -> None:
    said = orders(pavane, "--data", '{"order_id": "A", "amount": 1, "\\u001b[31mred": 1}')
    assert said.code == 2
    assert "\x1b" not in said.err
    assert "\\x1b[31mred" in said.err
