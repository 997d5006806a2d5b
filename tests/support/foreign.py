"""Foreign clients at a shop on a real Kafka: the agent without Pavane as a process, and records as others see them."""

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Message, Producer, TopicPartition
from examples import shop

from pavane import Agent
from pavane.plan import plan_of
from pavane_events.buses.kafka.bus import KafkaBus
from pavane_events.buses.kafka.options import KafkaOptions
from support.kafka import Kafka
from support.require import unavailable
from support.stage import Stage, stage

ROOT = Path(__file__).parents[2]
AGENT = ROOT / "examples/foreign_agent.py"
DOOMED = ROOT / "tests/support/foreign_doomed.py"
PARTITIONS = 4
_LAST_CHARACTERS = 4_000
_TOOL_S = 60.0
_END_S = 20.0
_WORK_S = 60.0


@dataclass
class ForeignAgent:
    """The agent ``payment`` as processes of its own, one after another, on one ledger."""

    servers: str
    prefix: str
    folder: Path
    instance: str = "0"
    process: "subprocess.Popen[bytes] | None" = None

    def another(self, instance: str) -> "ForeignAgent":
        """A further member of the same group, on the same ledger."""
        return ForeignAgent(self.servers, self.prefix, self.folder, instance)

    @property
    def log(self) -> Path:
        """All that its processes said."""
        return self.folder / f"payment-{self.instance}.log"

    def start(self, *, doom: Literal["KILL", "STOP"] | None = None) -> None:
        """Start it, or start it again. ``doom``: the signal that strikes it between its first answer and the commit."""
        settings = {"SERVERS": self.servers, "PREFIX": self.prefix, "INSTANCE": self.instance, "PYTHONPATH": str(ROOT)}
        settings |= {"DOOM": doom} if doom is not None else {}
        program = AGENT if doom is None else DOOMED
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(program)], cwd=self.folder, stdout=log, stderr=log, env={**os.environ, **settings}
            )

    def stop(self) -> int:
        """Tell it to stop; how it ended."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(_END_S)

    def wait(self) -> int:
        """Wait until it has worked, and ends of it; how it ended."""
        assert self.process is not None
        return self.process.wait(_WORK_S)

    def wait_for_stop(self) -> None:
        """Wait until it has worked, and is stopped, as by SIGSTOP."""
        assert self.process is not None
        state = Path(f"/proc/{self.process.pid}/stat")
        give_up = time.monotonic() + _WORK_S
        while state.read_text().rpartition(") ")[2][0] != "T":
            assert time.monotonic() < give_up, "it was not stopped"
            time.sleep(0.02)

    def go_on(self) -> None:
        """Wake it up, as by SIGCONT."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it as ``kill -9`` does, wherever it is; nothing where it has ended."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(_END_S)

    def last_words(self) -> str:
        """The end of what its processes said."""
        said = self.log.read_text() if self.log.exists() else ""
        return f"{self.log.name} says at last:\n{said[-_LAST_CHARACTERS:]}"

    def charges(self) -> list[int]:
        """The cents of each charge that stands, as its ledger says; none before its first start."""
        with closing(sqlite3.connect(self.folder / "charges.db")) as ledger:
            found = cast("list[tuple[int]]", ledger.execute("SELECT cents FROM charges WHERE NOT undone").fetchall())
        return [cents for (cents,) in found]


@dataclass
class Shop:
    """The shop on Kafka: warehouse, shipping and coordinator by Pavane, payment by a foreigner."""

    kafka: Kafka
    prefix: str
    stage: Stage
    payment: ForeignAgent
    _producers: list[Producer] = field(default_factory=list[Producer])

    def write(
        self, topic: str, key: str, value: bytes, headers: Sequence[tuple[str, bytes]], partition: int | None = None
    ) -> None:
        """A record by librdkafka, partitioned as the protocol says unless told where to lie."""
        producer = Producer({"bootstrap.servers": self.kafka.servers, "partitioner": "murmur2_random"})
        producer.produce(self.prefix + topic, value, key, -1 if partition is None else partition, headers=list(headers))
        assert producer.flush(_TOOL_S) == 0

    def read(self, topic: str, *, committed: bool = True) -> list[Message]:
        """What lies on a topic, by librdkafka; ``committed=False``: also what no transaction committed."""
        isolation = "read_committed" if committed else "read_uncommitted"
        settings = {"group.id": f"{self.prefix}reader", "isolation.level": isolation, "enable.partition.eof": True}
        settings |= {"fetch.wait.max.ms": 20}
        consumer = Consumer({"bootstrap.servers": self.kafka.servers, "enable.auto.commit": False, **settings})
        found: list[Message] = []
        ends = 0
        try:
            consumer.assign([TopicPartition(self.prefix + topic, each, OFFSET_BEGINNING) for each in range(PARTITIONS)])
            while ends < PARTITIONS:
                record = consumer.poll(_TOOL_S)
                assert record is not None, f"{topic} cannot be read"
                error = record.error()
                if error is None:
                    found.append(record)
                elif error.name() == "_PARTITION_EOF":
                    ends += 1
                else:
                    raise KafkaException(error)
        finally:
            consumer.close()
        return found

    def kcat(self, *arguments: str, stdin: str = "") -> str:
        """What kcat said to these arguments. Skips the test, or fails it, where there is no kcat."""
        program = shutil.which("kcat") or shutil.which("kafkacat")
        if program is None:
            unavailable("kafka", "kcat is not installed: apt-get install kcat")
        command = [program, "-q", "-b", self.kafka.servers, *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=_TOOL_S, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


@asynccontextmanager
async def shop_on(
    kafka: Kafka, prefix: str, folder: Path, agents: Sequence[Agent] = (shop.warehouse, shop.shipping)
) -> AsyncGenerator[Shop]:
    """The shop, open for orders as soon as its payment is; everything of it in this folder."""
    payment = ForeignAgent(kafka.servers, prefix, folder)
    try:
        async with await KafkaBus.open(kafka.servers, PARTITIONS, KafkaOptions(prefix=prefix)) as bus:
            await bus.create_topics(plan_of(shop.payment).topic_specs())
            async with stage(agents, [shop.order], bus=bus) as running:
                yield Shop(kafka, prefix, running, payment)
    except BaseException as error:
        error.add_note(payment.last_words())
        raise
    finally:
        await asyncio.to_thread(payment.kill)


def raw_headers(record: Message) -> list[tuple[str, bytes]]:
    """A record's headers, in order."""
    return cast("list[tuple[str, bytes]]", record.headers() or [])


def texts(record: Message) -> dict[str, str]:
    """A record's headers as text, each of which is there once."""
    pairs = raw_headers(record)
    named = {name: value.decode() for name, value in pairs}
    assert len(named) == len(pairs), pairs
    return named


def reasons(record: Message) -> Mapping[str, str]:
    """Why a record is a dead letter."""
    named = [(name, value.decode()) for name, value in raw_headers(record) if name.startswith("pavane_")]
    return {name.removeprefix("pavane_"): value for name, value in named}


KILLED = -signal.SIGKILL
