"""Servers of a test run: started once, by whichever worker of pytest-xdist asks first, and gone with the run.

The process that was started by hand (pytest, or xdist's controller) owns a folder; its workers are told where it is.
What runs out of that folder is ended when the owner ends, so a worker that dies leaves nothing behind.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, cast

import pytest

from pavane.dev.cache import locked
from support.require import required

_FOLDER = pytest.StashKey[Path]()
_TOLD = "pavane_servers"
_START_S = 600.0
"""The longest start of a server: one that is fetched or built first."""


class _Worker(Protocol):
    """What xdist's controller knows of a worker, as far as it matters here."""

    config: pytest.Config
    workerinput: dict[str, object]


def pytest_configure(config: pytest.Config) -> None:
    required()  # or the run ends here: a demand that nobody understands
    told = cast("Mapping[str, str] | None", getattr(config, "workerinput", None))
    config.stash[_FOLDER] = Path(told[_TOLD] if told is not None else tempfile.mkdtemp(prefix="pavane-servers-"))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: _Worker) -> None:
    node.workerinput[_TOLD] = str(folder_of(node.config))


@pytest.hookimpl(trylast=True)  # whoever started a server there ends it before
def pytest_unconfigure(config: pytest.Config) -> None:
    if is_owner(config):
        shutil.rmtree(folder_of(config), ignore_errors=True)


def folder_of(config: pytest.Config) -> Path:
    """The run's folder, the same in all its workers."""
    return config.stash[_FOLDER]


def is_owner(config: pytest.Config) -> bool:
    """Whether this process ends the run's servers."""
    return not hasattr(config, "workerinput")


def once_per_run(config: pytest.Config, name: str, start: Callable[[], Mapping[str, str]]) -> Mapping[str, str]:
    """What ``start`` returns, which is called in one process of the run only; the others wait for it, and read it."""
    told = folder_of(config) / f"{name}.json"
    with locked(told.with_suffix(".lock"), timeout_s=_START_S):
        if not told.exists():
            told.write_text(json.dumps(dict(start())))
        return cast("dict[str, str]", json.loads(told.read_text()))
