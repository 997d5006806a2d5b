"""``pavane topics`` on a real Kafka: what is wanted comes into being there, once, however many ask for it."""

import asyncio
import shutil
import subprocess
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from conformance.deployments import PARTITIONS, after, content, lanes_of, numbered, receive, scenario, values
from pavane.cli.needs import needs_of
from pavane.dev.kafka import KafkaCluster
from pavane.dev.kafka_config import sasl_plain
from pavane_events.bus import TopicSpec
from pavane_events.buses.kafka.admin import Admin
from pavane_events.buses.kafka.bus import KafkaBus
from pavane_events.buses.kafka.connecting import connected
from pavane_events.buses.kafka.options import KafkaOptions
from pavane_events.buses.kafka.provision import Applied, apply
from pavane_events.errors import BusUnavailable, ConfigurationError
from pavane_events.topics import FoundTopic, WantedTopic, config_of
from support.kafka import Kafka, MakeKafka
from support.require import unavailable
from unit.cli_shell import Shell

TOY = ("unit.cli_toy:AGENTS", "unit.cli_toy:orders")


@pytest.fixture
def pavane(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kafka: Kafka, kafka_prefix: str, tmp_path: Path
) -> Shell:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PAVANE_BUS", kafka.url)
    monkeypatch.setenv("PAVANE_KAFKA_PREFIX", kafka_prefix)
    return Shell(monkeypatch, capsys)


@pytest.fixture
def wanted(kafka: Kafka) -> Sequence[WantedTopic]:
    return needs_of(TOY, kafka.url).wanted


def log(name: str, prefix: str = "") -> WantedTopic:
    return WantedTopic(name, "log", config_of("log", KafkaOptions(prefix=prefix).topic_rules))


def see(kafka: Kafka, prefix: str, settings: dict[str, list[str]] | None = None) -> dict[str, FoundTopic]:
    async def look() -> dict[str, FoundTopic]:
        options = KafkaOptions(prefix=prefix)
        async with connected(kafka.servers, options) as client:
            return await Admin(client, options).describe(settings)

    return asyncio.run(look())


def administer(kafka: Kafka, prefix: str, work: Callable[[Admin], object]) -> None:
    async def do() -> None:
        options = KafkaOptions(prefix=prefix)
        async with connected(kafka.servers, options) as client:
            result = work(Admin(client, options))
            assert asyncio.iscoroutine(result)
            await result

    asyncio.run(do())


def test_apply_creates_what_is_missing_and_then_has_nothing_to_do(pavane: Shell) -> None:
    before = pavane("topics", "diff", *TOY)
    assert before.code == 1
    applied = pavane("topics", "apply", *TOY)
    assert applied.code == 0, applied.err
    assert len(applied.out.splitlines()) == len(before.out.splitlines())
    assert "toy.paid" in applied.out
    assert pavane("topics", "diff", *TOY) == (0, "", f"{len(before.out.splitlines())} topics wanted: all as they should be\n")
    again = pavane("topics", "apply", *TOY, "--json").document
    assert (again["created"], again["altered"], again["partitions"]) == ([], {}, 4)


def test_a_dry_run_asks_the_brokers_and_creates_nothing(pavane: Shell, kafka: Kafka, kafka_prefix: str) -> None:
    said = pavane("topics", "apply", *TOY, "--dry-run", "--json")
    assert said.code == 0
    assert said.document["created"]
    assert see(kafka, kafka_prefix) == {}


