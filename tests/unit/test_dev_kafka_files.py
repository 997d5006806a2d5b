"""What a Kafka for development is made of: its jars, its configuration, what is read off its log."""

from pathlib import Path

import pytest

from pavane.dev.kafka import KafkaCluster
from pavane.dev.kafka_card import ClusterCard, new_cluster_id
from pavane.dev.kafka_config import Layout, Wanted, properties_text, sasl_plain, server_properties
from pavane.dev.kafka_jars import KafkaFailed, kafka_folder, kafka_jars, kafka_version, problems_here
from pavane.dev.kafka_log import last_words
from pavane_events.errors import ConfigurationError


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on the PATH but for the system's own, with a Java in it; the cache is empty."""
    folder = tmp_path / "bin"
    folder.mkdir()
    write_program(folder / "java", "echo '    java.specification.version = 17' >&2")
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PAVANE_CACHE", str(tmp_path / "cache"))
    return folder


def write_program(path: Path, *lines: str) -> None:
    path.write_text("\n".join(("#!/bin/sh", *lines)) + "\n")
    path.chmod(0o755)


_A_MAVEN = (
    'for each in "$@"; do case $each in -DoutputDirectory=*) folder=${each#*=};; esac; done',
    'echo run >> "$(dirname "$0")/runs"',
    'mkdir -p "$folder" && touch "$folder/kafka.jar"',
)


def test_jars_are_fetched_once(programs: Path) -> None:
    write_program(programs / "mvn", *_A_MAVEN)
    told: list[str] = []
    libs = kafka_jars(told.append)
    assert (libs / "kafka.jar").exists()
    assert kafka_jars(told.append) == libs
    assert (programs / "runs").read_text() == "run\n"
    assert len(told) == 1
    assert kafka_version() in told[0]


def test_what_an_interrupted_fetch_left_is_not_taken_for_whole(programs: Path) -> None:
    write_program(programs / "mvn", *_A_MAVEN)
    libs = kafka_folder() / "libs"
    libs.mkdir(parents=True)
    (libs / "half.jar").touch()
    assert [each.name for each in kafka_jars().glob("*.jar")] == ["kafka.jar"]


def test_a_maven_that_fails_is_quoted_and_leaves_nothing(programs: Path) -> None:
    write_program(programs / "mvn", "echo 'Could not transfer artifact' >&2", "exit 1")
    with pytest.raises(KafkaFailed, match=r"is Maven Central.*reachable\?\nCould not transfer artifact"):
        kafka_jars()
    assert not (kafka_folder() / "libs").exists()


def test_without_maven_it_is_said_before_anything_is_tried(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(programs))
    assert [each.code for each in problems_here()] == ["kafka.no-maven"]
    with pytest.raises(ConfigurationError, match="there is no mvn on the PATH"):
        kafka_jars()


def test_one_broker_keeps_one_copy_and_three_keep_three() -> None:
    one = properties_of(1)
    three = properties_of(3)
    for name in ("default.replication.factor", "offsets.topic.replication.factor", "transaction.state.log.replication.factor"):
        assert (one[name], three[name]) == ("1", "3")
    for name in ("min.insync.replicas", "transaction.state.log.min.isr"):
        assert (one[name], three[name]) == ("1", "2")


def test_it_listens_on_the_loopback_interface_only() -> None:
    three = properties_of(3, node=2)
    assert three["listeners"] == "CLIENT://127.0.0.1:9093,CONTROLLER://127.0.0.1:9096"
    assert three["controller.quorum.voters"] == "1@127.0.0.1:9095,2@127.0.0.1:9096,3@127.0.0.1:9097"
    assert list(Layout(3, 9092).ports) == [9092, 9093, 9094, 9095, 9096, 9097]


def test_what_a_caller_wants_goes_over_ours() -> None:
    wanted = Wanted(Layout(1, 9092), new_cluster_id(), {"min.insync.replicas": "9", "message.max.bytes": "100"})
    properties = server_properties(wanted, 1, Path("/data"))
    assert (properties["min.insync.replicas"], properties["message.max.bytes"]) == ("9", "100")


def test_values_of_several_lines_are_written_as_java_reads_them() -> None:
    assert properties_text({"a": "one\ntwo\\three", "b": " four"}) == "a=one\\ntwo\\\\three\nb=\\ four\n"


def test_brokers_log_in_as_the_first_of_the_accounts() -> None:
    entry = sasl_plain({"admin": "x", "alice": "y"})["listener.name.client.plain.sasl.jaas.config"]
    assert 'username="admin" password="x" user_admin="x" user_alice="y";' in entry


def test_of_a_log_the_errors_are_shown_without_the_places_in_the_source() -> None:
    log = "\n".join(
        (
            "[2026-01-01 10:00:00,000] INFO KafkaConfig: values:",
            "broker.id = 1",
            "[2026-01-01 10:00:00,001] ERROR BrokerServer: it is broken",
            "java.lang.IllegalStateException: broken",
            "\tat kafka.Kafka.main(Kafka.scala:1)",
            "Caused by: java.io.IOException: No space left on device",
            "[2026-01-01 10:00:00,002] INFO BrokerServer: shutting down",
        )
    )
    assert last_words(log).splitlines() == [
        "[2026-01-01 10:00:00,001] ERROR BrokerServer: it is broken",
        "java.lang.IllegalStateException: broken",
        "Caused by: java.io.IOException: No space left on device",
    ]


def test_of_a_log_without_errors_the_last_lines_are_shown() -> None:
    log = "\n".join(f"[2026-01-01 10:00:00,000] INFO line {number}" for number in range(100))
    assert last_words(log).splitlines()[-1] == "[2026-01-01 10:00:00,000] INFO line 99"
    assert len(last_words(log).splitlines()) == 20


def test_a_cluster_is_found_again_by_its_folder_as_it_was_started(tmp_path: Path) -> None:
    assert KafkaCluster.found_in(tmp_path) is None
    ClusterCard("4.1.1", new_cluster_id(), brokers=3, port=19200).write(tmp_path)
    found = KafkaCluster.found_in(tmp_path)
    assert found is not None
    assert found.servers == "127.0.0.1:19200,127.0.0.1:19201,127.0.0.1:19202"
    assert found.url == f"kafka://{found.servers}"


def test_what_never_ran_can_be_stopped_and_forgotten(tmp_path: Path) -> None:
    never = KafkaCluster(tmp_path / "never")
    never.stop()
    never.kill()
    never.forget()
    assert list(tmp_path.iterdir()) == []


def properties_of(brokers: int, node: int = 1) -> dict[str, str]:
    return server_properties(Wanted(Layout(brokers, 9092), new_cluster_id()), node, Path("/data"))


def test_no_cluster_id_looks_like_an_option_to_kafkas_own_tools() -> None:
    assert not [each for each in (new_cluster_id() for _ in range(2_000)) if each.startswith("-") or len(each) != 22]
