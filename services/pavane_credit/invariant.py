"""Invariant: checked from the ledgers, not from the coordinator's word."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from pavane_credit.choreography import EFFECTS
from pavane_credit.ledger import Effect, Ledger
from pavane_credit.where import Where


@dataclass(frozen=True, slots=True)
class Report:
    """What the ledgers say. ``standing_effects``: that should not stand. ``missing_effects``: that should and do not."""

    standing_effects: int
    missing_effects: int
    booked_dm: int
    approved_dm: int
    crashes: int
    refusals: int
    problems: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether the invariant holds."""
        return not self.problems


def check_ledgers(where: Where, approved: Mapping[str, int]) -> Report:
    """Hold the ledgers against the approved applications (id to amount).

    Every approved one has exactly its five effects, every other one has none standing, and the exposure booked equals
    the sum of the approved amounts.
    """
    ledgers = {name: Ledger.open(name, where) for name in EFFECTS}
    try:
        effects = {name: ledger.effects() for name, ledger in ledgers.items()}
        booked = ledgers["risk-assessment"].booked_dm()
        crashes = sum(ledger.notes("crashed") for ledger in ledgers.values())
        refusals = sum(ledger.notes("refused") for ledger in ledgers.values())
    finally:
        for ledger in ledgers.values():
            ledger.close()
    standing, missing = compare(effects, approved)
    problems = [f"{kind} of {application} stands and should not" for application, kind in standing]
    problems += [f"{kind} of {application} is missing" for application, kind in missing]
    total = sum(approved.values())
    if booked != total:
        problems.append(f"{booked} DM of exposure are booked, {total} DM are approved")
    return Report(len(standing), len(missing), booked, total, crashes, refusals, tuple(problems))


def compare(
    effects: Mapping[str, list[Effect]], approved: Mapping[str, int]
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """What stands and should not (also: twice, or with another amount), and what is missing; (application, kind) each."""
    standing: list[tuple[str, str]] = []
    missing: list[tuple[str, str]] = []
    for name, kind in EFFECTS.items():
        there = [each for each in effects[name] if each.standing]
        counts = Counter(each.application_id for each in there)
        for each in there:
            amount = approved.get(each.application_id)
            if amount is None or each.kind != kind or (each.amount_dm and each.amount_dm != amount):
                standing.append((each.application_id, each.kind))
        standing += [(application, kind) for application, count in counts.items() for _ in range(count - 1)]
        missing += [(application, kind) for application in approved if not counts[application]]
    return standing, missing
