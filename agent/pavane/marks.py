"""Marks: a lane's declaration and its begun mark, the offset before which a step may have begun, by topic."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, cast

from pavane_events.bus import Lane
from pavane_events.record import Record

KEY: Final = b"lane"

_NOTHING: Final[tuple[str, ...]] = ()


class Marks:
    """The begun mark is durable before any step begins on an input beyond it, a window ahead so that it costs little.

    What lies at or beyond the mark that a lane found when it was granted, and was not begun by this holder, provably
    never began: an earlier holder, even one that still runs, cannot have begun it.
    """

    def __init__(
        self,
        lane: Lane,
        version: str,
        topics: Collection[str],
        window: int,
        retiring: Mapping[str, Collection[str]] | None = None,
        owing: Collection[str] = (),
        begins_on: Mapping[str, str] | None = None,
        answering: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        """``topics``: of the steps that owe an undo, ``owing`` by name. ``begins_on``: on what each step of this version
        does. ``answering``: the steps that owe an answer, by the topics of what they answer to."""
        row = lane.state.get(KEY)
        stored = cast("dict[str, object]", json.loads(row)) if row is not None else {}
        self.new_version = stored.get("version") != version
        self._version = version
        self._window = window
        self._found = cast("dict[str, int]", stored.get("mark", {}))
        self._others = cast("dict[str, int]", stored.get("others", {}))
        self._owed_before = cast("dict[str, str]", stored.get("before", {}))
        now = begins_on or {}
        self._owing = {step: now.get(step, "") for step in sorted(owing)}
        self._begun_on = cast("dict[str, list[str]]", stored.get("begun_on", {}))
        if self.new_version:
            self._others |= {topic: max(mark, self._others.get(topic, 0)) for topic, mark in self._found.items()}
            last = str(stored.get("version", ""))
            for step, text in _owing_in(stored).items():
                self._owed_before[step] = last
                if text and text not in self._begun_on.setdefault(step, []):
                    self._begun_on[step].append(text)
        self._otherwise = {step: [each for each in texts if each != now.get(step)] for step, texts in self._begun_on.items()}
        noted = int(cast("int", stored.get("number", 0)))
        self.number = noted + 1 if self.new_version else noted
        """The how manyth version of the lane this is, of those that were counted."""

        self._since = cast("dict[str, dict[str, int]]", stored.get("since", {}))
        first = self.number if noted or row is None else 0  # what the last version answered to was not noted
        for topic, steps in (answering or {}).items():
            since = self._since.setdefault(topic, {})
            for step in steps:
                since.setdefault(step, first)
        known = cast("dict[str, dict[str, int]]", stored.get("until", {}))
        self.until: Mapping[str, Mapping[str, int]] = {
            step: known.get(step) or {topic: max(self._found.get(topic, 0), self._others.get(topic, 0)) for topic in taken}
            for step, taken in (retiring or {}).items()
        }
        self._durable = dict(self._found)
        self._highest: dict[str, int] = {topic: lane.committed.get(topic, 0) for topic in topics}
        self._written: dict[str, int] | None = None

    def may_have_begun(self, record: Record) -> bool:
        """Whether an earlier holder of the lane may have called a step on that input."""
        return record.offset < self._found.get(record.topic, 0)

    def may_have_begun_otherwise(self, record: Record) -> bool:
        """Whether another version of the agent may have called a step on that input: one that takes what this refuses."""
        return record.offset < self._others.get(record.topic, 0)

    def answers_since(self, step: str, topic: str) -> int:
        """The number of the version from which on a step answers to what comes on that topic; 0: from before they were
        counted."""
        return self._since.get(topic, {}).get(step, 0)

    def begun_on_otherwise(self, step: str) -> Sequence[str]:
        """On what else than now a step that owed an undo began under other versions: see :mod:`pavane.doubt`."""
        return self._otherwise.get(step, _NOTHING)

    def owed_under(self, step: str) -> str | None:
        """The last version before this one under which a step owed an undo; None where there is none."""
        return self._owed_before.get(step)

    def takes(self, step: str, record: Record) -> bool:
        """Whether a step takes that input: a retiring one only what a version that did not know so may have begun."""
        until = self.until.get(step)
        return until is None or record.offset < until.get(record.topic, 0)

    def cover(self, records: Iterable[Record]) -> bool:
        """Whether every one of these lies before the durable mark; if not, :meth:`advance` must be committed first."""
        covered = True
        for record in records:
            highest = self._highest.get(record.topic)
            if highest is not None:
                if record.offset > highest:
                    self._highest[record.topic] = record.offset
                if record.offset >= self._durable.get(record.topic, 0):
                    covered = False
        return covered

    def advance(self) -> dict[bytes, bytes | None]:
        """The row with the mark a window ahead of what was received. It never goes back: a holder before this one may have
        come further."""
        ahead = {topic: highest + self._window for topic, highest in self._highest.items()}
        return self._row({topic: max(mark, self._durable.get(topic, 0)) for topic, mark in ahead.items()})

    def _row(self, mark: dict[str, int]) -> dict[bytes, bytes | None]:
        self._written = mark
        more = {
            "others": self._others,
            "until": self.until,
            "owing": self._owing,
            "before": self._owed_before,
            "begun_on": self._begun_on,
            "number": self.number,
            "since": self._since,
        }
        said = {name: value for name, value in more.items() if value}
        row = json.dumps({"version": self._version, "mark": self._written, **said}, separators=(",", ":"))
        return {KEY: row.encode()}

    def close_in(self) -> dict[bytes, bytes | None]:
        """The row with the mark right behind what was received: nothing begins any more. What the lane's next holder may
        take for begun, and a step that it retires still takes, is no more than that; and what a holder before this one
        may have begun, where this one has not come to it.
        """
        exact = {topic: max(highest + 1, self._found.get(topic, 0)) for topic, highest in self._highest.items()}
        return self._row(exact) if any(self._durable.get(topic, 0) > mark for topic, mark in exact.items()) else {}

    def refresh(self) -> dict[bytes, bytes | None]:
        """For any commit that is due anyhow: the row, where less than half of the window is left; else nothing."""
        half = self._window // 2
        if all(self._durable.get(topic, 0) - highest >= half for topic, highest in self._highest.items()):
            return {}
        return self.advance()

    def committed(self) -> None:
        """The commit with the last row written has happened."""
        if self._written is not None:
            self._durable, self._written = self._written, None


def _owing_in(row: Mapping[str, object]) -> dict[str, str]:
    """The steps that owed an undo under the version that wrote a row, with what each began on; rows of before leave that
    out."""
    owing = row.get("owing", {})
    return cast("dict[str, str]", owing) if isinstance(owing, dict) else dict.fromkeys(cast("list[str]", owing), "")
