"""The configuration of a Kafka for development: pure, from what is wanted to the text of files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pavane.dev.ports import HOST

CLIENT = "CLIENT"
"""The name of the listener for clients and other brokers, as in ``listener.name.client.plain.sasl.jaas.config``."""
_CONTROLLER = "CONTROLLER"


@dataclass(frozen=True, slots=True)
class Layout:
    """Which ports a cluster takes: ``port`` and up for clients, then as many for the controllers. Loopback only."""

    brokers: int
    port: int

    @property
    def ports(self) -> Sequence[int]:
        """All of them."""
        return range(self.port, self.port + 2 * self.brokers)

    def client_port(self, node: int) -> int:
        """Where clients reach node 1, 2 or 3."""
        return self.port + node - 1

    def controller_port(self, node: int) -> int:
        """Where the controllers reach it."""
        return self.port + self.brokers + node - 1


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a cluster is to be. ``properties`` go over ours, in ``server.properties`` of every node."""

    layout: Layout
    cluster_id: str
    properties: Mapping[str, str] = field(default_factory=dict[str, str])


def server_properties(wanted: Wanted, node: int, logs: Path) -> dict[str, str]:
    """The properties of one node: broker and controller in one.

    Small where Kafka's defaults are made for hundreds of brokers; a group's first member and a broker that comes back
    wait for nobody. Topics are made by those who need them, never by a typing error.
    """
    layout = wanted.layout
    copies, needed = (3, 2) if layout.brokers == 3 else (1, 1)
    voters = (f"{each}@{HOST}:{layout.controller_port(each)}" for each in range(1, layout.brokers + 1))
    client = f"{CLIENT}://{HOST}:{layout.client_port(node)}"
    ours: dict[str, str | int] = {
        "process.roles": "broker,controller",
        "node.id": node,
        "controller.quorum.voters": ",".join(voters),
        "controller.listener.names": _CONTROLLER,
        "inter.broker.listener.name": CLIENT,
        "listeners": f"{client},{_CONTROLLER}://{HOST}:{layout.controller_port(node)}",
        "advertised.listeners": client,
        "listener.security.protocol.map": f"{CLIENT}:PLAINTEXT,{_CONTROLLER}:PLAINTEXT",
        "log.dirs": str(logs),
        "auto.create.topics.enable": "false",
        "default.replication.factor": copies,
        "min.insync.replicas": needed,
        "offsets.topic.replication.factor": copies,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": needed,
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": copies,
        "share.coordinator.state.topic.min.isr": needed,
        "share.coordinator.state.topic.num.partitions": 4,
        "group.initial.rebalance.delay.ms": 0,
        "broker.session.timeout.ms": 3000,
        "broker.heartbeat.interval.ms": 500,
        "request.timeout.ms": 5000,
    }
    return {name: str(value) for name, value in ours.items()} | dict(wanted.properties)


def sasl_plain(users: Mapping[str, str]) -> dict[str, str]:
    """Properties that make clients, brokers among them, log in with one of these names and passwords (SASL_PLAINTEXT)."""
    name, password = next(iter(users.items()))
    accounts = " ".join(f'user_{each}="{secret}"' for each, secret in users.items())
    module = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    return {
        "listener.security.protocol.map": f"{CLIENT}:SASL_PLAINTEXT,{_CONTROLLER}:PLAINTEXT",
        "sasl.enabled.mechanisms": "PLAIN",
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        f"listener.name.{CLIENT.lower()}.plain.sasl.jaas.config": (
            f'{module} username="{name}" password="{password}" {accounts};'
        ),
    }


def properties_text(properties: Mapping[str, str]) -> str:
    """Properties as Java reads them from a file."""
    return "".join(f"{name}={_escaped(value)}\n" for name, value in properties.items())


def logging_text(level: str = "INFO") -> str:
    """The log4j2 configuration: everything to standard output."""
    return properties_text(
        {
            "rootLogger.level": level,
            "rootLogger.appenderRef.o.ref": "O",
            "appender.o.type": "Console",
            "appender.o.name": "O",
            "appender.o.layout.type": "PatternLayout",
            "appender.o.layout.pattern": "[%d] %p %c{1}: %m%n",
        }
    )


def _escaped(value: str) -> str:
    text = value.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")
    return "\\" + text if text.startswith(" ") else text
