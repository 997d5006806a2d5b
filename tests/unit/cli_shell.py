"""A shell for the tests of the command line: ``pavane`` in this process, with what it said and its exit code."""

import json
from typing import NamedTuple, cast

import pytest

from pavane.cli import main


class Said(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, object]:
        """Its output as one JSON object."""
        return cast("dict[str, object]", json.loads(self.out))

    @property
    def documents(self) -> list[dict[str, object]]:
        """Its output as a JSON array, or as JSON lines."""
        if self.out.startswith("["):
            return cast("list[dict[str, object]]", json.loads(self.out))
        return [cast("dict[str, object]", json.loads(line)) for line in self.out.splitlines()]


class Shell:
    """Types commands, as on a bus file. Logging is left as the tests have it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        monkeypatch.setattr("pavane.cli.session.set_up_logs", _leave_logs)

    def __call__(self, *arguments: str) -> Said:
        self._monkeypatch.setattr("sys.argv", ["pavane", *arguments])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main.main()
        out, err = self._capsys.readouterr()
        return Said(int(ended.value.code or 0), out, err)


def _leave_logs(level: str) -> None:
    """In the place of ``set_up_logs``."""
