"""A real Apache Kafka on this machine's loopback interface, without Docker: for development and tests."""

import shutil
import time
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from pavane.dev.cache import cache_folder, locked
from pavane.dev.java import Java, find_java
from pavane.dev.kafka_card import ClusterCard, new_cluster_id
from pavane.dev.kafka_config import Layout, Wanted
from pavane.dev.kafka_jars import KafkaFailed, Tell, java_here, kafka_jars, kafka_version, problems_here, quiet
from pavane.dev.kafka_node import START_S, KafkaNode
from pavane.dev.ports import taken
from pavane_events.errors import ConfigurationError, Problem

PORT = 9092
_LOCK_S = 120.0


def folder_for(port: int) -> Path:
    """Where ``pavane dev kafka --port`` keeps its data if it is not told otherwise."""
    return cache_folder() / "dev" / f"kafka-{port}"


class KafkaCluster:
    """One broker, or three of which one may be lost, with their data in one folder.

    Its nodes outlive this object and this process: whoever names the same folder speaks of the same cluster, sees
    whether it runs, and may stop it. Where it is used as a context manager it ends with the block, and keeps its data.

    With three brokers every topic has three copies unless it is created otherwise, and two must have each record
    (``min.insync.replicas=2``). ``properties`` go over those of ours in every ``server.properties``; they count from the next
    start of a node.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int = PORT,
        brokers: int = 1,
        properties: Mapping[str, str] | None = None,
        heap_mb: int = 512,
        tell: Tell = quiet,
    ) -> None:
        if brokers not in (1, 3):
            raise ConfigurationError(
                "no such cluster", [Problem("brokers", "kafka.brokers", f"there are clusters of 1 and of 3, not of {brokers}")]
            )
        self.folder = folder.absolute()
        self.layout = Layout(brokers, port)
        self.properties = dict(properties or {})
        self.nodes: Sequence[KafkaNode] = tuple(
            KafkaNode(number, self.folder / f"node-{number}", self.layout, self._launch_one)
            for number in range(1, brokers + 1)
        )
        self._heap_mb = heap_mb
        self._tell = tell

    @classmethod
    def found_in(cls, folder: Path) -> Self | None:
        """The cluster whose data lies in that folder, as it was last started; None where there is none."""
        card = ClusterCard.read(folder)
        return None if card is None else cls(folder, port=card.port, brokers=card.brokers)

    @property
    def servers(self) -> str:
        """``bootstrap.servers`` for any client: ``host:port``, with three brokers three of them with commas."""
        return ",".join(node.address for node in self.nodes)

    @property
    def url(self) -> str:
        """What ``PAVANE_BUS`` is to be."""
        return f"kafka://{self.servers}"

    @property
    def running(self) -> Sequence[KafkaNode]:
        """The nodes that have a process now."""
        return [node for node in self.nodes if node.pid is not None]

    def node(self, number: int) -> KafkaNode:
        """Node 1, 2 or 3."""
        return self.nodes[number - 1]

    def start(self, timeout_s: float = START_S) -> None:
        """Start what does not run, and return when every node serves. Idempotent, also between processes.

        Raises :class:`ConfigurationError`, with every problem, where it cannot work here (no Java, a port taken, data
        of another cluster); :class:`KafkaFailed`, with the end of the log, where a node does not come up: then those
        that this call started are gone again.
        """
        with self._alone():
            running = self.running
            try:
                self._launch(self.nodes)
                give_up = time.monotonic() + timeout_s
                for node in self.nodes:
                    node.await_ready(give_up)
            except BaseException:
                for node in self.nodes:
                    if node not in running:
                        node.kill()
                raise

    def check(self) -> None:
        """Raise :class:`KafkaFailed`, with the end of its log, where a node has ended that nobody stopped or killed here."""
        if any(node.has_vanished for node in self.nodes):
            with self._alone():  # or else somebody else may be just about to note that it was stopped
                for node in self.nodes:
                    node.check()

    def stop(self) -> None:
        """Stop all nodes gracefully; the data stays. Idempotent."""
        if not self.folder.exists():
            return
        with self._alone():
            for node in self.nodes:
                node.ask_to_stop()
            for node in self.nodes:
                node.await_stop()
            java = find_java()
            if isinstance(java, Java):
                self.node(1).keep_archive(java)

    def kill(self) -> None:
        """End all nodes at once; the data stays. Idempotent."""
        for node in self.nodes:
            node.kill()

    def forget(self) -> None:
        """Stop it and delete its data: what this made in its folder, and the folder where nothing else is in it."""
        self.kill()
        for node in self.nodes:
            shutil.rmtree(self.folder / f"node-{node.number}", ignore_errors=True)
        ClusterCard.remove(self.folder)
        (self.folder / "lock").unlink(missing_ok=True)
        with suppress(OSError):  # something else is in it, or it is a file system of its own
            self.folder.rmdir()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    @contextmanager
    def _alone(self) -> Generator[None]:
        try:
            with locked(self.folder / "lock", timeout_s=_LOCK_S):
                yield
        except TimeoutError as error:
            raise KafkaFailed(str(error)) from None

    def _launch_one(self, node: KafkaNode) -> None:
        with self._alone():
            self._launch([node])

    def _launch(self, nodes: Sequence[KafkaNode]) -> None:
        card = ClusterCard.read(self.folder)
        problems = [*problems_here(), *self._problems_of_data(card), *self._problems_of_ports(nodes)]
        if problems:
            raise ConfigurationError("Kafka cannot be started", problems)
        java, libs = java_here(), kafka_jars(self._tell)
        cluster_id = card.cluster_id if card is not None else new_cluster_id()
        ClusterCard(kafka_version(), cluster_id, self.layout.brokers, self.layout.port).write(self.folder)
        wanted = Wanted(self.layout, cluster_id, self.properties)

        def launch(node: KafkaNode) -> None:
            node.launch(wanted, java, libs, self._heap_mb)

        with ThreadPoolExecutor(len(nodes)) as pool:  # a new node formats its folder first, which is a Java of its own
            deque(pool.map(launch, nodes), maxlen=0)

    def _problems_of_data(self, card: ClusterCard | None) -> Sequence[Problem]:
        if card is None:
            return []
        if card.brokers != self.layout.brokers:
            held = f"{self.folder} holds the data of {card.brokers} broker(s), not of {self.layout.brokers}"
            message = f"{held}; forget it (stop --forget), or name another folder"
            return [Problem("brokers", "kafka.other-brokers", message)]
        if card.port != self.layout.port and self.running:
            message = f"the cluster in {self.folder} runs on port {card.port}; stop it before it moves to {self.layout.port}"
            return [Problem("port", "kafka.other-port", message)]
        return []

    def _problems_of_ports(self, nodes: Sequence[KafkaNode]) -> Sequence[Problem]:
        layout = self.layout
        idle = [node.number for node in nodes if node.pid is None]
        wanted = [*map(layout.client_port, idle), *map(layout.controller_port, idle)]
        occupied = taken(wanted)
        if not occupied:
            return []
        message = (
            f"another program listens on {', '.join(map(str, occupied))}; stop it, or choose another --port "
            f"({layout.brokers} broker(s) take {len(layout.ports)} ports from there on)"
        )
        return [Problem(f"port {occupied[0]}", "kafka.port", message)]
