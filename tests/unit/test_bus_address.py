"""An address opens the bus it names, or says what to write instead."""

from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from conformance.deployments import scenario
from pavane_events.buses.address import open_bus, servers_of
from pavane_events.buses.kafka.options import KafkaOptions
from pavane_events.buses.memory import MemoryBus
from pavane_events.buses.sqlite import SqliteBus
from pavane_events.errors import BusUnavailable, ConfigurationError


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
        ("kafka://broker", "did you mean broker:9092?"),
        ("kafka://broker:9092,other", "did you mean other:9092?"),
        ("kafka://", "names no broker"),
        ("kafka://broker:9092,", "one comma too many"),
        ("kafka://broker:0", "from 1 to 65535"),
        ("kafka://broker:99999", "from 1 to 65535"),
        ("kafka://::1:9092", "in brackets"),
        ("kafka://[::1]", "did you mean [::1]:9092?"),
        ("kafka://[::1:9092", "Invalid IPv6"),
        ("kafka://bro ker:9092", "is no host:port"),
        ("kafka://broker:9092/prefix", "PAVANE_KAFKA_PREFIX"),
        ("kafka://broker:9092?acks=all", "options are settings"),
        ("kafka://me:secret@broker:9092", "PAVANE_KAFKA_PASSWORD"),
        ("kafka://me:sec/ret@broker:9092", "PAVANE_KAFKA_PASSWORD"),
        ("kafka://me:sec#ret@broker:9092", "PAVANE_KAFKA_PASSWORD"),
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
    assert "sec" not in str(caught.value).partition("is no address")[0]


@pytest.mark.parametrize(
    ("url", "servers"),
    [
        ("kafka://broker:9092", "broker:9092"),
        ("kafka://broker:9092/", "broker:9092"),
        ("kafka://a.example:9092,b.example:19092", "a.example:9092,b.example:19092"),
        ("kafka://[::1]:9092,127.0.0.1:9093", "[::1]:9092,127.0.0.1:9093"),
    ],
)
def test_a_kafka_address_names_brokers(url: str, servers: str) -> None:
    assert servers_of(url) == servers


def test_every_problem_of_a_kafka_address_is_listed() -> None:
    with pytest.raises(ConfigurationError) as caught:
        servers_of("kafka://me@broker,:1,other:x/here?acks=all")
    assert len(caught.value.problems) == 6


@scenario
async def test_brokers_that_nobody_runs_are_unavailable() -> None:
    options = KafkaOptions(request_timeout_ms=500)
    with pytest.raises(BusUnavailable, match=r"does not answer at 127.0.0.1:1 .*PAVANE_KAFKA_SECURITY"):
        await open_bus("kafka://127.0.0.1:1", kafka=options)


@pytest.mark.parametrize(
    ("found", "message"),
    [(None, "aiokafka is not installed: pip install 'pavane[kafka]'"), ("0.13.0", "aiokafka 0.13.0 is installed")],
)
@scenario
async def test_a_missing_or_untested_client_is_named(monkeypatch: pytest.MonkeyPatch, found: str | None, message: str) -> None:
    def version(name: str) -> str:
        if found is None:
            raise PackageNotFoundError(name)
        return found

    monkeypatch.setattr("pavane_events.buses.kafka.client.version", version)
    with pytest.raises(ConfigurationError) as caught:
        await open_bus("kafka://127.0.0.1:1")
    assert message in str(caught.value)
