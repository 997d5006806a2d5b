"""Dossier: what a coordinator's lane keeps of its sagas, as rows of lane state and, while they run, in memory."""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Final, NamedTuple, cast

from pavane_events.bus import LaneState
from pavane_events.compact import read_json, write_json
from pavane_saga.facts import Fact, fact_from_json
from pavane_saga.history import History
from pavane_tracing.metrics import OpenSagas

_MOST_CACHED: Final = 3_000
"""Some 10 kB each, in all lanes of a process; the others are read again when something is heard of them."""

_FEWEST_CACHED: Final = 50
_BUSY: Final = 4.0
_SLOWNESS: Final = 64
"""A saga is busy that was heard of lately: within so many times the distance, in commits of its lane, at which sagas are
heard of again. That is learned, slowly, from those that are in memory and from those that were."""

_REMEMBERED: Final = 4
"""Of so many times as many sagas as are in memory it is known when something was heard of them last."""


class Cabinet:
    """How many open sagas the lanes of a process keep in memory: ``most``, which they share alike."""

    def __init__(self, most: int = _MOST_CACHED) -> None:
        self.lanes = 0
        self._most = most

    @property
    def share(self) -> int:
        """Of one lane."""
        return max(_FEWEST_CACHED, self._most // max(1, self.lanes))


@dataclass(slots=True)
class Dossier:
    """One open saga. ``name`` is the saga definition's, None until its start event was seen. ``awaited``: by step, when
    an event from outside that it waits for is to be there, in milliseconds since the epoch."""

    saga: str
    name: str | None
    started_ms: int
    history: History
    is_turning: bool = False
    awaited: dict[str, int] = field(default_factory=dict[str, int])
    heard: int = 0
    """The lane's commit at which something was heard of it last."""

    ends: int = 0
    """By which of the ends that its saga ever had it was decided last."""

    kept: Collection[str] = ()
    """The identities of the facts by which nothing was decided yet, for want of a coordinator that knows its saga."""

    @property
    def acted_upon(self) -> History:
        """Its history without those facts; itself where there are none."""
        if not self.kept:
            return self.history
        return History().with_facts([fact for fact in self.history.facts if fact.identity not in self.kept])


class Head(NamedTuple):
    """The row of an open saga."""

    name: str | None
    started_ms: int
    awaited: dict[str, int]
    ends: int
    kept: Collection[str]


class Dossiers:
    """The open sagas of a lane. Changes gather in :attr:`changes` until the commit that makes them durable.

    Rows: ``o/<saga>`` is there while the saga is open, ``s/<saga>/<fact>`` are its facts, ``t/<saga>`` is there while it
    is turning to an end, good or bad; ``x/<saga>`` is left when it has ended, ``n/<saga>`` when it was admitted and its
    start event is on its way.
    """

    def __init__(self, state: LaneState, cabinet: Cabinet, ends: Mapping[str, int]) -> None:
        """``ends``: by a saga's name, which of the ends that it ever had are those that it has now."""
        self._state = state
        self._cabinet = cabinet
        self._ends = ends
        self._commits = 0
        self._distance = 1.0
        cabinet.lanes += 1
        self.open = OpenSagas()
        self._open: OrderedDict[str, Dossier] = OrderedDict()
        self._put_by: OrderedDict[str, int] = OrderedDict()
        """Those that had to make room, with their ``heard``."""
        self.changes: dict[bytes, bytes | None] = {}

    def close(self) -> None:
        """The lane is left. Once."""
        self.open.close()
        self._cabinet.lanes -= 1

    def find(self, saga: str) -> Dossier | None:
        """An open saga's dossier; None where there is none, or none any more."""
        dossier = self._open.get(saga)
        if dossier is not None:
            self._open.move_to_end(saga)
            if dossier.heard != self._commits:  # else it is asked for twice in one commit
                self._learn(dossier.heard)
                dossier.heard = self._commits
            return dossier
        row = self._get(b"o/" + saga.encode())
        if row is None:
            return None
        heard = self._put_by.pop(saga, None)
        if heard is not None:
            self._learn(heard)
        return self._load(saga, row)

    def begin(self, saga: str, name: str | None, started_ms: int) -> Dossier:
        """Open a dossier."""
        dossier = self._open[saga] = Dossier(saga, name, started_ms, History(), heard=self._commits)
        dossier.ends = self._ends.get(name or "", 0)
        if name is not None:
            self.open.begin(name)
        self._write_head(dossier)
        return dossier

    def name(self, dossier: Dossier, name: str, started_ms: int) -> None:
        """The start event was seen: now it is known which saga this is, and since when."""
        dossier.name, dossier.started_ms, dossier.ends = name, started_ms, self._ends.get(name, 0)
        self.open.begin(name)
        self._write_head(dossier)
        self.changes[b"n/" + dossier.saga.encode()] = None

    def wait(self, dossier: Dossier, awaited: dict[str, int]) -> None:
        """By when events from outside are to be there."""
        if awaited != dossier.awaited:
            dossier.awaited = awaited
            self._write_head(dossier)

    def decided(self, dossier: Dossier) -> None:
        """It was decided by all that was heard, and by the ends that its saga has now."""
        ends = self._ends.get(dossier.name or "", 0)
        if dossier.ends != ends or dossier.kept:
            dossier.ends, dossier.kept = ends, ()
            self._write_head(dossier)

    def keep(self, dossier: Dossier, facts: Iterable[Fact]) -> None:
        """Keep facts by which nothing is decided: whoever knows its saga will."""
        known = dossier.history
        facts = [fact for fact in facts if not known.knows(fact.identity)]
        self.add(dossier, facts)
        dossier.history = known.with_facts(facts)
        self._not_acted_upon(dossier, facts)

    def decide_anew(self, dossier: Dossier) -> None:
        """By none of its facts was decided all that they call for now."""
        self._not_acted_upon(dossier, dossier.history.facts)

    def _not_acted_upon(self, dossier: Dossier, facts: Iterable[Fact]) -> None:
        kept = {*dossier.kept, *[fact.identity for fact in facts]}
        if len(kept) > len(dossier.kept):
            dossier.kept = kept
            self._write_head(dossier)

    def add(self, dossier: Dossier, facts: Iterable[Fact]) -> None:
        """Keep facts, those aside that its history has already; it is to have these next."""
        new: set[str] = set()
        for fact in facts:
            identity = fact.identity
            if identity not in new and not dossier.history.knows(identity):
                new.add(identity)
                self.changes[_fact_key(dossier.saga, identity)] = fact.to_json()

    def end(self, dossier: Dossier, verdict: str, at_ms: int) -> None:
        """Close a dossier: its facts go, its verdict stays."""
        self._open.pop(dossier.saga, None)
        if dossier.name is not None:
            self.open.end(dossier.name)
        saga = dossier.saga.encode()
        for fact in dossier.history.facts:
            self.changes[_fact_key(dossier.saga, fact.identity)] = None
        self.changes[b"o/" + saga] = None
        if dossier.is_turning:
            self.changes[b"t/" + saga] = None
        self.changes[b"x/" + saga] = write_json({"verdict": verdict, "at_ms": at_ms})

    def ended(self, saga: str) -> bool:
        """Whether the saga has ended."""
        return self._get(b"x/" + saga.encode()) is not None

    def admitted(self, saga: str) -> bool:
        """Whether a saga of that id was ever admitted here."""
        key = saga.encode()
        return saga in self._open or any(self._get(kind + key) is not None for kind in (b"n/", b"o/", b"x/"))

    def admit(self, saga: str) -> None:
        """Remember that a saga of that id was admitted."""
        self.changes[b"n/" + saga.encode()] = b""

    def turn(self, dossier: Dossier) -> None:
        """Something may be due for it from now on: when a step is declared, too."""
        if not dossier.is_turning:
            dossier.is_turning = True
            self.changes[b"t/" + dossier.saga.encode()] = b""

    def turning(self) -> set[str]:
        """The ids of the sagas for which something may be due, committed or not."""
        rows = {key[2:].decode() for key, _ in self._state.scan(b"t/")}
        for key, value in self.changes.items():
            if key.startswith(b"t/"):
                (rows.add if value is not None else rows.discard)(key[2:].decode())
        return rows

    def with_events(self, kinds: Set[str]) -> set[str]:
        """The ids of the open sagas in which an event of one of these types was heard; of others, maybe."""
        found = {saga for saga, dossier in self._open.items() if not dossier.history.types.isdisjoint(kinds)}
        words = [kind.encode() for kind in kinds]
        for key, _ in self._state.scan(b"o/"):
            saga = key[2:].decode()
            if saga not in self._open and self._get(key) is not None:
                rows = [row for _, row in self._state.scan(b"s/%s/" % key[2:])]
                if any(word in row for row in rows for word in words):
                    found.add(saga)
        return found

    def all_open(self) -> Iterator[tuple[str, Head]]:
        """Every open saga as of the last commit, for timers after a restart."""
        for key, row in self._state.scan(b"o/"):
            yield key[2:].decode(), _head(row)

    def committed(self) -> None:
        """The changes are durable."""
        self.changes = {}
        self._commits += 1
        share = self._cabinet.share
        while len(self._open) > share:
            oldest = next(iter(self._open.values()))
            busy = self._commits - oldest.heard <= _BUSY * self._distance
            saga, gone = self._open.popitem(
                last=busy
            )  # where all are busy they take turns: what was just heard of is last again
            self._put_by[saga] = gone.heard
        while len(self._put_by) > _REMEMBERED * share:
            self._put_by.popitem(last=False)

    def _learn(self, heard: int) -> None:
        """Something is heard again of a saga of which something was heard at that commit."""
        self._distance += (self._commits - heard - self._distance) / _SLOWNESS

    def _get(self, key: bytes) -> bytes | None:
        if key in self.changes:
            return self.changes[key]
        return self._state.get(key)

    def _load(self, saga: str, row: bytes) -> Dossier:
        head = _head(row)
        stored = self._state.scan(f"s/{saga}/".encode())
        history = History().with_facts([fact_from_json(value) for _, value in stored])
        is_turning = self._get(b"t/" + saga.encode()) is not None
        dossier = Dossier(
            saga, head.name, head.started_ms, history, is_turning, head.awaited, self._commits, head.ends, head.kept
        )
        self._open[saga] = dossier
        return dossier

    def _write_head(self, dossier: Dossier) -> None:
        more: list[object] = [dossier.awaited, dossier.ends, sorted(dossier.kept)]
        while more and not more[-1]:
            more.pop()
        head = write_json([dossier.name, dossier.started_ms, *more])
        self.changes[b"o/" + dossier.saga.encode()] = head


def _fact_key(saga: str, identity: str) -> bytes:
    return f"s/{saga}/{identity}".encode()


def ended_ms(row: bytes) -> int:
    """When the saga of a row ``x/`` ended, in milliseconds since the epoch."""
    return cast("int", cast("dict[str, object]", read_json(row))["at_ms"])


def _head(row: bytes) -> Head:
    name, started_ms, *more = cast("list[object]", read_json(row))
    awaited = cast("dict[str, int]", more[0]) if more else dict[str, int]()
    ends = cast("int", more[1]) if len(more) > 1 else 0
    kept = cast("list[str]", more[2]) if len(more) > 2 else ()
    return Head(cast("str | None", name), cast("int", started_ms), awaited, ends, kept)
