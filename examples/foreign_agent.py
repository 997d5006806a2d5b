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
from datetime import UTC, datetime
from typing import cast
from uuid import UUID, uuid4, uuid5

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Message, Producer, TopicPartition, murmur2

SERVERS, PREFIX = os.environ.get("SERVERS", "127.0.0.1:9092"), os.environ.get("PREFIX", "")
INSTANCE, DEPLOYMENT = os.environ.get("INSTANCE", "0"), os.environ.get("DEPLOYMENT", "pavane")

AGENT, STEP, VERSION = "payment", "payment/charge", "payment@1"
TAKES, GIVES = "shop.order-placed", "shop.charged"
COMMANDS, DEAD_LETTERS, FACTS, ENDS = f"{AGENT}.commands", f"{AGENT}.dead-letters", "pavane.facts", "pavane.ends"
NAMESPACE = UUID("8f2d9c1e-6b7a-5d43-9e0f-7061766e6521")
PARTED = ("tracestate", "baggage")
MOST_CENTS, WAIT_S = 500_000, 30.0

MEMBER = f"{PREFIX}{AGENT}-{INSTANCE}"  # processes that run at once need an instance each
GROUP = {"group.id": PREFIX + AGENT, "group.instance.id": MEMBER, "partition.assignment.strategy": "range"}
READING = {"isolation.level": "read_committed", "enable.auto.commit": False, "auto.offset.reset": "error"}
LOOKING = {"topic.metadata.refresh.interval.ms": 5_000}  # so soon a topic is seen that is made later
WRITING = {"transactional.id": MEMBER, "transaction.timeout.ms": 10_000, "partitioner": "murmur2_random"}

Headers = dict[str, str]
Json = dict[str, object]
Out = tuple[str, bytes | None, bytes | None, list[tuple[str, bytes]], int]
"""A record to be written: topic, key, value, headers, partition. The partition is -1 where the key decides."""


def derived(*parts: str) -> str:
    """An id that is the same on every re-run."""
    return str(uuid5(NAMESPACE, "\x1f".join(parts)))


def event(topic: str, kind: str, identity: str, data: Json, cause: Headers, **more: str) -> Out:
    """An event of the cause's saga, under the cause's trace."""
    own = {"specversion": "1.0", "id": identity, "source": f"/agents/{AGENT}", "type": kind, **more}
    own["time"] = datetime.now(UTC).isoformat()
    headers = {"content-type": "application/json"} | {f"ce_{name}": text for name, text in own.items()}
    headers |= {name: cause[name] for name in ("ce_sagaid", "traceparent", "tracestate") if name in cause}
    key = cause["ce_sagaid"].encode() if cause else None
    return topic, key, json.dumps(data).encode(), [(name, text.encode()) for name, text in headers.items()], -1


def fact(kind: str, identity: str, cause: Headers, **data: object) -> Out:
    """What no event says: a settlement, or what became of an undo."""
    named = derived("fact", cause["ce_sagaid"], kind, identity)
    return event(FACTS, f"pavane.fact.{kind}", named, {"fact": kind, **data}, cause)


def settled(how: str, code: str, reason: str, cause: Headers, *, began: bool) -> Out:
    """The answer of a step that gives no event: it failed, or was skipped."""
    causes, identity = [cause["ce_id"]], f"s:{STEP}|{how}|{began:d}|{code}|{cause['ce_id']}"
    said = {"step": STEP, "causes": causes, "how": how, "began": began, "code": code, "reason": reason}
    return fact("settled", identity, cause, **said, declaration=VERSION)


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


def declaration(lane: TopicPartition) -> Out:
    """What a lane is told once per version: from its offset on, this agent answers."""
    topic, key, value, headers, _ = event(FACTS, "pavane.fact.declared", str(uuid4()), declared({TAKES: lane.offset}), {})
    return topic, key, value, headers, lane.partition


def parsed(value: bytes | None) -> Json | None:
    """A record's data, where it is one JSON object."""
    try:
        found: object = json.loads(value or b"")
    except ValueError:
        return None
    return cast("Json", found) if isinstance(found, dict) else None


