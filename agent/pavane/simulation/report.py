"""Report: what a verification looked at, and what it found."""

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pavane.simulation.calls import WHOSE
from pavane.simulation.explore import Survey
from pavane.simulation.player import Job
from pavane.simulation.points import read_faults
from pavane_events.errors import ConfigurationError, PavaneError, Problem


@dataclass(frozen=True, slots=True)
class Finding:
    """A violation, with the shortest history found that shows it. ``story``: that history, told."""

    code: str
    message: str
    replay: str
    story: Sequence[str]


@dataclass(frozen=True, slots=True)
class Report:
    """What was looked at. ``skipped``: faults that were not tried because the same was tried in the same state.

    ``stages``: by name, how many histories were played, and how many the bounds left out; in ``singles`` and ``pairs``
    a 0 there means that every one was played. ``unbounded``: the undos and reconciliations that have no ``within``; that one
    of them hangs was not tried, for nothing would end it. ``ends``: by scenario, how its sagas end where nothing goes wrong;
    where none is *completed* there, little was proven.
    """

    seed: int
    processes: int
    seconds: float
    states: int
    skipped: int
    stages: Mapping[str, tuple[int, int]]
    findings: Sequence[Finding]
    unbounded: Sequence[str] = ()
    ends: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])

    @classmethod
    def of(
        cls, survey: Survey, processes: int, findings: Sequence[Finding], unbounded: Iterable[tuple[str, str]] = ()
    ) -> "Report":
        """What a survey says."""
        names = ("sagas", "singles", "pairs", "by_lot")
        played = {name: int(getattr(survey, name)) for name in names}
        stages = {name: (count, survey.planned.get(name, count) - count) for name, count in played.items()}
        without = [f"{WHOSE[what]}{where}" for what, where in sorted(unbounded)]
        ends = {name: sorted(verdicts) for name, verdicts in sorted(survey.ends.items())}
        return cls(survey.seed, processes, survey.seconds, len(survey.states), survey.skipped, stages, findings, without, ends)

    @property
    def histories(self) -> int:
        """How many were played."""
        return sum(played for played, _ in self.stages.values())

    @property
    def histories_per_s(self) -> float:
        """How many a second, over all processes."""
        return self.histories / self.seconds if self.seconds else 0.0

    def to_json(self) -> dict[str, object]:
        """For programs."""
        return {
            "histories": self.histories,
            "violations": [
                {"code": each.code, "message": each.message, "replay": each.replay, "story": list(each.story)}
                for each in self.findings
            ],
            "histories_per_s": round(self.histories_per_s, 1),
            "seed": self.seed,
            "processes": self.processes,
            "states": self.states,
            "skipped": self.skipped,
            "unbounded": list(self.unbounded),
            "ends": {name: list(verdicts) for name, verdicts in self.ends.items()},
            "stages": {name: {"played": played, "left_out": left} for name, (played, left) in self.stages.items()},
        }

    def lines(self) -> list[str]:
        """For people."""
        said = {
            "sagas": "nothing goes wrong",
            "singles": "one thing goes wrong",
            "pairs": "two things go wrong",
            "by_lot": "up to eight things, by lot",
        }
        lines: list[str] = []
        for name, (played, left) in self.stages.items():
            whole = "" if name == "by_lot" or not (played or left) else f"  ({left:,} left out)" if left else "  (all)"
            lines.append(f"  {said[name]:<28} {played:>9,} histories{whole}")
        lines.append(
            f"{self.histories:,} histories, {self.states:,} states, {self.skipped:,} faults skipped that lead where others"
            f" led, {len(self.findings)} violations; {self.histories_per_s:,.0f} histories/s in"
            f" {self.processes} process{'es' if self.processes > 1 else ''}, seed {self.seed}"
        )
        lines += self._told_ends()
        if self.unbounded:
            lines.append(f"not tried, as no `within` would end it: a hang of {', '.join(self.unbounded)}")
        return lines

    def _told_ends(self) -> Iterator[str]:
        """How what was started ends by itself; a violation of that is told for itself."""
        by_end: dict[str, list[str]] = {}
        for name, verdicts in self.ends.items():
            by_end.setdefault(" and ".join(verdicts), []).append(name)
        for end, names in sorted(by_end.items()):
            if end:
                yield f"where nothing goes wrong, {end}: {', '.join(names)}"
        if by_end and not self.findings and not any("completed" in verdicts for verdicts in self.ends.values()):
            yield "no saga completes, even where nothing goes wrong: whether one can was not shown"


class Interrupted(KeyboardInterrupt):
    """Somebody has stopped it. ``report``: what was played by then, none of which was wrong."""

    def __init__(self, report: Report) -> None:
        self.report = report
        super().__init__()


class VerificationFailed(PavaneError, AssertionError):
    """A history was found that must not be. ``report`` has it, and the shortest form of it that was found.

    It ends with the seed, and with how it is played again; ``name``: where the command line finds the verification.
    """

    code = "verification"

    def __init__(self, report: Report, name: str | None = None) -> None:
        self.report = report
        told = "\n\n".join(describe(each) for each in report.findings)
        again = "\n".join(replayed_by(each.replay, name or "MODULE:VERIFICATION") for each in report.findings)
        super().__init__(f"{told}\n\nseed {report.seed}; {again}")


def describe(finding: Finding) -> str:
    """A finding, told."""
    story = "\n".join(f"  {line}" for line in finding.story)
    return f"{finding.code}: {finding.message}\nin this history: {finding.replay}\n{story}"


def replayed_by(history: str, name: str) -> str:
    """What to say to have it told once more."""
    return f"play it again: {shlex.join(['pavane', 'verify', name, '--replay', history])}"


def job_of(text: str) -> Job:
    """A history as it is written down. Raises :class:`ConfigurationError`."""
    scenario, *rest = text.split(";")
    (after,) = _numbers(rest, r"after (\d{1,6})") or (0,)
    lanes, first = _numbers(rest, r"lanes (\d{1,2})(?: from (\d{1,2}))?") or (1, 0)
    if first >= lanes:
        problem = Problem("lanes", "replay.form", f"there are {lanes}, and their numbers begin at 0: none is {first}")
        raise ConfigurationError("that history cannot be read", [problem])
    said = ";".join(rest)
    seed = said[4:] if said.startswith("lot ") else None
    faults = read_faults(said) if seed is None else ()
    return Job(scenario, faults, seed=seed, after=after, lanes=lanes, first=first)


def _numbers(parts: list[str], form: str) -> list[int] | None:
    """What the last part says in this form, if it has it; then it is taken off."""
    found = re.fullmatch(form, parts[-1]) if parts else None
    if found is None:
        return None
    parts.pop()
    return [int(each or 0) for each in found.groups()]
