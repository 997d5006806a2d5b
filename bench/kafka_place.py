"""Where a benchmark runs: a broker of its own, a deployment of its own on it, and what the broker's processor spent."""

import os
import shutil
import tempfile
import uuid
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pavane.agent import Agent
from pavane.dev.kafka import KafkaCluster
from pavane.dev.ports import free_block
from pavane.plan import plan_of
from pavane_events.buses.kafka.bus import KafkaBus
from pavane_events.buses.kafka.options import KafkaOptions
from pavane_events.buses.kafka.provision import apply
from pavane_events.topics import wanted_topics
from pavane_saga.coordinator import topic_specs
from pavane_saga.saga import Saga
from pavane_saga.wire import COORDINATOR

_TICKS = os.sysconf("SC_CLK_TCK")
_HEAP_MB = 1024
PACE = KafkaOptions().pace
"""That of the adapter's own options."""


@dataclass(frozen=True, slots=True)
class Broker:
    """Brokers for everything that is measured. ``pids``: theirs, where they are this benchmark's own."""

    servers: str
    pids: tuple[int, ...]

    def cpu_s(self) -> float:
        """Processor time that the brokers took so far; 0 where they are somebody else's."""
        return sum(map(cpu_of, self.pids))


@dataclass(frozen=True, slots=True)
class Place:
    """A deployment on a broker: nobody else has its topics and groups. ``pace`` is the option of that name."""

    broker: Broker
    prefix: str
    partitions: int = 4
    session_ms: int = 10_000
    pace: float = PACE

    @classmethod
    def fresh(cls, broker: Broker, partitions: int = 4) -> "Place":
        """A deployment that nobody has used yet."""
        return cls(broker, f"b-{uuid.uuid4().hex[:8]}.", partitions)

    @property
    def options(self) -> KafkaOptions:
        """The adapter's options: its defaults, under a prefix."""
        return KafkaOptions(prefix=self.prefix, session_ms=self.session_ms, pace=self.pace)

    async def open(self) -> KafkaBus:
        """The bus of this deployment."""
        return await KafkaBus.open(self.broker.servers, self.partitions, self.options)

    async def create(self, agents: Sequence[Agent], sagas: Sequence[Saga] = ()) -> None:
        """What ``pavane topics apply`` does."""
        specs = [spec for agent in agents for spec in plan_of(agent).topic_specs()]
        groups = [agent.name for agent in agents]
        if sagas:
            specs += topic_specs(sagas)
            groups.append(COORDINATOR)
        wanted = wanted_topics(specs, groups, self.options.topic_rules)
        await apply(self.broker.servers, self.options, wanted, self.partitions)

    def to_json(self) -> dict[str, object]:
        """For a child process."""
        return {
            "servers": self.broker.servers,
            "prefix": self.prefix,
            "partitions": self.partitions,
            "session_ms": self.session_ms,
            "pace": self.pace,
        }

    def patient(self, session_ms: int) -> "Place":
        """The same with another session time-out."""
        return replace(self, session_ms=session_ms)

    def paced(self, pace: float) -> "Place":
        """The same with another pace."""
        return replace(self, pace=pace)


@contextmanager
def a_broker(servers: str | None, directory: Path | None) -> Generator[Broker]:
    """One broker on the loopback interface, gone with its data at the end; or those that are named."""
    if servers is not None:
        yield Broker(servers, ())
        return
    folder = Path(tempfile.mkdtemp(prefix="pavane-bench-", dir=directory))
    cluster = KafkaCluster(folder / "kafka", port=free_block(2), heap_mb=_HEAP_MB)
    try:
        cluster.start()
        yield Broker(cluster.servers, tuple(node.pid for node in cluster.nodes if node.pid is not None))
    finally:
        cluster.forget()
        shutil.rmtree(folder, ignore_errors=True)


def cpu_of(pid: int) -> float:
    """Seconds of processor time that a process has taken, its ended children aside."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def memory_of(pid: int) -> dict[str, float]:
    """What a process holds in memory, in MB: now (``rss_mb``) and at most (``peak_mb``)."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines())
    return {"rss_mb": int(lines["VmRSS"].split()[0]) / 1024, "peak_mb": int(lines["VmHWM"].split()[0]) / 1024}