def problems(topic: str, record: Message, partitions: int) -> list[tuple[str, str, str]]:
    """Why a record is no event of a saga that lies where it belongs: rules that it breaks, where, and what is wrong."""
    names, found = [name.lower() for name, _ in raw_headers(record)], headers_of(record)
    key, kind = found.get("ce_sagaid", "").encode(), "pavane.undo" if topic == COMMANDS else topic
    needed = ("ce_specversion", "ce_id", "ce_source", "ce_type", "ce_sagaid")
    once = {name: name in PARTED or names.count(name) == 1 for name in names}
    rules = [
        *(("header.doubled", name, good, "the header is there more than once: send it once") for name, good in once.items()),
        *(("attribute.missing", name, found.get(name), "it is required and must not be empty") for name in needed),
        ("key.mismatch", "key", record.key() == key, "the record's key must be its saga id"),
        ("partition.misplaced", "partition", murmur2(key, partitions) == record.partition(), "murmur2 puts it elsewhere"),
        ("topic.mismatch", "ce_type", found.get("ce_type") == kind, f"only events of type {kind} belong on {topic}"),
        ("value.json", "value", parsed(record.value()) is not None, "the value must be one JSON object"),
    ]
    return [(code, where, message) for code, where, holds, message in rules if not holds]


def dead_letter(topic: str, record: Message, found: list[tuple[str, str, str]]) -> Out:
    """The record as it came, and why it was given up."""
    place = {"source_topic": topic, "source_partition": str(record.partition()), "source_offset": str(record.offset())}
    listed = [{"where": where, "code": code, "message": message} for code, where, message in found]
    code = found[0][0] if len(found) == 1 else "undecodable"
    reason = {"error_code": code, "error_step": STEP, "error_version": VERSION, "error_problems": json.dumps(listed), **place}
    headers = [*raw_headers(record), *((f"pavane_{name}", text.encode()) for name, text in reason.items())]
    return DEAD_LETTERS, record.key(), record.value(), headers, record.partition() or 0


def raw_headers(record: Message) -> list[tuple[str, bytes]]:
    """A record's headers, in order, doubled ones too."""
    return cast("list[tuple[str, bytes]]", record.headers() or [])


def headers_of(record: Message) -> Headers:
    """A record's headers as text, whatever the case of their names. Those that may come in parts are joined in their order."""
    found = [(name.lower(), value.decode(errors="replace")) for name, value in raw_headers(record)]
    return {name: ",".join(part for each, part in found if each == name) if name in PARTED else last for name, last in found}


def open_ledger(path: str) -> sqlite3.Connection:
    """Charges by idempotency key."""
    ledger = sqlite3.connect(path)
    ledger.execute("CREATE TABLE IF NOT EXISTS charges (key TEXT PRIMARY KEY, cents INT, undone INT NOT NULL)")
    return ledger


def charge(ledger: sqlite3.Connection, key: str, cents: int) -> bool:
    """Charge once; False where it was undone before: an undone key is a fence for a charge that comes late."""
    with ledger:
        ledger.execute("INSERT INTO charges VALUES (?, ?, 0) ON CONFLICT DO NOTHING", (key, cents))
        found: object = ledger.execute("SELECT undone FROM charges WHERE key = ?", (key,)).fetchone()
    return found == (0,)


def refund(ledger: sqlite3.Connection, key: str) -> None:
    """Take a charge back, whether or not it is known to have been made, however often."""
    with ledger:
        ledger.execute("INSERT INTO charges VALUES (?, 0, 1) ON CONFLICT DO UPDATE SET undone = 1", (key,))


def key_of(cause: Headers, causes: list[str]) -> str:
    """The name of the step's effect: the same in step and undo, on every re-run."""
    return derived("effect", DEPLOYMENT, cause["ce_sagaid"], STEP, *causes)


def answers(
    topic: str, record: Message, ledger: sqlite3.Connection, partitions: int, ended: set[str], *, maybe_begun: bool
) -> list[Out]:
    """What a record comes to. ``ended``: tombstones; ``maybe_begun``: a process that died may have worked on it."""
    if wrong := problems(topic, record, partitions):
        return [dead_letter(topic, record, wrong)]
    data, cause = parsed(record.value()) or {}, headers_of(record)
    if topic == COMMANDS:
        return [undo(data, cause, ledger)]
    if cause["ce_sagaid"] in ended:
        return [settled("failed" if maybe_begun else "skipped", "saga.ended", "", cause, began=maybe_begun)]
    cents = data.get("cents")
    if not isinstance(data.get("order"), str) or not isinstance(cents, int) or cents <= 0:
        reason = "an order has a number, and cents above zero"
        letter = dead_letter(topic, record, [("contract", "value", reason)])
        return [settled("failed", "contract", reason, cause, began=False), letter]
    if cents > MOST_CENTS:
        return [settled("failed", "rejected", "the card is good for 5,000.00", cause, began=True)]
    if not charge(ledger, key_of(cause, [cause["ce_id"]]), cents):
        return [settled("failed", "effect.undone", "it was undone before and stays undone", cause, began=True)]
    return [charged(data, cause)]


