"""``pavane dev kafka`` and what is under it: real brokers, started, stopped, killed, brought back."""

import os
import socket
import subprocess
from pathlib import Path

import pytest

from pavane.dev.kafka import KafkaCluster
from pavane.dev.kafka_card import ClusterCard, new_cluster_id
from pavane.dev.kafka_config import sasl_plain
from pavane.dev.kafka_jars import KafkaFailed, kafka_version
from pavane.dev.ports import HOST, free_block
from pavane_events.errors import ConfigurationError
from support.kafka import Kafka, KafkaTool, MakeKafka
from support.kafka_container import NoContainer, remove_container, start_container
from support.require import unavailable

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("kafka_tool")]  # it skips where there is no Java

_TOPICS = "org.apache.kafka.tools.TopicCommand"
_PRODUCER = "org.apache.kafka.tools.ConsoleProducer"
_CONSUMER = "org.apache.kafka.tools.consumer.ConsoleConsumer"


def create(tool: KafkaTool, servers: str, topic: str) -> None:
    made = tool(_TOPICS, "--bootstrap-server", servers, "--create", "--topic", topic)
    assert made.returncode == 0, made.stderr


def send(tool: KafkaTool, servers: str, topic: str, *lines: str) -> None:
    sent = tool(
        _PRODUCER, "--bootstrap-server", servers, "--topic", topic, "--producer-property", "acks=all", stdin="\n".join(lines)
    )
    assert (sent.returncode, "ERROR" in sent.stderr) == (0, False), sent.stderr


def read(tool: KafkaTool, servers: str, topic: str, count: int) -> list[str]:
    options = ("--from-beginning", "--max-messages", str(count), "--timeout-ms", "30000")
    return tool(_CONSUMER, "--bootstrap-server", servers, "--topic", topic, *options).stdout.splitlines()


def test_the_kafka_of_all_tests_takes_and_gives_records(kafka: Kafka, kafka_prefix: str, kafka_tool: KafkaTool) -> None:
    topic = kafka_prefix + "things"
    create(kafka_tool, kafka.servers, topic)
    send(kafka_tool, kafka.servers, topic, "one", "two")
    assert read(kafka_tool, kafka.servers, topic, 2) == ["one", "two"]


def test_a_topic_that_nobody_created_does_not_come_about_by_itself(make_kafka: MakeKafka, kafka_tool: KafkaTool) -> None:
    broker = make_kafka()
    options = ("--producer-property", "max.block.ms=1500")
    typo = kafka_tool(_PRODUCER, "--bootstrap-server", broker.servers, "--topic", "typo", *options, stdin="lost")
    assert "TimeoutException" in typo.stderr + typo.stdout
    assert kafka_tool(_TOPICS, "--bootstrap-server", broker.servers, "--list").stdout.split() == []


def test_records_outlive_a_restart_and_a_kill(make_kafka: MakeKafka, kafka_tool: KafkaTool) -> None:
    broker = make_kafka()
    create(kafka_tool, broker.servers, "things")
    send(kafka_tool, broker.servers, "things", "one")
    broker.node(1).restart()
    send(kafka_tool, broker.servers, "things", "two")
    broker.node(1).kill()
    assert broker.running == []
    broker.start()
    assert read(kafka_tool, broker.servers, "things", 2) == ["one", "two"]


def test_a_second_start_changes_nothing_whoever_makes_it(make_kafka: MakeKafka) -> None:
    broker = make_kafka()
    pid = broker.node(1).pid
    broker.start()
    same = KafkaCluster.found_in(broker.folder)
    assert same is not None
    same.start()
    assert same.servers == broker.servers
    assert [node.pid for node in same.running] == [pid]
    same.stop()
    assert broker.running == []


def test_a_suspended_broker_is_there_and_answers_when_it_is_resumed(make_kafka: MakeKafka, kafka_tool: KafkaTool) -> None:
    broker = make_kafka()
    broker.node(1).suspend()
    with pytest.raises(subprocess.TimeoutExpired):
        kafka_tool(_TOPICS, "--bootstrap-server", broker.servers, "--list", timeout_s=5)
    assert broker.node(1).pid is not None
    broker.node(1).resume()
    assert kafka_tool(_TOPICS, "--bootstrap-server", broker.servers, "--list").returncode == 0


def test_a_suspended_broker_can_be_stopped(make_kafka: MakeKafka) -> None:
    broker = make_kafka()
    broker.node(1).suspend()
    broker.stop()
    assert broker.running == []


