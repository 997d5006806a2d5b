"""What only the SQLite bus promises: several processes, their deaths, locks, full disks, wrong files."""

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path

import pytest

from conformance.deployments import after, content, lane_of, lanes_of, numbered, receive, scenario, until, values
from pavane_events.bus import TopicSpec
from pavane_events.buses.sqlite import SqliteBus
from pavane_events.buses.sqlite_reader import INBOX_LIMIT, Inbox, Tail, Topics
from pavane_events.errors import BusUnavailable, BusVersionMismatch, ConfigurationError, LaneLost
from pavane_events.record import Message
from unit.sqlite_children import copy_all

CHILDREN = Path(__file__).with_name("sqlite_children.py")
LONG_LEASE_S = 600.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bus.db"


@asynccontextmanager
async def bus_at(
    path: Path, *, lease_s: float = LONG_LEASE_S, busy_timeout_s: float = 30.0
) -> AsyncGenerator[SqliteBus, None]:
    async with await SqliteBus.open(path, lease_s=lease_s, busy_timeout_s=busy_timeout_s) as bus:
        await bus.create_topics([TopicSpec("in"), TopicSpec("out")])
        yield bus


class Child:
    """A process in one of the roles of ``sqlite_children.py``."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    async def line(self) -> str:
        """The next line it prints."""
        assert self._process.stdout is not None
        return (await asyncio.to_thread(self._process.stdout.readline)).strip()

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    async def end(self) -> int:
        """Let it go on from where it reads a line, and wait for its end."""
        await asyncio.to_thread(self._process.communicate, "\n")
        return self._process.returncode


@contextmanager
def child(role: str, *arguments: object) -> Generator[Child, None, None]:
    """A child process that does not outlive the block."""
    command = [sys.executable, str(CHILDREN), role, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Child(process)
        finally:
            process.kill()


def files_in(directory: Path) -> list[str]:
    return sorted(os.listdir(directory)) if directory.exists() else []


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)


def read(path: Path) -> bytes:
    return path.read_bytes()


def execute(path: Path, sql: str) -> None:
    """Change the file behind the bus's back."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(sql)