def undo(command: Json, cause: Headers, ledger: sqlite3.Connection) -> Out:
    """Take a step back, by the ids of its inputs: the inputs themselves are in the command, too."""
    step, causes = str(command["step"]), sorted(cast("list[str]", command["causes"]))
    if step != STEP:
        more = {"retry": command["retry"]} if "retry" in command else {}  # a person asked once more
        identity = "|".join([f"v:{step}", "undo.no-step", ",".join(causes), *map(str, more.values())])
        more |= {"code": "undo.no-step", "reason": "this agent has no such step"}
        return fact("undofailed", identity, cause, step=step, causes=causes, **more)
    refund(ledger, key_of(cause, causes))
    return fact("undone", f"u:{step}|{','.join(causes)}", cause, step=step, causes=causes)


class Member:
    """One process of the agent: one member of its consumer group."""

    def __init__(self, ledger: sqlite3.Connection) -> None:
        self.ledger = ledger
        self.ended: set[str] = set()
        self.granted: list[TopicPartition] = []
        self.first: set[tuple[str, int]] = set()
        self.consumer = Consumer({"bootstrap.servers": SERVERS, "session.timeout.ms": 10_000, **GROUP, **READING, **LOOKING})
        self.producer = Producer({"bootstrap.servers": SERVERS, **WRITING})

    def run(self, stopping: threading.Event) -> None:
        """Work until told to stop."""
        self.partitions = len(self.consumer.list_topics(PREFIX + FACTS, WAIT_S).topics[PREFIX + FACTS].partitions)
        self.producer.init_transactions(WAIT_S)  # ends what a killed process of this instance left open
        manifest = json.dumps(declared({})).encode()
        self.transact([("pavane.agents", f"agent:{AGENT}".encode(), manifest, [], -1)], [])
        self.consumer.subscribe([PREFIX + each for each in (TAKES, COMMANDS, ENDS)], on_assign=self.assigned)
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
        """Begin where the lanes stand. Offsets carry the version that their lane was told of; a lane with another is told."""
        places, self.granted = self.consumer.committed(self.granted, timeout=WAIT_S), []
        for each in places:
            if each.topic == PREFIX + ENDS:
                each.offset = OFFSET_BEGINNING  # always from the first one: so tombstones need no other store
            elif each.offset < 0:
                each.offset = self.consumer.get_watermark_offsets(each, timeout=WAIT_S)[1]
        old = [each for each in places if each.topic != PREFIX + ENDS and each.metadata != VERSION]
        if new := [TopicPartition(each.topic, each.partition, each.offset, VERSION) for each in old]:
            self.transact([declaration(each) for each in new if each.topic == PREFIX + TAKES], new)
        self.consumer.assign(places)
        self.first = {(each.topic, each.partition) for each in places}
        print("at work from", *(f"{each.topic}[{each.partition}]@{each.offset}" for each in places), file=sys.stderr)

    def take(self, record: Message) -> None:
        """Work on one record: what it comes to and its offset are one transaction."""
        if error := record.error():
            raise KafkaException(error)
        topic, place = str(record.topic()).removeprefix(PREFIX), (str(record.topic()), record.partition() or 0)
        if topic == ENDS:
            self.ended.add((record.key() or b"").decode())
            return
        outs = answers(topic, record, self.ledger, self.partitions, self.ended, maybe_begun=place in self.first)
        self.transact(outs, [TopicPartition(*place, (record.offset() or 0) + 1, VERSION)])
        self.first.discard(place)

    def transact(self, outs: list[Out], done: list[TopicPartition]) -> None:
        """Write all of it, or nothing."""
        self.producer.begin_transaction()
        for topic, key, value, headers, partition in outs:
            self.producer.produce(PREFIX + topic, value, key, partition, headers=[*headers])
        if done:
            self.producer.send_offsets_to_transaction(done, self.consumer.consumer_group_metadata(), WAIT_S)
        self.producer.commit_transaction(WAIT_S)  # fails if anything was not delivered


def main() -> None:
    """Run one process of the agent until SIGTERM. Settings are environment variables."""
    ledger = open_ledger("charges.db")
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: stopping.set())
    while not stopping.is_set():
        member = Member(ledger)
        try:
            member.run(stopping)
        except KafkaException as error:
            print(f"beginning anew: {error}", file=sys.stderr)
            stopping.wait(1.0)
        finally:
            member.consumer.close()


if __name__ == "__main__":
    main()
