"""The shop's agent "payment" without Pavane: written from docs/reference/protocol.md, with confluent-kafka alone.

It stands in for the ``payment`` of ``examples/shop.py``: it charges orders, and takes a charge back when it is told to.

SERVERS=127.0.0.1:9092 python examples/foreign_agent.py

One record is one transaction. After any error it begins anew where its lanes stand; a process that was killed does no more.
"""

import json
import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple, cast
from uuid import UUID, uuid4, uuid5

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Message, Producer, TopicPartition

AGENT, STEP, VERSION = "payment", "payment/charge", "payment@1"
TAKES, GIVES, UNDO = "shop.order-placed", "shop.charged", "pavane.undo"
COMMANDS, DEAD_LETTERS, FACTS, ENDS = f"{AGENT}.commands", f"{AGENT}.dead-letters", "pavane.facts", "pavane.ends"
NAMESPACE = UUID("8f2d9c1e-6b7a-5d43-9e0f-7061766e6521")
MOST_CENTS = 500_000
WAIT_S = 30.0

Headers = dict[str, str]
Json = dict[str, object]


class Out(NamedTuple):
    """A record to be written; without ``partition`` its key decides."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()
    partition: int = -1


class Unfit(Exception):
    """A record that is no event, or not where it belongs: a code, a place, and what is wrong there."""


def derived(*parts: str) -> str:
    """An id that is the same on every re-run."""
    return str(uuid5(NAMESPACE, "\x1f".join(parts)))


def murmur2(key: bytes) -> int:
    """Kafka's hash of a key, made positive."""
    mask, m, h = 0xFFFFFFFF, 0x5BD1E995, 0x9747B28C ^ len(key)
    whole = len(key) & ~3
    for at in range(0, whole, 4):
        k = int.from_bytes(key[at : at + 4], "little") * m & mask
        h = h * m & mask ^ (k ^ k >> 24) * m & mask
    if key[whole:]:
        h = (h ^ int.from_bytes(key[whole:], "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return (h ^ h >> 15) & 0x7FFFFFFF


def event(topic: str, kind: str, identity: str, data: Json, cause: Headers, **more: str) -> Out:
    """An event of the cause's saga, under the cause's trace."""
    own = {"specversion": "1.0", "id": identity, "source": f"/agents/{AGENT}", "type": kind} | more
    own["time"] = datetime.now(UTC).isoformat()
    headers = {"content-type": "application/json"} | {f"ce_{name}": text for name, text in own.items()}
    headers |= {name: cause[name] for name in ("ce_sagaid", "traceparent", "tracestate") if name in cause}
    key = cause["ce_sagaid"].encode() if cause else None
    return Out(topic, key, json.dumps(data).encode(), [(name, text.encode()) for name, text in headers.items()])


def fact(kind: str, identity: str, cause: Headers, **data: object) -> Out:
    """What no event says: a settlement, or what became of an undo."""
    named = derived("fact", cause["ce_sagaid"], kind, identity)
    return event(FACTS, f"pavane.fact.{kind}", named, {"fact": kind, **data}, cause)


def settled(how: str, code: str, reason: str, cause: Headers, *, began: bool) -> Out:
    """The answer of a step that gives no event: it failed, or was skipped."""
    more = {"how": how, "began": began, "code": code, "reason": reason, "declaration": VERSION}
    return fact(
        "settled", f"s:{STEP}|{how}|{began:d}|{code}|{cause['ce_id']}", cause, step=STEP, causes=[cause["ce_id"]], **more
    )


def charged(order: Json, cause: Headers) -> Out:
    """The step's event, in answer to its one input."""
    more = {"dataschema": f"urn:pavane:{GIVES}:1", "depth": str(int(cause.get("ce_depth", "0")) + 1), "part": "1/1"}
    more |= {"step": STEP, "causationid": cause["ce_id"], "causes": json.dumps([cause["ce_id"]]), "declaration": VERSION}
    more |= {"subject": cause["ce_subject"]} if "ce_subject" in cause else {}
    identity = derived("output", cause["ce_sagaid"], STEP, cause["ce_id"], "1")
    return event(GIVES, GIVES, identity, {"order": order["order"], "cents": order["cents"]}, cause, **more)


def declared(since: dict[str, int]) -> Json:
    """The steps of this agent, and from which offsets of a lane on they answer. Without any: its manifest."""
    step = {"name": STEP, "consumes": [[TAKES]], "produces": [GIVES], "effects": True}
    return {"fact": "declared", "agent": AGENT, "version": VERSION, "steps": [step], "since": since}


def dead_letter(topic: str, record: Message, code: str, where: str, message: str) -> Out:
    """The record as it came, and why it was given up."""
    place = {"source_topic": topic, "source_partition": str(record.partition()), "source_offset": str(record.offset())}
    problems = json.dumps([{"where": where, "code": code, "message": message}])
    reason = {"error_code": code, "error_step": STEP, "error_version": VERSION, "error_problems": problems, **place}
    headers = [*raw_headers(record), *((f"pavane_{name}", text.encode()) for name, text in reason.items())]
    return Out(DEAD_LETTERS, record.key(), record.value(), headers, record.partition() or 0)


def raw_headers(record: Message) -> list[tuple[str, bytes]]:
    """A record's headers, in order, doubled ones too."""
    return cast("list[tuple[str, bytes]]", record.headers() or [])


def read(topic: str, record: Message, partitions: int) -> Headers:
    """The headers of a saga's event that lies where it belongs. Raises :class:`Unfit`."""
    found: Headers = {}
    for name, value in raw_headers(record):
        if name.lower() in found and name.lower() not in ("tracestate", "baggage"):
            raise Unfit("header.doubled", name.lower(), "the header is there more than once: send it once")
        found[name.lower()] = value.decode(errors="replace")
    for name in ("ce_specversion", "ce_id", "ce_source", "ce_type", "ce_sagaid"):
        if not found.get(name):
            raise Unfit("attribute.missing", name, "the attribute is required and must not be empty")
    key = found["ce_sagaid"].encode()
    if record.key() != key:
        raise Unfit("key.mismatch", "key", "the record's key must be its saga id")
    if murmur2(key) % partitions != record.partition():
        raise Unfit("partition.misplaced", "partition", "the record is not where murmur2 of its key puts it")
    if found["ce_type"] != (TAKES if topic == TAKES else UNDO):
        raise Unfit("topic.mismatch", "ce_type", f"an event of type {found['ce_type']} does not belong on topic {topic}")
    return found


class Ledger:
    """Charges by idempotency key. An undone key is a fence: a charge that comes late with it is refused."""

    def __init__(self, path: str) -> None:
        self.db = sqlite3.connect(path)
        self.db.execute("CREATE TABLE IF NOT EXISTS charges (key TEXT PRIMARY KEY, cents INT, undone INT NOT NULL)")

    def charge(self, key: str, cents: int) -> bool:
        """Charge once; False where it was undone before."""
        with self.db:
            self.db.execute("INSERT INTO charges VALUES (?, ?, 0) ON CONFLICT DO NOTHING", (key, cents))
            found: object = self.db.execute("SELECT undone FROM charges WHERE key = ?", (key,)).fetchone()
        return found == (0,)

    def refund(self, key: str) -> None:
        """Take a charge back, whether or not it is known to have been made, however often."""
        with self.db:
            self.db.execute("INSERT INTO charges VALUES (?, 0, 1) ON CONFLICT DO UPDATE SET undone = 1", (key,))


class Payment:
    """What the agent does, without Kafka: a record comes to records."""

    def __init__(self, partitions: int, deployment: str, ledger: Ledger) -> None:
        self.partitions, self.deployment, self.ledger = partitions, deployment, ledger
        self.ended: set[str] = set()

    def answer(self, topic: str, record: Message, maybe_begun: bool) -> list[Out]:
        """What a record comes to. ``maybe_begun``: a process that died may have worked on it."""
        try:
            cause = read(topic, record, self.partitions)
            data = cast("Json", json.loads(record.value() or b""))
        except Unfit as unfit:
            return [dead_letter(topic, record, *map(str, unfit.args))]
        except ValueError:
            return [dead_letter(topic, record, "value.json", "value", "not JSON")]
        if topic == COMMANDS:
            return [self.undo(data, cause)]
        answer = self.charge(data, cause, maybe_begun)
        if answer is not None:
            return [answer]
        problem = "an order has a number, and cents above zero"
        refused = settled("failed", "contract", problem, cause, began=False)
        return [refused, dead_letter(topic, record, "contract", "value", problem)]

    def charge(self, order: Json, cause: Headers, maybe_begun: bool) -> Out | None:
        """Do the step, or say why not; None where that is no order."""
        if cause["ce_sagaid"] in self.ended:
            return settled("failed" if maybe_begun else "skipped", "saga.ended", "", cause, began=maybe_begun)
        cents = order.get("cents")
        if not isinstance(order.get("order"), str) or not isinstance(cents, int) or cents <= 0:
            return None
        if cents > MOST_CENTS:
            return settled("failed", "rejected", "the card is good for 5,000.00", cause, began=True)
        if not self.ledger.charge(self.key(cause, [cause["ce_id"]]), cents):
            return settled("failed", "effect.undone", "it was undone before and stays undone", cause, began=True)
        return charged(order, cause)

    def undo(self, command: Json, cause: Headers) -> Out:
        """Take a step back, by the ids of its inputs: the inputs themselves are in the command, too."""
        step, causes = str(command["step"]), sorted(cast("list[str]", command["causes"]))
        if step != STEP:
            code, reason = "undo.no-step", "this agent has no such step"
            again = {"retry": command["retry"]} if "retry" in command else {}  # a person asked once more
            identity = "|".join([f"v:{step}", code, ",".join(causes), *map(str, again.values())])
            return fact("undofailed", identity, cause, step=step, causes=causes, code=code, reason=reason, **again)
        self.ledger.refund(self.key(cause, causes))
        return fact("undone", f"u:{step}|{','.join(causes)}", cause, step=step, causes=causes)

    def key(self, cause: Headers, causes: list[str]) -> str:
        """The name of the step's effect: the same in step and undo, on every re-run."""
        return derived("effect", self.deployment, cause["ce_sagaid"], STEP, *causes)


class Member:
    """One process of the agent: one member of its consumer group. Processes that run at once need an instance each."""

    def __init__(self, servers: str, prefix: str, instance: str, deployment: str, ledger: Ledger) -> None:
        self.prefix = prefix
        self.granted: list[TopicPartition] = []
        self.first: set[tuple[str, int]] = set()
        name, instance = f"{prefix}{AGENT}", f"{prefix}{AGENT}-{instance}"
        group = {"group.id": name, "group.instance.id": instance, "partition.assignment.strategy": "range"}
        reading = {"isolation.level": "read_committed", "enable.auto.commit": False, "auto.offset.reset": "error"}
        writing = {"transactional.id": instance, "transaction.timeout.ms": 10_000, "partitioner": "murmur2_random"}
        self.consumer = Consumer({"bootstrap.servers": servers, "session.timeout.ms": 10_000, **group, **reading})
        self.producer = Producer({"bootstrap.servers": servers, **writing})
        partitions = len(self.consumer.list_topics(prefix + FACTS, WAIT_S).topics[prefix + FACTS].partitions)
        self.payment = Payment(partitions, deployment, ledger)

    def run(self, stopping: threading.Event) -> None:
        """Work until told to stop."""
        self.producer.init_transactions(WAIT_S)  # ends what a killed process of this instance left open
        self.transact([Out("pavane.agents", f"agent:{AGENT}".encode(), json.dumps(declared({})).encode())], [])
        self.consumer.subscribe([self.prefix + each for each in (TAKES, COMMANDS, ENDS)], on_assign=self.assigned)
        while not stopping.is_set():
            record = self.consumer.poll(0.5)
            if self.granted:
                self.begin()
            if record is not None:
                self.take(record)

    def assigned(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        """The group has shared out the lanes. What is raised in here would be lost, so the work is done outside."""
        self.granted = places
        consumer.assign([])

    def begin(self) -> None:
        """Begin where the lanes stand; a lane that has not heard of this version is told.

        Ends are read from the first one, always: so tombstones need no other store.
        """
        places, self.granted = self.granted, []
        ends = [TopicPartition(each.topic, each.partition, OFFSET_BEGINNING) for each in places if each.topic.endswith(ENDS)]
        found = self.consumer.committed([each for each in places if not each.topic.endswith(ENDS)], timeout=WAIT_S)
        for each in found:
            if each.offset < 0:
                each.offset = self.consumer.get_watermark_offsets(each, timeout=WAIT_S)[1]
        new = [each for each in found if each.metadata != VERSION]
        outs: list[Out] = []
        for each in new:
            if each.topic == self.prefix + TAKES:
                out = event(FACTS, "pavane.fact.declared", str(uuid4()), declared({TAKES: each.offset}), {})
                outs.append(out._replace(partition=each.partition))
        if new:
            self.transact(outs, new)
        self.consumer.assign([*found, *ends])
        self.first = {(each.topic, each.partition) for each in found}

    def take(self, record: Message) -> None:
        """Work on one record: what it comes to and its offset are one transaction."""
        error, topic, partition = record.error(), str(record.topic()), record.partition() or 0
        if error is not None:
            raise KafkaException(error)
        if topic == self.prefix + ENDS:
            self.payment.ended.add((record.key() or b"").decode())
            return
        outs = self.payment.answer(topic.removeprefix(self.prefix), record, (topic, partition) in self.first)
        self.transact(outs, [TopicPartition(topic, partition, (record.offset() or 0) + 1)])
        self.first.discard((topic, partition))

    def transact(self, outs: Sequence[Out], done: Sequence[TopicPartition]) -> None:
        """Write all of it, or nothing. Offsets carry the version: so a lane knows for which it was declared."""
        self.producer.begin_transaction()
        for out in outs:
            self.producer.produce(self.prefix + out.topic, out.value, out.key, out.partition, headers=list(out.headers))
        offsets = [TopicPartition(each.topic, each.partition, each.offset, VERSION) for each in done]
        if offsets:
            self.producer.send_offsets_to_transaction(offsets, self.consumer.consumer_group_metadata(), WAIT_S)
        self.producer.commit_transaction(WAIT_S)  # fails if anything was not delivered


def main() -> None:
    """Run one process of the agent until SIGTERM. Settings are environment variables."""
    usual = {"SERVERS": "127.0.0.1:9092", "PREFIX": "", "INSTANCE": "0", "DEPLOYMENT": "pavane"}
    servers, prefix, instance, deployment = (os.environ.get(name, value) for name, value in usual.items())
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: stopping.set())
    while not stopping.is_set():
        member = Member(servers, prefix, instance, deployment, Ledger("charges.db"))
        try:
            member.run(stopping)
        except KafkaException as error:
            print(f"beginning anew: {error}", file=sys.stderr)
            stopping.wait(1.0)
        finally:
            member.consumer.close()


if __name__ == "__main__":
    main()
