"""State that does not fit into memory: whatever lies in the file, it reads as if all of it lay in memory."""

import logging
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pavane_events.buses.spilling_state import Room, SpillingState

KEYS = st.binary(min_size=1, max_size=3) | st.sampled_from(
    [b"a/1", b"a/2", b"a/", b"a0", b"\xff", b"\xff\xff", b"\xff\xff1", b"b"]
)
CHANGES = st.dictionaries(KEYS, st.none() | st.binary(max_size=40), max_size=8)


def small(directory: Path | None = None) -> Room:
    """Room for some ten rows."""
    return Room(2_000, directory, least=100)


@settings(max_examples=300)
@given(st.lists(CHANGES, max_size=40), st.lists(KEYS | st.just(b""), min_size=1, max_size=8))
def test_it_reads_like_a_dictionary(batches: list[dict[bytes, bytes | None]], prefixes: list[bytes]) -> None:
    """Every key and every prefix, after every batch."""
    state, model = SpillingState(small(), "lane"), dict[bytes, bytes]()
    for number, batch in enumerate(batches):
        state.apply(batch)
        for key, value in batch.items():
            if value is None:
                model.pop(key, None)
            else:
                model[key] = value
        prefix = prefixes[number % len(prefixes)]
        assert list(state.scan(prefix)) == sorted(pair for pair in model.items() if pair[0].startswith(prefix))
        assert state.get(prefix) == model.get(prefix)
    assert list(state.scan(b"")) == sorted(model.items())
    assert all(state.get(key) == value for key, value in model.items())
    state.close()


def rows(count: int, size: int = 100) -> dict[bytes, bytes | None]:
    return {b"key-%06d" % number: b"%d" % number + b"." * size for number in range(count)}


def test_memory_is_bounded_and_shared_alike() -> None:
    """However many rows there are; with more lanes each keeps less."""
    room = Room(100_000, least=1_000)
    first, second = SpillingState(room, "first"), SpillingState(room, "second")
    first.apply(rows(5_000))
    assert first.in_memory <= 50_000
    second.apply(rows(3))
    assert second.in_memory == 3 * (10 + 200 + 101)
    second.close()
    second.close()
    first.apply(rows(170))
    assert 50_000 < first.in_memory <= 100_000
    assert sum(1 for _ in first.scan(b"key-")) == 5_000
    first.close()


def test_rows_that_come_and_go_leave_nothing_in_memory() -> None:
    """Beside many old ones: that one is gone is noted only where the file may have it, even when it had many that are gone."""
    state = SpillingState(Room(50_000, least=1_000), "lane")
    state.apply(rows(5_000))
    for first in range(0, 20_000, 200):  # a thousand at a time they go to the file, and then they go
        state.apply({b"old-%06d" % number: b"." * 100 for number in range(first, first + 200)})
        state.apply({b"old-%06d" % number: None for number in range(first - 1_000, first - 800)})
    noted = 0
    for number in range(1_000):
        before = state.in_memory
        state.apply({b"new-%d" % number: b"."})
        state.apply({b"new-%d" % number: None})
        noted += state.in_memory != before
    assert noted < 100
    assert all(state.get(b"key-%06d" % number) == value for number, value in enumerate(rows(5_000).values()))
    assert all(state.get(b"old-%06d" % number) is not None for number in range(19_200, 20_000))
    assert all(state.get(b"old-%06d" % number) is None for number in range(19_000))
    state.close()


def test_a_scan_is_as_of_its_call() -> None:
    """What is applied while it is read is not in it."""
    state = SpillingState(small(), "lane")
    state.apply(rows(100))
    scan: Iterator[tuple[bytes, bytes]] = state.scan(b"key-0000")
    first = next(scan)
    state.apply(dict.fromkeys(rows(100)))
    assert [first, *scan] == sorted(rows(100).items())
    assert list(state.scan(b"")) == []
    state.close()


def test_the_file_has_no_name(tmp_path: Path) -> None:
    """So that a process that is killed leaves nothing behind."""
    state = SpillingState(small(tmp_path), "lane")
    state.apply(rows(100))
    assert state.in_memory < 2_000
    assert list(tmp_path.iterdir()) == []
    state.close()


def test_without_a_directory_rows_stay_in_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is lost, the log says why, and it does not say so for every commit."""
    room = small(tmp_path / "gone")
    state = SpillingState(room, "credit.state-2")
    with caplog.at_level(logging.WARNING, "pavane.bus"):
        for key, value in rows(200).items():
            state.apply({key: value})
    assert list(state.scan(b"")) == sorted(rows(200).items())
    assert 1 <= len(caplog.records) <= 8
    said = caplog.records[0].getMessage()
    assert "credit.state-2" in said
    assert "PAVANE_KAFKA_STATE_DIR" in said
    room.directory = tmp_path  # it is there again
    state.apply(rows(300, size=500))
    assert state.in_memory < 100_000
    assert list(state.scan(b"")) == sorted(rows(300, size=500).items())
    state.close()


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from pavane_events.buses.spilling_state import Room, SpillingState
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
state = SpillingState(Room(50_000, Path(sys.argv[1]), least=1_000), "lane")
rows = {b"key-%06d" % number: b"." * 100 for number in range(10_000)}
for key, value in rows.items():
    state.apply({key: value})
assert state.in_memory > 1_000_000, state.in_memory
assert list(state.scan(b"")) == sorted(rows.items())
state.apply(dict.fromkeys(list(rows)[:5_000]))
assert list(state.scan(b"")) == sorted(rows.items())[5_000:]
print("all there")
"""


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    """A file that may not grow: what does not go in stays where it was."""
    found = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert found.stdout == "all there\n", found.stderr
    assert "cannot be written" in found.stderr
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 200_000
