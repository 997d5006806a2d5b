"""Invariant: checked from the ledgers, not from the coordinator's word."""

from collections.abc import Mapping
from dataclasses import dataclass

from pavane_credit.choreography import EFFECTS
from pavane_credit.ledger import Effect, Ledger
from pavane_credit.where import Where

_RISK = "risk-assessment"


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
    the sum of the approved amounts. Creates nothing: a ledger that is not there is a problem, not an empty one.
    """
    opened = {name: Ledger.find(name, where) for name in EFFECTS}
    ledgers = {name: ledger for name, ledger in opened.items() if ledger is not None}
    try:
        effects = {name: ledgers[name].effects() if name in ledgers else [] for name in EFFECTS}
        booked = ledgers[_RISK].booked_dm() if _RISK in ledgers else 0
        crashes = sum(ledger.notes("crashed") for ledger in ledgers.values())
        refusals = sum(ledger.notes("refused") for ledger in ledgers.values())
    finally:
        for ledger in ledgers.values():
            ledger.close()
    standing, missing = compare(effects, approved)
    problems = [f"there is no ledger of {name} in {where.ledgers}" for name in EFFECTS if name not in ledgers]
    problems += [f"{kind} of {application} stands and should not" for application, kind in standing]
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
        unmet = dict(approved)
        for each in effects[name]:
            if not each.standing:
                continue
            amount = unmet.get(each.application_id)
            if amount is not None and each.kind == kind and each.amount_dm in (0, amount):
                del unmet[each.application_id]
            else:
                standing.append((each.application_id, each.kind))
        missing += [(application, kind) for application in unmet]
    return standing, missing
