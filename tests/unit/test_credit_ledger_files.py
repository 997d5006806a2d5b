"""A ledger's file on bad days: a full disk, a killed process, a directory with an odd name, or none at all."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from pavane import Context
from pavane_credit.ledger import Effect, Ledger
from pavane_credit.where import Where

NAME = "approval"


def call(key: str) -> Context:
    return Context.fake(saga="s1", key=key)


def fill(ledger: Ledger) -> None:
    for number in range(1000):
        ledger.do(call(f"k{number}"), "a" * 1000, "offer")


def test_a_full_disk_is_said_as_such_and_the_ledger_goes_on_when_there_is_room(tmp_path: Path) -> None:
    ledger = Ledger.open(NAME, Where(ledgers=str(tmp_path)))
    connection = ledger._connection  # pyright: ignore[reportPrivateUsage]
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(sqlite3.OperationalError, match="database or disk is full"):
        fill(ledger)
    standing = len(ledger.effects())
    connection.execute(f"PRAGMA max_page_count = {pages + 1000}")
    assert ledger.do(call(f"k{standing}"), "a", "offer"), "what failed left no fence behind"
    assert len(ledger.effects()) == standing + 1
    ledger.close()


_DIE_WITHIN_A_WRITE = """
import os, signal
from pavane import Context
from pavane_credit.ledger import Ledger
from pavane_credit.where import read_where
ledger = Ledger.open("approval", read_where())
ledger.do(Context.fake(saga="s1", key="k"), "a", "offer")
ledger._connection.execute("BEGIN IMMEDIATE")
ledger._connection.execute("UPDATE effects SET standing = 0")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_leaves_what_it_committed_and_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDIT_LEDGERS", str(tmp_path))
    assert subprocess.run([sys.executable, "-c", _DIE_WITHIN_A_WRITE], check=False).returncode == -9
    ledger = Ledger.open(NAME, Where())
    assert ledger.effects() == [Effect("s1", "a", "offer", 0, standing=True)]
    assert ledger.do(call("k"), "a", "offer") is False
    assert ledger.undo(call("k"))
    ledger.close()


def test_a_directory_with_an_odd_name_is_a_directory(tmp_path: Path) -> None:
    odd = tmp_path / "50 % ? of # it"
    ledger = Ledger.open(NAME, Where(ledgers=str(odd)))
    ledger.do(call("k"), "a", "offer")
    ledger.close()
    assert (odd / f"{NAME}.db").is_file()
    assert [each.name for each in tmp_path.iterdir()] == [odd.name]


def test_who_looks_for_a_ledger_finds_it_as_it_is_or_makes_none(tmp_path: Path) -> None:
    where = Where(ledgers=str(tmp_path / "ledgers"))
    assert Ledger.find(NAME, where) is None
    assert list(tmp_path.iterdir()) == []
    ledger = Ledger.open(NAME, where)
    ledger.do(call("k"), "a", "offer")
    found = Ledger.find(NAME, where)
    assert found is not None
    assert found.effects() == ledger.effects()
    found.close()
    ledger.close()
