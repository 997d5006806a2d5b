"""The command line as a whole: help, errors in one message, exit codes."""

import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, version
from pathlib import Path

import pytest

from pavane.cli import main
from pavane_events.errors import (
    BusError,
    BusUnavailable,
    BusVersionMismatch,
    ConfigurationError,
    PavaneError,
    Problem,
    RecordTooLarge,
    UnknownTopic,
)
from unit.cli_shell import Shell


@pytest.fixture
def pavane(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Shell:
    monkeypatch.chdir(tmp_path)
    return Shell(monkeypatch, capsys)


def test_help_names_every_command_and_every_exit_code(pavane: Shell) -> None:
    said = pavane("--help")
    assert said.code == 0
    for command in ("demo", "run", "publish", "tail", "sagas", "trace", "graph", "check", "dead-letters"):
        assert re.search(rf"^  {command} ", said.out, re.MULTILINE)
    text = " ".join(said.out.split())
    assert "0 done; 1 failed, or problems found; 2 wrong usage or invalid input; 3 bus unavailable" in text


def test_help_that_is_piped_has_no_boxes_and_no_colours(pavane: Shell) -> None:
    said = pavane("publish", "--help")
    assert not set("╭│╰\x1b").intersection(said.out)


def test_the_version_is_the_distributions(pavane: Shell) -> None:
    assert pavane("--version").out.split()[:2] == ["pavane", version("pavane")]


def test_nothing_typed_shows_the_help_and_is_wrong_usage(pavane: Shell) -> None:
    said = pavane()
    assert said.code == 2
    assert "Usage: pavane" in said.out + said.err


def test_an_unknown_command_is_wrong_usage(pavane: Shell) -> None:
    said = pavane("pirouette")
    assert (said.code, "pirouette" in said.err) == (2, True)


def test_a_setting_with_a_typo_is_invalid_input(pavane: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAVANE_PARTITONS", "4")
    said = pavane("sagas", "list")
    assert said.code == 2
    assert "did you mean PAVANE_PARTITIONS?" in said.err


def test_an_address_that_no_adapter_knows_is_invalid_input(pavane: Shell) -> None:
    assert pavane("sagas", "list", "--bus", "carrier-pigeon://loft").code == 2


def test_a_bus_file_that_is_not_there_is_not_made_by_looking(pavane: Shell, tmp_path: Path) -> None:
    said = pavane("sagas", "list", "--bus", "sqlite:///typo.db")
    assert said.code == 3
    assert said.err.startswith("error: there is no bus file typo.db")
    assert list(tmp_path.iterdir()) == []


def test_a_bus_of_another_version_is_said_in_one_sentence(pavane: Shell, tmp_path: Path) -> None:
    assert (
        pavane("publish", "toy.orders", "--data", "{}", "--app", "unit.cli_toy:orders", "--bus", "sqlite:///old.db").code == 2
    )
    with sqlite3.connect(tmp_path / "old.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    said = pavane("sagas", "list", "--bus", "sqlite:///old.db")
    assert said.code == 3
    assert re.fullmatch(r"error: .*old\.db has schema version 99.*\n", said.err)


def test_the_bus_may_be_named_before_the_command_or_after_it(pavane: Shell) -> None:
    assert "here.db" in pavane("--bus", "sqlite:///here.db", "sagas", "list").err
    assert "here.db" in pavane("--bus", "sqlite:///there.db", "sagas", "list", "--bus", "sqlite:///here.db").err


def test_the_bus_may_be_named_by_the_environment(pavane: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAVANE_BUS", "sqlite:///mine.db")
    assert "mine.db" in pavane("sagas", "list").err


def test_a_memory_bus_cannot_be_looked_at_from_outside(pavane: Shell) -> None:
    said = pavane("tail", "--bus", "memory://")
    assert said.code == 2
    assert "a memory bus lives in one process only" in said.err


def giving(app: Callable[[str], None]) -> Callable[..., object]:
    """In the place of ``make_app``."""

    def make_app(arguments: Sequence[str], *, styled: bool) -> object:
        return app

    return make_app


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BusUnavailable("locked"), 3),
        (BusVersionMismatch("other"), 3),
        (BusError("odd"), 1),
        (UnknownTopic("none"), 2),
        (RecordTooLarge("much"), 2),
        (ConfigurationError("wrong", [Problem("a", "b", "c")]), 2),
        (PavaneError("failed"), 1),
    ],
)
def test_every_error_has_its_exit_code(error: PavaneError, code: int) -> None:
    assert main.exit_code(error) == code


def test_errors_of_several_agents_are_told_once_each(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    inner = BaseExceptionGroup("agents", [BusUnavailable("it is full"), BusUnavailable("it is full")])

    def app(prog_name: str) -> None:
        raise BaseExceptionGroup("all", [inner, BusUnavailable("it is away")])

    monkeypatch.setattr(main, "make_app", giving(app))
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 3
    assert capsys.readouterr().err == "error: it is full\nerror: it is away\n"


def test_a_bug_is_not_dressed_up_as_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def app(prog_name: str) -> None:
        raise BaseExceptionGroup("all", [ZeroDivisionError()])

    monkeypatch.setattr(main, "make_app", giving(app))
    with pytest.raises(BaseExceptionGroup):
        main.main()


def test_ctrl_c_before_a_command_begins_has_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def app(prog_name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "make_app", giving(app))
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 130


def test_a_command_of_others_that_cannot_be_loaded_takes_nothing_away(pavane: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = EntryPoint("broken", "no_such_module:command", main.COMMANDS_GROUP)

    def points(group: str) -> list[EntryPoint]:
        return [broken] if group == main.COMMANDS_GROUP else []

    monkeypatch.setattr(main, "entry_points", points)
    said = pavane("--help")
    assert said.code == 0
    assert "the command 'broken' (no_such_module:command) cannot be loaded" in said.err


def test_what_others_add_is_not_imported_for_a_command_of_ours() -> None:
    script = (
        "import sys; from pavane.cli.main import make_app; make_app(['sagas', 'list']); print('pavane_credit' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout == "False\n"
