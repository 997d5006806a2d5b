"""Place: where the demo keeps its bus and its ledgers. One demo at a time has a place of its own."""

import fcntl
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pavane_events.errors import ConfigurationError, Problem

_HOME = Path(".pavane")


@dataclass(frozen=True, slots=True)
class Place:
    """A bus, a directory of ledgers, and the log of processes."""

    bus: str
    ledgers: Path
    log: Path


@contextmanager
def a_place(keep: Path | None, bus: str | None) -> Generator[Place]:
    """``keep`` if given (it must not hold another demo's bus), else ``.pavane/demo``, emptied: the last demo's is kept.

    Where another demo runs there, a new directory beside it. Raises :class:`ConfigurationError`.
    """
    try:
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            if any(keep.iterdir()):
                problem = Problem("--keep", "demo.not-empty", f"{keep} is not empty: name a new directory")
                raise ConfigurationError("the demo cannot be kept there", [problem])
            yield _place(keep, bus)
            return
        _HOME.mkdir(exist_ok=True)
        lock = (_HOME / "demo.lock").open("w")
    except OSError as error:
        problem = Problem("directory", "demo.directory", f"{error.strerror}: {error.filename}")
        raise ConfigurationError("the demo has no place to be", [problem]) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            directory = _HOME / "demo"
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir()
        except BlockingIOError:
            directory = Path(tempfile.mkdtemp(prefix="demo-", dir=_HOME))
        yield _place(directory, bus)


def _place(directory: Path, bus: str | None) -> Place:
    directory = directory.resolve()
    return Place(bus or f"sqlite:///{directory / 'bus.db'}", directory / "ledgers", directory / "processes.log")