def test_of_three_brokers_one_may_be_lost_and_no_more(kafka_cluster: KafkaCluster, kafka_tool: KafkaTool) -> None:
    topic = "one-may-be-lost"
    create(kafka_tool, kafka_cluster.servers, topic)
    described = kafka_tool(_TOPICS, "--bootstrap-server", kafka_cluster.servers, "--describe", "--topic", topic).stdout
    assert "ReplicationFactor: 3" in described
    assert "min.insync.replicas=2" in described
    kafka_cluster.node(2).kill()
    send(kafka_tool, kafka_cluster.servers, topic, "still taken")
    assert [node.number for node in kafka_cluster.running] == [1, 3]
    kafka_cluster.node(2).start()
    assert read(kafka_tool, kafka_cluster.node(2).address, topic, 1) == ["still taken"]


def test_a_broker_can_ask_for_a_password(make_kafka: MakeKafka, kafka_tool: KafkaTool, tmp_path: Path) -> None:
    broker = make_kafka(properties=sasl_plain({"admin": "not told", "alice": "in wonderland"}))

    def topics_as(name: str, password: str) -> "subprocess.CompletedProcess[str]":
        module = "org.apache.kafka.common.security.plain.PlainLoginModule required"
        client = tmp_path / "client.properties"
        client.write_text(
            "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\n"
            f'sasl.jaas.config={module} username="{name}" password="{password}";\n'
        )
        return kafka_tool(_TOPICS, "--bootstrap-server", broker.servers, "--command-config", str(client), "--list")

    assert topics_as("alice", "in wonderland").returncode == 0
    assert "SaslAuthenticationException" in topics_as("alice", "a guess").stdout


def test_a_port_that_is_taken_is_named_and_nothing_is_started(tmp_path: Path) -> None:
    port = free_block(2)
    broker = KafkaCluster(tmp_path / "kafka", port=port)
    with socket.create_server((HOST, port + 1)), pytest.raises(ConfigurationError) as refused:
        broker.start()
    assert str(port + 1) in str(refused.value)
    assert broker.running == []


def test_a_broker_that_dies_at_its_start_shows_its_last_words(tmp_path: Path) -> None:
    properties = {"listener.security.protocol.map": "CLIENT:SSL,CONTROLLER:PLAINTEXT"}  # and no certificate
    broker = KafkaCluster(tmp_path / "kafka", port=free_block(2), properties=properties)
    with pytest.raises(KafkaFailed) as failed:
        broker.start()
    assert str(broker.node(1).log) in str(failed.value)
    assert "Fatal error during broker startup" in str(failed.value)
    assert "ConfigException" in str(failed.value)
    assert broker.running == []


def test_a_setting_that_kafka_refuses_is_told_before_it_starts(tmp_path: Path) -> None:
    broker = KafkaCluster(tmp_path / "kafka", port=free_block(2), properties={"process.roles": "dancer"})
    with pytest.raises(KafkaFailed, match="dancer"):
        broker.start()


def test_data_of_one_broker_is_not_taken_for_three(tmp_path: Path) -> None:
    ClusterCard(kafka_version(), new_cluster_id(), brokers=1, port=free_block(2)).write(tmp_path)
    with pytest.raises(ConfigurationError, match="of 1 broker"):
        KafkaCluster(tmp_path, port=free_block(6), brokers=3).start()


def test_a_running_broker_is_not_moved_to_another_port(make_kafka: MakeKafka) -> None:
    broker = make_kafka()
    with pytest.raises(ConfigurationError, match="stop it"):
        KafkaCluster(broker.folder, port=free_block(2)).start()
    broker.stop()
    moved = KafkaCluster(broker.folder, port=free_block(2))
    moved.start()
    assert moved.servers != broker.servers


def test_a_process_that_got_the_number_of_a_dead_broker_is_left_alone(make_kafka: MakeKafka) -> None:
    broker = make_kafka()
    broker.kill()
    (broker.node(1).log.parent / "pid").write_text(f"{os.getpid()} 0\n")
    assert broker.running == []
    broker.kill()
    broker.stop()  # and here we are


def test_what_is_forgotten_is_gone_and_what_others_put_there_is_not(make_kafka: MakeKafka, tmp_path: Path) -> None:
    broker = make_kafka(folder=tmp_path / "kafka")
    (broker.folder / "notes.txt").write_text("mine")
    broker.forget()
    assert broker.running == []
    assert [each.name for each in broker.folder.iterdir()] == ["notes.txt"]


def test_a_broker_in_docker_serves_this_machine_and_is_gone_when_it_is_removed(kafka_tool: KafkaTool) -> None:
    try:
        container, servers = start_container()
    except NoContainer as error:
        unavailable("docker", str(error))
    try:
        create(kafka_tool, servers, "things")
        send(kafka_tool, servers, "things", "one")
        assert read(kafka_tool, servers, "things", 1) == ["one"]
    finally:
        remove_container(container)
    host, _, port = servers.partition(":")
    with pytest.raises(ConnectionError):
        socket.create_connection((host, int(port)), timeout=5)