@contextmanager
def locked(path: Path) -> Generator[sqlite3.Connection, None, None]:
    """Another program that has the file locked for writing."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield connection


# Deaths


@pytest.mark.slow
@pytest.mark.parametrize("survivor", ["waits beside it", "comes later"])
@scenario
async def test_the_lanes_of_a_killed_process_are_taken_over_at_once_and_nothing_is_lost_or_doubled(
    path: Path, survivor: str
) -> None:
    async with bus_at(path) as bus:
        await bus.publish([message for number in range(4) for message in numbered("in", 3000, number)])
        waiting = await bus.lanes("copy", ["in"]) if survivor == "waits beside it" else None
        lanes = await lanes_of(waiting) if waiting else {}
        with child("copier", path) as copier:
            assert await copier.line() == "joined"
            await until(lambda: bus.file.select("SELECT sum(number) FROM lanes")[0][0] > 60)
            copier.signal(signal.SIGKILL)
            killed_s = time.monotonic()
            assert sum(lane.lost for lane in lanes.values()) == (2 if waiting else 0)
            members = waiting or await bus.lanes("copy", ["in"])
            lanes |= await lanes_of(members, 2 if waiting else 4)
            assert time.monotonic() - killed_s < 2.0
        assert any([await lane.receive(1, 0) for lane in lanes.values() if not lane.lost]), "it was killed too late"
        await members.close()
        members = await bus.lanes("copy", ["in"])
        copying = asyncio.create_task(copy_all(members))
        for lane in (await lanes_of(await bus.lanes("watch", ["out"]))).values():
            assert values(await receive(lane, 3000)) == [b"%d" % number for number in range(3000)]
        await members.close()
        await copying
        for partition, lane in (await lanes_of(await bus.lanes("copy", ["in"]))).items():
            assert lane.state.get(b"count") == b"3000"
            assert len(await content(bus, "out", partition)) == 3000


@pytest.mark.slow
@scenario
async def test_a_stopped_process_loses_its_lanes_after_the_lease_and_its_late_commits_fail(path: Path) -> None:
    async with bus_at(path, lease_s=0.5) as bus:
        with child("zombie", path) as zombie:
            assert await zombie.line() == "joined"
            await until(lambda: bus.file.select("SELECT max(number) FROM lanes")[0][0] == 20)
            stopped_s = time.monotonic()
            members = await bus.lanes("copy", ["in"])
            lanes = await lanes_of(members)
            assert 0.4 < time.monotonic() - stopped_s < 5.0
            (lane,) = [lane for lane in lanes.values() if lane.state.get(b"who") == b"zombie"]
            await lane.commit({}, (), {b"who": b"heir"})
            zombie.signal(signal.SIGCONT)
            assert await zombie.line() == "lost after 20"
            assert await zombie.end() == 0
            assert len(await content(bus, "out")) == 20
            assert (lane.state.get(b"who"), lane.commit_number) == (b"heir", 21)


@pytest.mark.slow
@scenario
async def test_processes_that_write_and_read_at_once_keep_order_and_lose_and_double_nothing(path: Path) -> None:
    names, count = ("one", "two", "three"), 1200
    async with bus_at(path) as bus:
        watchers = await bus.lanes("watch", ["out"])
        lanes = await lanes_of(watchers)
        with (
            child("producer", path, "one", count) as one,
            child("producer", path, "two", count) as two,
            child("producer", path, "three", count) as three,
        ):
            copied: dict[int, list[tuple[str, int]]] = {}
            for partition, lane in lanes.items():
                copied[partition] = [
                    (name, int(number))
                    for name, number in (
                        (record.value or b"").decode().split(":") for record in await receive(lane, count * len(names) // 4)
                    )
                ]
            assert [await process.end() for process in (one, two, three)] == [0, 0, 0]
        for partition in range(4):
            by_name: dict[str, list[int]] = defaultdict(list)
            for name, number in copied[partition]:
                by_name[name].append(number)
            assert by_name == {name: list(range(partition, count, 4)) for name in names}
            inputs = await content(bus, "in", partition)
            assert values(inputs) == values(await content(bus, "out", partition))


@scenario
async def test_an_owner_file_that_is_removed_by_mistake_costs_the_lanes_once_and_no_more(path: Path) -> None:
    async with bus_at(path, lease_s=0.4) as bus, bus_at(path, lease_s=0.4) as other:
        members = await bus.lanes("copy", ["in"])
        lanes = await lanes_of(members)
        shutil.rmtree(f"{path}.owners")
        theirs = await other.lanes("copy", ["in"])
        await lanes_of(theirs, 4)
        await until(lambda: all(lane.lost for lane in lanes.values()))
        again = await lanes_of(members, 2)
        await asyncio.sleep(0.6)
        assert not any(lane.lost for lane in again.values())


@scenario
async def test_owner_files_of_the_dead_are_removed_and_a_bus_that_is_closed_leaves_one_file(path: Path) -> None:
    owners = Path(f"{path}.owners")
    async with bus_at(path) as bus:
        write(owners / "a-process-that-died-before-it-was-entered", b"")
        await lanes_of(await bus.lanes("copy", ["in"]))
        assert len(files_in(owners)) == 1
    assert files_in(path.parent) == [path.name]


@scenario
async def test_a_bus_that_only_publishes_and_reads_owns_nothing(path: Path) -> None:
    async with bus_at(path) as bus:
        await bus.publish(numbered("in", 1))
        assert len(await content(bus, "in")) == 1
        assert files_in(Path(f"{path}.owners")) == []


# Group commit


@scenario
async def test_a_lost_lane_does_not_spoil_the_commits_beside_it(path: Path) -> None:
    async with bus_at(path) as bus:
        members = await bus.lanes("copy", ["in"])
        lanes = await lanes_of(members)
        execute(path, "UPDATE lanes SET token = token + 1 WHERE partition = 1")
        results = await asyncio.gather(
            *(lane.commit({}, numbered("out", 2, partition), {b"a": b"1"}) for partition, lane in lanes.items()),
            bus.publish(numbered("in", 1)),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [
            LaneLost if partition == 1 else type(None) for partition in [*lanes, "publish"]
        ]
        assert [len(await content(bus, "out", partition)) for partition in range(4)] == [2, 0, 2, 2]
        assert (await lane_of(members, 1)).state.get(b"a") is None


@scenario
async def test_a_commit_number_that_another_raised_fences_like_a_token(path: Path) -> None:
    async with bus_at(path) as bus:
        members = await bus.lanes("copy", ["in"])
        lane = await lane_of(members, 0)
        execute(path, "UPDATE lanes SET number = number + 1 WHERE partition = 0")
        with pytest.raises(LaneLost):
            await lane.commit({}, numbered("out", 1))
        assert await content(bus, "out") == []
        assert (await lane_of(members, 0)).commit_number == 1


@scenario
async def test_a_record_is_one_object_for_all_lanes_of_a_process(path: Path) -> None:
    async with bus_at(path) as bus:
        lanes = [await lane_of(await bus.lanes(group, ["in"]), 0) for group in ("one", "two")]
        for lane in lanes:
            assert not await lane.receive(1, 0)
        await bus.publish(numbered("in", 1))
        (one,), (two,) = [await receive(lane, 1) for lane in lanes]
        assert one is two


@scenario
async def test_an_offset_is_never_given_twice_even_if_records_are_deleted(path: Path) -> None:
    async with bus_at(path) as bus:
        await bus.publish(numbered("in", 5))
        last = (await content(bus, "in"))[-1].offset
        execute(path, "DELETE FROM records")
        await bus.publish(numbered("in", 1))
        assert (await content(bus, "in"))[0].offset > last


@scenario
async def test_a_lane_that_does_not_receive_does_not_fill_the_memory(path: Path) -> None:
    async with bus_at(path) as bus:
        topics = Topics(bus.file)
        tail = Tail(bus.file, topics)
        inbox = Inbox(tail, 0)
        inbox.begin({"in": 0})
        assert not inbox.take(1)
        longest = 0
        for first in range(0, 4 * INBOX_LIMIT, 128):
            await bus.publish(numbered("in", 128, first=first))
            tail.catch_up(tail.last_id())
            longest = max(longest, len(inbox.queue))
        assert longest <= INBOX_LIMIT + 128
        read: list[bytes | None] = []
        while records := inbox.take(1000):
            read += values(records)
        assert read == [b"%d" % number for number in range(4 * INBOX_LIMIT)]


@scenario
async def test_the_time_of_a_record_is_the_clock_s(path: Path) -> None:
    async with await SqliteBus.open(path, clock=lambda: 12.3456) as bus:
        await bus.create_topics([TopicSpec("in")])
        await bus.publish(numbered("in", 1))
        assert (await content(bus, "in"))[0].timestamp_ms == 12345


# Locks


@scenario
async def test_a_lock_held_for_a_while_is_waited_for_without_blocking_the_loop(path: Path) -> None:
    async with bus_at(path) as bus:
        lane = await lane_of(await bus.lanes("copy", ["in"]), 0)
        with locked(path) as other:
            publishing = asyncio.gather(bus.publish(numbered("in", 2)), lane.commit({}, (), {b"a": b"1"}))
            longest_s, last_s = 0.0, time.monotonic()
            for _ in range(200):
                await asyncio.sleep(0.001)
                longest_s, last_s = max(longest_s, time.monotonic() - last_s), time.monotonic()
            assert longest_s < 0.1
            assert not publishing.done()
            assert lane.state.get(b"a") is None, "reading goes on under a writer's lock"
            other.execute("ROLLBACK")
            await publishing
        assert lane.state.get(b"a") == b"1"
        assert values(await receive(lane, 2)) == [b"0", b"1"]


@scenario
async def test_a_lock_held_for_too_long_is_reported_and_the_same_commit_may_be_tried_again(path: Path) -> None:
    async with bus_at(path, busy_timeout_s=0.05) as bus:
        await bus.publish(numbered("in", 1))
        lane = await lane_of(await bus.lanes("copy", ["in"]), 0)
        done = after(await receive(lane, 1))
        with locked(path):
            results = await asyncio.gather(
                lane.commit(done, numbered("out", 1)), bus.publish(numbered("in", 1)), return_exceptions=True
            )
            assert [type(result) for result in results] == [BusUnavailable] * 2
            assert results[0] is not results[1]
            assert str(path) in str(results[0])
            assert "locked" in str(results[0])
            with pytest.raises(BusUnavailable, match="locked"):
                await bus.create_topics([TopicSpec("more")])
            with pytest.raises(BusUnavailable, match="locked"):
                await SqliteBus.open(path, busy_timeout_s=0.05)
        assert not lane.lost
        await lane.commit(done, numbered("out", 1))
        assert lane.commit_number == 1
        assert len(await content(bus, "out")) == 1


@scenario
async def test_closing_writes_what_is_queued(path: Path) -> None:
    async with bus_at(path) as bus:
        lane = await lane_of(await bus.lanes("copy", ["in"]), 0)
        with locked(path) as other:
            publishing = asyncio.gather(bus.publish(numbered("in", 3)), lane.commit({}, numbered("out", 1)))
            await asyncio.sleep(0.005)
            closing_bus = asyncio.create_task(bus.close())
            await asyncio.sleep(0.005)
            other.execute("ROLLBACK")
            await closing_bus
        await publishing
    async with bus_at(path) as bus:
        assert (len(await content(bus, "in")), len(await content(bus, "out"))) == (3, 1)


# Full disks


@scenario
async def test_a_full_disk_fails_everything_of_the_flush_and_room_makes_the_same_commit_succeed(path: Path) -> None:
    async with bus_at(path) as bus:
        await bus.publish(numbered("in", 1))
        lane = await lane_of(await bus.lanes("copy", ["in"]), 0)
        done = after(await receive(lane, 1))
        pages = bus.file.select("PRAGMA page_count")[0][0]
        bus.file.connection.execute(f"PRAGMA max_page_count={pages}")
        large = [Message("out", b"x" * 50_000, partition=0) for _ in range(5)]
        results = await asyncio.gather(
            lane.commit(done, large, {b"a": b"1"}), bus.publish(numbered("in", 1)), return_exceptions=True
        )
        assert [type(result) for result in results] == [BusUnavailable] * 2
        assert "disk is full" in str(results[0])
        assert str(path) in str(results[0])
        assert (lane.commit_number, lane.committed["in"], lane.state.get(b"a")) == (0, 0, None)
        assert await content(bus, "out") == []
        bus.file.connection.execute("PRAGMA max_page_count=1000000")
        await lane.commit(done, large, {b"a": b"1"})
        assert (lane.commit_number, lane.committed) == (1, done)
        assert len(await content(bus, "out")) == 5


@pytest.mark.slow
@scenario
async def test_a_write_that_the_system_refuses_leaves_nothing_half_written(path: Path) -> None:
    async with bus_at(path) as bus:
        with child("writer_within_a_limit", path) as writer:
            refusal = await writer.line()
            published = await writer.line()
            assert await writer.end() == 0
        assert refusal.startswith(f"BusUnavailable: bus file {path} cannot be read or written")
        assert published == f"published {len(await content(bus, 'in'))}"
        assert bus.file.select("PRAGMA integrity_check") == [("ok",)]


# Wrong files


@scenario
async def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(BusUnavailable, match=r"the directory .*/nowhere does not exist"):
        await SqliteBus.open(tmp_path / "nowhere" / "bus.db")


@scenario
async def test_a_directory_is_no_bus_file(tmp_path: Path) -> None:
    with pytest.raises(BusUnavailable, match="cannot be opened"):
        await SqliteBus.open(tmp_path)


@scenario
async def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(path: Path) -> None:
    write(path, b"Dear diary, " * 100)
    with pytest.raises(BusUnavailable, match="is not a database"):
        await SqliteBus.open(path)
    assert read(path) == b"Dear diary, " * 100


@scenario
async def test_another_program_s_database_is_refused_and_left_as_it_is(path: Path) -> None:
    execute(path, "CREATE TABLE bookmarks (url TEXT)")
    before = read(path)
    with pytest.raises(BusUnavailable, match="another program"):
        await SqliteBus.open(path)
    assert read(path) == before


@scenario
async def test_a_file_of_another_version_is_refused_with_both_versions(path: Path) -> None:
    async with bus_at(path):
        pass
    execute(path, "PRAGMA user_version = 99")
    with pytest.raises(BusVersionMismatch, match=r"version 99, this version of pavane reads 1"):
        await SqliteBus.open(path)


@scenario
async def test_the_partition_count_is_the_file_s(path: Path) -> None:
    async with await SqliteBus.open(path, 7) as bus:
        assert bus.partitions == 7
    async with await SqliteBus.open(path) as bus:
        assert bus.partitions == 7
    with pytest.raises(ConfigurationError, match="asked for 8, the file was created with 7"):
        await SqliteBus.open(path, 8)


@scenario
async def test_a_fresh_file_may_be_opened_by_many_at_once(path: Path) -> None:
    buses = await asyncio.gather(*(SqliteBus.open(path) for _ in range(5)))
    for bus in buses:
        await bus.create_topics([TopicSpec("in")])
        await bus.close()


@pytest.mark.slow
@scenario
async def test_a_fresh_file_may_be_opened_by_many_processes_at_once(path: Path) -> None:
    with child("opener", path) as one, child("opener", path) as two, child("opener", path) as three:
        assert [await process.line() for process in (one, two, three)] == ["opened with 4"] * 3


@pytest.mark.slow
@pytest.mark.parametrize("which", ["the file", "the directory"])
@scenario
async def test_a_file_or_directory_that_may_not_be_written_is_reported(which: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        path = directory / "bus.db"
        async with bus_at(path):
            pass
        os.chmod(path, 0o444 if which == "the file" else 0o666)
        os.chmod(directory, 0o777 if which == "the file" else 0o555)
        nobody = [65534] if os.geteuid() == 0 else []  # root may write everything
        with child("opener", path, *nobody) as opener:
            line = await opener.line()
        os.chmod(directory, 0o700)
        assert line.startswith(f"BusUnavailable: bus file {path}")
        assert "allow this user" in line or "this user may write" in line


@scenario
async def test_full_synchronization_is_the_caller_s_choice(path: Path) -> None:
    async with await SqliteBus.open(path) as bus:
        assert bus.file.select("PRAGMA synchronous") == [(1,)]
    async with await SqliteBus.open(path, synchronous="FULL") as bus:
        assert bus.file.select("PRAGMA synchronous") == [(2,)]


@scenario
async def test_a_process_that_asked_for_a_long_lease_is_not_judged_by_another_s_short_one(path: Path) -> None:
    async with bus_at(path, lease_s=LONG_LEASE_S) as patient, bus_at(path, lease_s=0.1) as hasty:
        lanes = await lanes_of(await patient.lanes("copy", ["in"]))
        await lanes_of(await hasty.lanes("copy", ["in"]), 2)
        await asyncio.sleep(0.4)
        assert sum(lane.lost for lane in lanes.values()) == 2
