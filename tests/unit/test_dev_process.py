"""Processes that outlive their starter, ports, and locks between processes."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pavane.dev.cache import cache_folder, locked
from pavane.dev.ports import HOST, free_block, taken
from pavane.dev.process import DetachedProcess, exists

_PATIENCE_S = 10.0


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[DetachedProcess]:
    """A process that does nothing until it is told to end."""
    mark = str(tmp_path / "mark")
    process = DetachedProcess(tmp_path / "pid", mark)
    process.start([sys.executable, "-c", "import time; time.sleep(300)", mark], tmp_path / "log")
    try:
        yield process
    finally:
        process.signal(signal.SIGKILL)
        assert process.wait(_PATIENCE_S)


def test_it_is_known_to_whoever_knows_its_file(sleeper: DetachedProcess, tmp_path: Path) -> None:
    assert sleeper.pid is not None
    assert DetachedProcess(tmp_path / "pid", str(tmp_path / "mark")).pid == sleeper.pid


def test_another_process_under_its_number_is_not_taken_for_it(sleeper: DetachedProcess, tmp_path: Path) -> None:
    stranger = DetachedProcess(tmp_path / "pid", "/another/mark")
    assert stranger.pid is None
    assert not stranger.signal(signal.SIGKILL)
    assert sleeper.pid is not None


def test_it_is_nobodys_child_and_gone_when_it_has_ended(sleeper: DetachedProcess) -> None:
    pid = sleeper.pid
    assert pid is not None
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    assert not sleeper.wait(0.0)
    sleeper.signal(signal.SIGTERM)
    assert sleeper.wait(_PATIENCE_S)
    assert sleeper.pid is None


def test_an_end_that_nobody_saw_to_is_told_from_one_that_somebody_did(sleeper: DetachedProcess) -> None:
    assert not sleeper.has_vanished
    pid = sleeper.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    _await_end_of(sleeper)
    assert sleeper.has_vanished
    sleeper.wait(_PATIENCE_S)
    assert not sleeper.has_vanished


def test_a_zombie_does_not_exist() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is not reaped
    assert not exists(child.pid)
    child.wait()
    assert not exists(child.pid)


def test_a_file_of_nonsense_tells_of_no_process(tmp_path: Path) -> None:
    (tmp_path / "pid").write_text("")
    process = DetachedProcess(tmp_path / "pid", "mark")
    assert process.pid is None
    assert process.log_start == 0


def test_ports_that_somebody_listens_on_are_taken() -> None:
    first = free_block(3)
    assert list(taken(range(first, first + 3))) == []
    with socket.create_server((HOST, first + 1)):
        assert list(taken(range(first, first + 3))) == [first + 1]
    assert list(taken(range(first, first + 3))) == []


def test_a_lock_keeps_others_out_and_goes_with_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with (
        locked(path, timeout_s=1.0),
        pytest.raises(TimeoutError, match="another process has held"),
        locked(path, timeout_s=0.0),
    ):
        pass
    with locked(path, timeout_s=0.0):
        pass


def test_the_cache_is_where_it_is_told_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAVANE_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.setenv("PAVANE_CACHE", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "pavane"


def _await_end_of(process: DetachedProcess) -> None:
    give_up = time.monotonic() + _PATIENCE_S
    while process.pid is not None:
        assert time.monotonic() < give_up
        time.sleep(0.01)
