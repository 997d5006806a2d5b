"""``pavane audit``: whether the ledgers of a running deployment agree with what the topics say became of its sagas."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pavane_credit.where import Where
    from pavane_events.bus import Bus

_LOOK_S = 1.0
_MOST_LISTED = 20
_ENDED_WELL = frozenset({"completed", "compensated"})


@dataclass(frozen=True, slots=True)
class Audit:
    """What was found. ``states``: how many sagas are in which. ``problems``: everything that should not be so."""

    states: Mapping[str, int]
    booked_dm: int
    approved_dm: int
    problems: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """All of it, as JSON."""
        sums = {"booked_dm": self.booked_dm, "approved_dm": self.approved_dm}
        return {"sagas": dict(self.states), **sums, "holds": not self.problems, "problems": list(self.problems)}


def audit(
    expect: Annotated[int, typer.Option(min=0, help="Wait until so many sagas were started.")] = 0,
    wait_s: Annotated[float, typer.Option("--wait", metavar="S", min=0, help="How long they may take to end.")] = 0.0,
    bus: Annotated[str | None, typer.Option("--bus", metavar="URL", help="The bus.", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Check that every saga has ended, and that the ledgers hold five effects of each completed one and none of others.

    Reads the topics and the ledgers that CREDIT_LEDGERS names, and takes nobody's word for either. Exits with 0 where
    all agree, with 1 where anything is open, stands and should not, is missing, or was booked and not approved.
    """
    from pavane.cli.output import print_json
    from pavane.cli.session import with_bus
    from pavane_credit.where import read_where

    where = read_where()
    found = with_bus(bus, lambda opened: audit_when_ended(opened, where, expect, wait_s))
    if as_json:
        print_json(found.to_json())
    else:
        print(", ".join(f"{count} {state}" for state, count in sorted(found.states.items())) or "no saga")
        print(f"{found.booked_dm:,} DM are booked, {found.approved_dm:,} DM are approved")
        print("ledgers agree" if not found.problems else f"{len(found.problems)} problems")
        for problem in found.problems[:_MOST_LISTED]:
            print(f"  {problem}")
    raise typer.Exit(bool(found.problems))


async def audit_when_ended(bus: "Bus", where: "Where", expect: int, wait_s: float) -> Audit:
    """Wait until at least ``expect`` sagas were started and all have ended, no longer than ``wait_s``; then look."""
    from pavane_saga.story import list_sagas

    give_up = time.monotonic() + wait_s
    while True:
        sagas = await list_sagas(bus)
        ended = sum(each.state in _ENDED_WELL for each in sagas)
        if (ended == len(sagas) >= expect) or time.monotonic() > give_up:
            break
        await asyncio.sleep(_LOOK_S)
    states = {each.saga: each.state for each in sagas}
    problems = [f"{len(states)} sagas were started, {expect} were expected"] if len(states) < expect else []
    problems += [f"saga {saga} is {state}" for saga, state in states.items() if state not in _ENDED_WELL]
    return _held_against(where, states, await _approved(bus, states), problems)


async def _approved(bus: "Bus", states: Mapping[str, str]) -> dict[str, int]:
    """By saga that is completed, the amount."""
    from pavane_credit.events import CreditApproved
    from pavane_events.envelope import parse

    found: dict[str, int] = {}
    async for record in bus.read(CreditApproved.event_type):
        envelope = parse(record)
        if envelope.saga is not None and states.get(envelope.saga) == "completed":
            found[envelope.saga] = CreditApproved.from_json(envelope.data).amount_dm
    return found


def _held_against(where: "Where", states: Mapping[str, str], approved: Mapping[str, int], problems: Iterable[str]) -> Audit:
    from pavane_credit.choreography import EFFECTS
    from pavane_credit.ledger import Ledger

    found = list(problems)
    completed = {saga for saga, state in states.items() if state == "completed"}
    found += [f"saga {saga} is completed without an approval" for saga in completed - approved.keys()]
    booked = 0
    for name, kind in EFFECTS.items():
        ledger = Ledger.find(name, where)
        if ledger is None:
            found += [f"there is no ledger of {name} in {where.ledgers}"] if states else []
            continue
        try:
            effects = [each for each in ledger.effects() if each.standing]
            booked += ledger.booked_dm()
        finally:
            ledger.close()
        standing = Counter(each.saga for each in effects)
        found += [f"{kind} of saga {saga} is missing" for saga in approved.keys() - standing.keys()]
        found += [f"{kind} of saga {saga} stands {many} times" for saga, many in standing.items() if many > 1]
        found += [f"{kind} of saga {each} stands and should not" for each in standing.keys() - approved.keys()]
        found += [
            f"{kind} of saga {each.saga} is over {each.amount_dm} DM, not {approved[each.saga]} DM"
            for each in effects
            if each.saga in approved and each.amount_dm not in (0, approved[each.saga])
        ]
    total = sum(approved.values())
    if booked != total:
        found.append(f"{booked} DM of exposure are booked, {total} DM are approved")
    return Audit(Counter(states.values()), booked, total, tuple(found))
