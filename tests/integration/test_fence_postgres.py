"""The fence on a real PostgreSQL, where writers of one key meet in mid-transaction. Skipped where there is none."""

import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from pavane import EffectUndone, Fence

PROGRAMS = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"))), None)
OTHER_USER = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
SOON_S = 20.0

pytestmark = [
    pytest.mark.skipif(PROGRAMS is None, reason="PostgreSQL's server is not installed"),
    pytest.mark.skipif(find_spec("psycopg") is None, reason="psycopg is not installed"),
]
Connect = Callable[[], Any]


def run(program: str, *arguments: str) -> None:
    assert PROGRAMS is not None
    subprocess.run([*OTHER_USER, str(PROGRAMS / program), *arguments], check=True, timeout=60, capture_output=True)


@pytest.fixture(scope="module")
def connect() -> Iterator[Connect]:
    """A server of this test's own, on a socket in a folder."""
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))  # a socket's path is short
    if OTHER_USER:
        shutil.chown(folder, "postgres", "postgres")
    data = str(folder / "data")
    try:
        run("initdb", "-D", data, "-U", "postgres", "-A", "trust")
        run("pg_ctl", "-D", data, "-o", f"-k {folder} -h ''", "-l", str(folder / "log"), "-w", "start")
        try:
            yield lambda: import_module("psycopg").connect(f"host={folder} user=postgres dbname=postgres")
        finally:
            run("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("commits", [True, False])
def test_an_undo_beside_a_do_that_is_not_committed_waits_and_takes_it_back(connect: Connect, *, commits: bool) -> None:
    fence, key = Fence(placeholder="%s"), f"key-{commits}"
    with connect() as connection:
        fence.create(connection)
        connection.execute("CREATE TABLE IF NOT EXISTS charges (key TEXT)")
    zombie = connect()
    assert fence.do(zombie, key)
    zombie.execute("INSERT INTO charges VALUES (%s)", (key,))
    stood: list[bool] = []

    def undo() -> None:
        with connect() as connection:
            if fence.undo(connection, key):
                connection.execute("DELETE FROM charges WHERE key = %s", (key,))
                stood.append(True)
            else:
                stood.append(False)

    undoing = threading.Thread(target=undo)
    undoing.start()
    time.sleep(0.3)
    assert not stood
    zombie.commit() if commits else zombie.rollback()
    zombie.close()
    undoing.join(SOON_S)
    assert stood == [commits]
    with connect() as connection:
        assert connection.execute("SELECT count(*) FROM charges WHERE key = %s", (key,)).fetchone() == (0,)
        with pytest.raises(EffectUndone):
            fence.do(connection, key)


def test_a_do_beside_an_undo_that_is_not_committed_is_refused(connect: Connect) -> None:
    fence, key = Fence(placeholder="%s"), "late"
    with connect() as connection:
        fence.create(connection)
    undoing = connect()
    assert not fence.undo(undoing, key)
    refused: list[str] = []

    def late() -> None:
        with connect() as connection:
            try:
                fence.do(connection, key)
            except EffectUndone as error:
                refused.append(error.key)

    zombie = threading.Thread(target=late)
    zombie.start()
    time.sleep(0.3)
    assert not refused
    undoing.commit()
    undoing.close()
    zombie.join(SOON_S)
    assert refused == [key]