def test_what_the_brokers_would_refuse_a_dry_run_refuses(pavane: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAVANE_KAFKA_REPLICATION", "17")
    said = pavane("topics", "apply", *TOY, "--dry-run")
    assert said.code == 2
    assert "toy.paid" in said.err
    assert "PAVANE_KAFKA_REPLICATION" in said.err


@scenario
async def test_several_at_once_come_to_the_same(kafka: Kafka, kafka_prefix: str, wanted: Sequence[WantedTopic]) -> None:
    options = KafkaOptions(prefix=kafka_prefix)
    all_applied: list[Applied] = await asyncio.gather(*(apply(kafka.servers, options, wanted, 3) for _ in range(4)))
    created = [name for applied in all_applied for name in applied.created]
    assert sorted(created) == sorted(topic.name for topic in wanted)
    assert not any(applied.altered for applied in all_applied)


@scenario
async def test_of_two_who_want_different_counts_one_is_told(
    kafka: Kafka, kafka_prefix: str, wanted: Sequence[WantedTopic]
) -> None:
    options = KafkaOptions(prefix=kafka_prefix)
    few = wanted[:6]
    results = await asyncio.gather(
        *(apply(kafka.servers, options, few, partitions) for partitions in (2, 3)), return_exceptions=True
    )
    assert any(isinstance(result, ConfigurationError) for result in results)
    assert not any(isinstance(result, BusUnavailable) for result in results)


def test_settings_are_put_right_and_others_left_alone(pavane: Shell, kafka: Kafka, kafka_prefix: str) -> None:
    pavane("topics", "apply", *TOY)
    changed = {"toy.paid": {"retention.ms": "1000", "segment.bytes": "1048576"}}
    administer(kafka, kafka_prefix, lambda admin: admin.alter_configs(changed))
    said = pavane("topics", "diff", *TOY)
    assert (said.code, said.out) == (1, f"~ {kafka_prefix}toy.paid  retention.ms is 1000, should be 2592000000\n")
    said = pavane("topics", "apply", *TOY)
    assert said.out == f"altered {kafka_prefix}toy.paid  retention.ms from 1000 to 2592000000\n"
    seen = see(kafka, kafka_prefix, {"toy.paid": ["retention.ms", "segment.bytes"]})["toy.paid"].config
    assert seen == {"retention.ms": "2592000000", "segment.bytes": "1048576"}


def test_a_new_agent_gets_the_partition_count_that_the_deployment_has(
    pavane: Shell, kafka: Kafka, kafka_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAVANE_PARTITIONS", "3")
    pavane("topics", "apply", "unit.cli_toy:payment")
    monkeypatch.delenv("PAVANE_PARTITIONS")
    assert pavane("topics", "apply", *TOY, "--json").document["partitions"] == 3
    assert {topic.partitions for topic in see(kafka, kafka_prefix).values()} == {3}


def test_another_partition_count_is_refused_before_anything_is_done(
    pavane: Shell, kafka: Kafka, kafka_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    administer(kafka, kafka_prefix, lambda admin: admin.create([log("toy.paid", kafka_prefix)], 2))
    monkeypatch.setenv("PAVANE_PARTITIONS", "4")
    said = pavane("topics", "apply", *TOY)
    assert said.code == 2
    assert "toy.paid: it has 2 partitions and this deployment 4" in said.err
    assert set(see(kafka, kafka_prefix)) == {"toy.paid"}
    assert f"! {kafka_prefix}toy.paid  has 2 partitions, should have 4\n" in pavane("topics", "diff", *TOY).out
    checked = pavane("check", *TOY, "--bus", kafka.url)
    assert checked.code == 1
    assert "error  toy.paid: it has 2 partitions and this deployment 4: where 4 is wrong, set" in checked.out


def test_topics_that_nobody_declares_are_listed_and_stay(pavane: Shell, kafka: Kafka, kafka_prefix: str) -> None:
    administer(kafka, kafka_prefix, lambda admin: admin.create([log("of.long.ago", kafka_prefix)], 2))
    said = pavane("topics", "apply", *TOY)
    assert f"? {kafka_prefix}of.long.ago  declared by none of these targets\n" in said.out
    said = pavane("topics", "diff", *TOY, "--json")
    assert (said.code, said.document["undeclared"]) == (0, ["of.long.ago"])
    assert "of.long.ago" in see(kafka, kafka_prefix)


def test_commands_that_read_find_the_topics_of_their_deployment(pavane: Shell) -> None:
    pavane("topics", "apply", *TOY)
    published = pavane("publish", "toy.orders", "--data", '{"order_id": "1", "amount": 1}', "--app", TOY[1])
    assert published.code == 0, published.err
    assert [record["topic"] for record in pavane("tail", "toy.orders", "--json").documents] == ["toy.orders"]
    assert pavane("sagas", "list").code == 0


@scenario
async def test_a_tls_client_at_a_plain_listener_is_told_which_setting_to_look_at(kafka: Kafka) -> None:
    options = KafkaOptions(security="SSL", request_timeout_ms=2_000)
    with pytest.raises(BusUnavailable, match="PAVANE_KAFKA_SECURITY"):
        await connect_with(kafka.servers, options)


@dataclass(frozen=True)
class Certificate:
    """PEM files: a certificate, its key, and both in one."""

    file: Path
    key: Path
    both: Path


class Authority:
    """Signs certificates for 127.0.0.1."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("openssl") is None:
            unavailable("kafka", "no certificates for it without the command openssl: apt-get install openssl")
        folder.mkdir()
        self._folder = folder
        self.file = folder / "ca.pem"
        self._openssl("req", "-x509", "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem")

    def certificate(self, name: str) -> Certificate:
        """A certificate of that name."""
        self._openssl(
            *("req", "-x509", "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-CA", "ca.pem", "-CAkey", "ca.key", "-keyout", f"{name}.key", "-out", f"{name}.pem"),
            *("-addext", "basicConstraints=critical,CA:FALSE"),
        )
        found = Certificate(*(self._folder / f"{name}.{kind}" for kind in ("pem", "key", "both")))
        found.both.write_text(found.key.read_text() + found.file.read_text())
        return found

    def _openssl(self, *arguments: str) -> None:
        options = ("-newkey", "rsa:2048", "-noenc", "-days", "1")
        subprocess.run(["openssl", *arguments, *options], cwd=self._folder, check=True, capture_output=True, timeout=30)


@contextmanager
def refused(*words: str) -> Generator[None]:
    with pytest.raises(ConfigurationError) as raised:
        yield
    for word in words:
        assert word in str(raised.value)
    assert "sesame" not in str(raised.value)


async def connect_with(servers: str, options: KafkaOptions) -> None:
    async with connected(servers, options) as client:
        await Admin(client, options).list_topics()


async def copy_one(servers: str, options: KafkaOptions) -> None:
    """One record through a lane: read, answered, done, and counted in its state."""
    async with await KafkaBus.open(servers, PARTITIONS, options) as bus:
        await bus.create_topics([TopicSpec("in"), TopicSpec("out")])
        await bus.publish(numbered("in", 1))
        lane = (await lanes_of(await bus.lanes("group", ["in"])))[0]
        await lane.commit(after(await receive(lane, 1)), numbered("out", 1), {b"count": b"1"})
        assert values(await content(bus, "out")) == [b"0"]
        assert (lane.committed["in"], lane.state.get(b"count")) == (1, b"1")


@pytest.mark.slow
@scenario
async def test_a_wrong_password_is_told_as_such_and_never_printed(make_kafka: MakeKafka) -> None:
    cluster = await asyncio.to_thread(make_kafka, properties=sasl_plain({"alice": "open sesame"}))
    right = KafkaOptions(security="SASL_PLAINTEXT", mechanism="PLAIN", username="alice", password="open sesame")
    await connect_with(cluster.servers, right)
    with refused("PAVANE_KAFKA_USERNAME"):
        wrong = KafkaOptions(security="SASL_PLAINTEXT", mechanism="PLAIN", username="alice", password="open sesame!")
        await connect_with(cluster.servers, wrong)
    with refused("PAVANE_KAFKA_MECHANISM"):
        await connect_with(cluster.servers, KafkaOptions(security="SASL_PLAINTEXT", username="alice", password="open sesame"))
    with pytest.raises(BusUnavailable, match="PAVANE_KAFKA_SECURITY"):
        await connect_with(cluster.servers, KafkaOptions(request_timeout_ms=2_000))


@pytest.mark.slow
@scenario
async def test_brokers_are_held_to_their_certificate_and_may_ask_for_ours(make_kafka: MakeKafka, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    broker = authority.certificate("broker")
    us = authority.certificate("us")
    properties = {
        "listener.security.protocol.map": "CLIENT:SSL,CONTROLLER:PLAINTEXT",
        "ssl.client.auth": "required",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(broker.both),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(authority.file),
    }
    cluster = await asyncio.to_thread(make_kafka, properties=properties)
    options = KafkaOptions(security="SSL", ca_file=authority.file, certificate_file=us.file, key_file=us.key)
    await connect_with(cluster.servers, options)
    await connect_with(cluster.servers, KafkaOptions(security="SSL", ca_file=authority.file, certificate_file=us.both))
    await copy_one(cluster.servers, options)
    with refused("PAVANE_KAFKA_CA_FILE", "not accepted"):
        await connect_with(cluster.servers, KafkaOptions(security="SSL", certificate_file=us.both))
    with refused("PAVANE_KAFKA_CERTIFICATE_FILE"):
        await connect_with(
            cluster.servers,
            KafkaOptions(security="SSL", ca_file=authority.file, certificate_file=us.file, key_file=broker.key),
        )
    with pytest.raises(BusUnavailable, match="PAVANE_KAFKA_CERTIFICATE_FILE"):  # all that TLS 1.3 says is good-bye
        await connect_with(cluster.servers, KafkaOptions(security="SSL", ca_file=authority.file))


@pytest.mark.slow
@scenario
async def test_with_three_brokers_every_one_of_them_knows_every_topic(
    kafka_cluster: KafkaCluster, wanted: Sequence[WantedTopic]
) -> None:
    options = KafkaOptions(prefix="topics-of-three.", replication=3)
    few = [WantedTopic(topic.name, topic.kind, config_of(topic.kind, options.topic_rules)) for topic in wanted[:8]]
    await apply(kafka_cluster.servers, options, few, 4)
    for node in kafka_cluster.nodes:
        async with connected(node.address, options) as client:
            seen = await Admin(client, options).describe({topic.name: topic.config for topic in few})
        assert {name: (topic.partitions, topic.replication) for name, topic in seen.items()} == {
            topic.name: (4, 3) for topic in few
        }
        assert {topic.config["min.insync.replicas"] for topic in seen.values()} == {"2"}
