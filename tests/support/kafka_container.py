"""Kafka by Docker, for tests: the image ``apache/kafka``, which testcontainers' own Kafka container does not know."""

import socket
from typing import cast

from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

from pavane.dev.kafka_jars import kafka_version
from pavane.dev.ports import HOST
from support.docker_cli import daemon_problem, docker, last_line

IMAGE = f"apache/kafka:{kafka_version()}"
_PORT = 9092
_ANSWER_S = 10.0
_PULL_S = 180.0
_START_S = 90
_LIFE_S = 3 * 3600
"""A container that a killed test run left behind ends by itself."""
_SCRIPT = "/tmp/start.sh"
_SETTINGS = {  # once any is set, none of the image's defaults counts
    "KAFKA_NODE_ID": "1",
    "KAFKA_PROCESS_ROLES": "broker,controller",
    "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9094",
    "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
    "KAFKA_INTER_BROKER_LISTENER_NAME": "INSIDE",
    "KAFKA_LISTENERS": f"CLIENT://:{_PORT},INSIDE://:9093,CONTROLLER://:9094",
    "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "CLIENT:PLAINTEXT,INSIDE:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
    "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
    "KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS": "4",
    "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
    "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
    "KAFKA_TRANSACTION_STATE_LOG_NUM_PARTITIONS": "4",
    "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_REPLICATION_FACTOR": "1",
    "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_MIN_ISR": "1",
    "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
    "KAFKA_HEAP_OPTS": "-Xms512m -Xmx512m",
}


class NoContainer(Exception):
    """There is no Kafka to be had by Docker; the message says why."""


class ApacheKafkaContainer(DockerContainer):
    """One broker, reachable from this machine only.

    It must tell its clients the port that Docker gives it, which is known only once it runs. So it starts in two steps:
    the container waits for a script, and the script comes with the port in it.
    """

    def __init__(self) -> None:
        super().__init__(IMAGE, env=dict(_SETTINGS))
        # testcontainers knows no address to bind to, and would open the broker to the network; Docker's client does.
        cast("dict[str, object]", self.ports)[f"{_PORT}/tcp"] = (HOST,)
        self.with_command(["sh", "-c", f"while [ ! -s {_SCRIPT} ]; do sleep 0.05; done; exec timeout {_LIFE_S} sh {_SCRIPT}"])

    @property
    def servers(self) -> str:
        """``bootstrap.servers`` for clients on this machine, which is the only one that the port is open to."""
        return f"{HOST}:{self.get_exposed_port(_PORT)}"

    def start(self) -> "ApacheKafkaContainer":
        """Start it, and return when it serves."""
        super().start()
        try:
            listeners = f"CLIENT://{self.servers},INSIDE://localhost:9093"
            script = f"export KAFKA_ADVERTISED_LISTENERS={listeners}\nexec /etc/kafka/docker/run\n"
            self.copy_into_container(script.encode(), _SCRIPT, mode=0o755)
            LogMessageWaitStrategy("Kafka Server started").with_startup_timeout(_START_S).wait_until_ready(self)
        except BaseException:
            self.stop()
            raise
        return self


def start_container() -> tuple[str, str]:
    """A broker in a container: its id, and its servers. Raises :class:`NoContainer` where that cannot be."""
    if (problem := daemon_problem()) is not None:
        raise NoContainer(problem)
    if docker("image", "inspect", IMAGE).returncode != 0:
        pulled = docker("pull", "--quiet", IMAGE, timeout_s=_PULL_S)
        if pulled.returncode != 0:
            raise NoContainer(f"the image {IMAGE} is not there and cannot be pulled ({last_line(pulled)})")
    # Its reaper would end the container with the worker that started it, and the others still need it.
    testcontainers_config.ryuk_disabled = True
    try:
        container = ApacheKafkaContainer().start()
    except Exception as error:  # a dozen classes of Docker's, of requests' and of testcontainers'
        raise NoContainer(f"{IMAGE} does not start ({type(error).__name__}: {error})") from error
    try:
        _check(container)
        return container.get_container_id(), container.servers
    except BaseException:
        container.stop()
        raise
    finally:
        container.get_docker_client().client.close()


def remove_container(container: str) -> None:
    """End it, whoever started it."""
    docker("rm", "--force", "--volumes", container, timeout_s=60.0)


def _check(container: ApacheKafkaContainer) -> None:
    host, _, port = container.servers.partition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_ANSWER_S).close()
    except OSError as error:
        message = f"nobody answers at {container.servers} ({error}); is the Docker daemon on another machine?"
        raise NoContainer(message) from error
