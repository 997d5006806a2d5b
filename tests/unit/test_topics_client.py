"""What clients of Kafka are told, and how much of what they say is heard."""

import asyncio
import inspect
import logging
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import cast

import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.group_coordinator import GroupCoordinator

from conformance.deployments import scenario
from pavane_events.buses.kafka import group
from pavane_events.buses.kafka.client import LineLimit, client_arguments, limit_lines, quiet
from pavane_events.buses.kafka.options import KafkaOptions
from pavane_events.errors import ConfigurationError

log = logging.getLogger("aiokafka")


@pytest.fixture
def limited(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """A logger of our own with a limit that lasts for ever."""
    logger = logging.getLogger("of this test")
    limit = LineLimit(quiet_s=1e9)
    logger.addFilter(limit)
    with caplog.at_level(logging.DEBUG):
        yield caplog
    logger.removeFilter(limit)


OF_NO_USE = {
    *("sasl_kerberos_service_name", "sasl_kerberos_domain_name", "sasl_oauth_token_provider"),
    *("loop", "api_version"),
}
"""What the client takes besides: no setting is for Kerberos or OAuth; and what aiokafka itself warns of."""

OF_WHAT_IS_OFF = {"exclude_internal_topics", "auto_commit_interval_ms"}
"""What the coordinator takes besides: topics are named one by one, and nothing is committed by itself."""


def parameters(kind: type[object]) -> set[str]:
    return set(inspect.signature(kind).parameters)


def test_nothing_is_left_to_the_clients_own_defaults() -> None:
    arguments = client_arguments("broker:9092", KafkaOptions(request_timeout_ms=1_234), client_id="me")
    assert set(arguments) == parameters(AIOKafkaClient) - OF_NO_USE
    assert (arguments["client_id"], arguments["request_timeout_ms"]) == ("me", 1_234)
    assert arguments["ssl_context"] is None


@scenario
async def test_nothing_is_left_to_the_group_coordinators_own_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[set[str]] = []

    def coordinator(client: object, subscription: object, **arguments: object) -> object:
        given.append({"client", "subscription", *arguments})
        return object()

    class Unconnected:
        def set_topics(self, topics: Collection[str]) -> None:
            assert topics == {"in"}

    async def revoked(expelled: bool) -> None: ...

    monkeypatch.setattr(group, "GroupCoordinator", coordinator)
    options = KafkaOptions()
    client = cast("AIOKafkaClient", Unconnected())
    joined = group.Group(
        client, "g", 4, options, held=lambda: (-1, ()), revoked=revoked, assigned=lambda member, assigned: None
    )
    joined.join({"in"})
    assert given == [parameters(GroupCoordinator) - OF_WHAT_IS_OFF]


def test_an_encrypted_connection_checks_certificate_and_host() -> None:
    context = client_arguments("broker:9092", KafkaOptions(security="SSL"))["ssl_context"]
    assert context is not None
    assert context.check_hostname
    assert context.verify_mode.name == "CERT_REQUIRED"


def test_every_file_that_holds_no_certificate_is_reported(tmp_path: Path) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_text("no certificate")
    with pytest.raises(ConfigurationError) as raised:
        client_arguments("broker:9092", KafkaOptions(security="SSL", ca_file=junk, certificate_file=junk))
    assert [problem.where for problem in raised.value.problems] == ["PAVANE_KAFKA_CA_FILE", "PAVANE_KAFKA_CERTIFICATE_FILE"]


def test_lines_of_one_template_are_one_line(limited: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("of this test")
    for node in range(1_000):
        logger.error("no node %s", node)
        logger.warning("no metadata from %s", node)
    assert [record.getMessage() for record in limited.records] == ["no node 0", "no metadata from 0"]


def test_the_first_line_after_the_silence_tells_of_those_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("pavane_events.buses.kafka.client.time.monotonic", lambda: now[0])
    limit = LineLimit(quiet_s=10.0)

    def said() -> str | None:
        record = logging.LogRecord("aiokafka", logging.ERROR, "", 0, "no node %s", ("1",), None)
        return record.getMessage() if limit.filter(record) else None

    assert [said(), said(), said()] == ["no node 1", None, None]
    now[0] += 12.0
    assert said() == "no node 1 (and 2 more such lines in the last 12 s)"
    assert said() is None


def test_templates_without_end_do_not_fill_the_memory() -> None:
    limit = LineLimit()
    for number in range(10_000):
        assert limit.filter(logging.LogRecord("aiokafka", logging.ERROR, "", 0, f"line {number}", (), None))


def test_every_logger_of_the_client_is_limited_once() -> None:
    limit_lines()
    before = len(log.filters)
    limit_lines()
    assert len(log.filters) == before >= 1


@scenario
async def test_quiet_lasts_as_long_as_its_block_also_for_tasks_begun_in_it(caplog: pytest.LogCaptureFixture) -> None:
    limit_lines()
    over = asyncio.Event()

    async def speak() -> None:
        log.error("within")
        await over.wait()
        log.error("afterwards")

    with quiet():
        speaking = asyncio.create_task(speak())
        await asyncio.sleep(0)
    over.set()
    await speaking
    assert [record.getMessage() for record in caplog.records] == ["afterwards"]
