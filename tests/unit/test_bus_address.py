"""An address opens the bus it names, or says what to write instead."""

from pathlib import Path

import pytest

from conformance.deployments import scenario
from pavane_events.buses.address import open_bus
from pavane_events.buses.memory import MemoryBus
from pavane_events.buses.sqlite import SqliteBus
from pavane_events.errors import ConfigurationError


@scenario
async def test_memory_opens_a_bus_that_is_forgotten() -> None:
    async with await open_bus("memory://", partitions=3) as bus:
        assert isinstance(bus, MemoryBus)
        assert bus.partitions == 3


@scenario
async def test_sqlite_opens_relative_and_absolute_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with await open_bus("sqlite:///my%20bus.db", partitions=3) as bus:
        assert isinstance(bus, SqliteBus)
        assert bus.file.path == Path("my bus.db")
    async with await open_bus(f"sqlite:///{tmp_path}/my bus.db") as bus:
        assert bus.partitions == 3


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("kafka://broker:9092", "not part of this version"),
        ("kafka://me:secret@broker:9092", "not part of this version"),
        ("sqlite://pavane.db", "did you mean sqlite:///pavane.db"),
        ("sqlite://", "names no file"),
        ("pavane.db", "did you mean sqlite:///pavane.db"),
        ("redis://localhost", "no adapter for redis://"),
        ("memory://somewhere", "memory:// for a bus that is forgotten"),
        ("", "sqlite:///"),
    ],
)
@scenario
async def test_other_addresses_say_what_to_write_instead(url: str, remedy: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        await open_bus(url)
    assert remedy in str(caught.value)
    assert "secret" not in str(caught.value)
