"""The engine: what is due for a saga, read off the set of its facts. Pure and total; each rule under its name.

``due`` depends on the set of facts alone, so any interleaving and duplication of the same facts ends in the same state
and has issued the same commands. A rule of the design is one function here, and quotes it.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from pavane_saga.commands import Acquire, Command, End, Grant, Halt, Park, Refuse, Undo
from pavane_saga.facts import Fact, Settled, UndoFailed
from pavane_saga.history import History, Plan, Unit
from pavane_saga.pivot import forward, is_held_up, pivot_grants, point_of, stuck_forward
from pavane_saga.view import Debt, View, unseen_events_of

State = Literal["running", "completed", "compensating", "parked", "compensated", "abandoned"]


@dataclass(frozen=True, slots=True)
class Failure:
    """What turned a saga back."""

    code: str
    reason: str
    step: str | None = None


def decide(
    plan: Plan, history: History, facts: Iterable[Fact], issued_under: Plan | None = None
) -> tuple[History, tuple[Command, ...]]:
    """The history with these facts, and the commands that have become due with them. Each command is issued once.

    Facts that are known already, in any order and number, change nothing. Where the *plan* changes, by a declaration,
    what that makes due is :func:`due` under the new plan without :func:`due` under the old one. ``issued_under``: the plan
    by which the history was decided so far, where that is another: by one before that the same may have been issued, so what
    is undone is not undone again, and what was granted not granted again.
    """
    grown = history.with_facts(facts)
    if (grown is history and issued_under is None) or nothing_to_decide(plan, grown):
        return grown, ()
    before = set(due(issued_under or plan, history))
    commands = tuple(command for command in due(plan, grown) if command not in before)
    if issued_under is None:
        return grown, commands
    return grown, tuple(each for each in commands if not _is_behind(grown, each))


def _is_behind(history: History, command: Command) -> bool:
    """Whether facts say that a command was issued, or that nobody needs it any more."""
    if isinstance(command, Undo):
        return (command.step, command.causes) in history.undone
    return isinstance(command, Grant) and history.granted.get((command.step, command.causes), -1) >= command.retry


def due(plan: Plan, history: History) -> tuple[Command, ...]:
    """Every command that these facts call for, issued or not. After the end nothing is. Derived once per plan."""
    known = history.due
    if known is not None and known[0] is plan:
        return known[1]
    found = _derived(plan, history)
    history.due = plan, found
    return found


def _derived(plan: Plan, history: History) -> tuple[Command, ...]:
    if history.ended is not None or nothing_to_decide(plan, history):
        return ()
    view = View(plan, history)
    failed = failure(plan, history)
    if failed is None:
        point = point_of(plan, history)
        all_seen = not unseen(plan, history)
        locking = tuple(_locked(history))
        if point == "taken":
            return (*locking, *forward(view, all_seen=all_seen), *_completed(view, held_up=is_held_up(plan, history)))
        if point == "before" and all_seen:
            return (*locking, *pivot_grants(view), *_completed(view))
        return locking
    halt = Halt(failed.code, failed.reason)
    if history.abandoned is not None:
        return (halt, End("abandoned"))
    return (halt, *_undo_order(view), *_failed_undos(view), *_compensated(view))


def status(plan: Plan, history: History) -> State:
    """The state of the saga."""
    if history.ended is not None:
        return history.ended.verdict
    going_back = failure(plan, history) is not None
    if stuck(plan, history):
        return "parked"
    return "compensating" if going_back else "running"


def stuck(plan: Plan, history: History) -> tuple[UndoFailed | Settled, ...]:
    """The undos that failed, or the steps that failed after the pivot, and about which nobody has decided since."""
    return stuck_forward(plan, history) if point_of(plan, history) == "taken" else history.stuck()


def open_debts(plan: Plan, history: History) -> tuple[Debt, ...]:
    """The answers that are owed and have not come, in a fixed order."""
    return View(plan, history).debts


def awaited_outside(plan: Plan, history: History, answers: Collection[str]) -> Mapping[str, tuple[str, ...]]:
    """By step, the types of which one is missing, where nothing is missing but ``answers``: events from outside."""
    found: dict[str, tuple[str, ...]] = {}
    for name in sorted({debt.step for debt in open_debts(plan, history) if debt.waiting}):
        empty = [kinds for kinds in plan.steps[name].consumes if history.types.isdisjoint(kinds)]
        if all(any(kind in answers for kind in kinds) for kinds in empty):
            found[name] = tuple(kind for kinds in empty for kind in kinds if kind in answers)
    return found


def standing(plan: Plan, history: History) -> tuple[Unit, ...]:
    """The units whose effect may stand: done, or failed after they may have begun, and not undone; those of steps that
    nothing undoes, too. Past the pivot what was done by hand stands."""
    view = View(plan, history)
    found = {unit for unit in view.units if view.may_stand(unit)} - history.undone
    if point_of(plan, history) == "taken":
        found |= {unit for unit in history.undone if plan.has_effects(unit[0]) or unit[0] in plan.lasting}
    return tuple(sorted(found))


def undo_owed(plan: Plan, history: History) -> tuple[Unit, ...]:
    """The units whose undo is owed if the saga turns back, and has not come."""
    return tuple(sorted(View(plan, history).owing - history.undone))


def failure(plan: Plan, history: History) -> Failure | None:
    """*Failure*: "a ``fails`` event, a failed step, a fired deadline turns the saga to compensating; until a saga is
    completed, failure wins". Of several the first counts, by depth, then by identity.

    A failed step stays a failure where a stronger settlement of it came, too: agents may have been told already. From the
    grant of the pivot on nothing fails the saga but the pivot itself, and once that is done nothing does.
    """
    if history.granted and point_of(plan, history) in ("asked", "taken"):
        return None
    found: list[tuple[int, str, Failure]] = []
    if not plan.fails.isdisjoint(history.types):
        found.extend(
            (event.depth, event.identity, Failure(event.type, f"{event.type} happened", event.step))
            for event in history.events.values()
            if event.type in plan.fails
        )
    for identity, settled in history.failing.items():
        if not plan.is_observer(settled.step):
            depth = 1 + max((history.events[each].depth for each in settled.causes if each in history.events), default=0)
            found.append((depth, identity, Failure(settled.code, settled.reason, settled.step)))
    if found:
        return min(found, key=lambda each: each[:2])[2]
    fired = min(history.fired.items(), default=None)
    return Failure(fired[0], fired[1].detail) if fired is not None else None


def unseen(plan: Plan, history: History) -> tuple[str, ...]:
    """*All causes named by anybody have been seen*: "the start event, all parts of each emission, declarations".

    What is named and not there yet, readably; empty where everything is.
    """
    missing = {f"event {cause}" for cause in unseen_events_of(plan, history)}
    if plan.starts not in history.types and "unknown" not in history.fired:
        missing.add(f"event of type {plan.starts}")
    for unit in history.outputs:
        if not history.has_all_parts(unit):
            missing.add(f"a part of the answer of {unit[0]}")
    for unit in history.answers():
        if unit[0] not in plan.steps:
            missing.add(f"declaration of {unit[0]}")
    missing.update(f"declaration {version}" for version in history.declarations - plan.versions)
    return tuple(sorted(missing))


def nothing_to_decide(plan: Plan, history: History) -> bool:
    """While nothing failed, no pivot asks and ``completes`` was not seen, nothing is due, whatever is declared."""
    return not (
        plan.completes in history.types
        or history.failing
        or history.fired
        or not plan.fails.isdisjoint(history.types)
        or not plan.asking.isdisjoint(history.types)
        or history.requests
    )


def _locked(history: History) -> Iterator[Command]:
    """*Semantic lock*: "a gate before the step begins; a second saga that needs the key waits, or is refused by policy"."""
    for request in history.wanted():
        if request.lock in history.locks:
            if all(cause in history.events for cause in request.causes):  # they travel with the grant
                yield Grant(request.step, request.causes)
        elif request.refuse and request.lock in history.refused:
            holder = history.refused[request.lock]
            yield Refuse(request.step, request.causes, request.lock, holder, request.begun_under)
        else:
            yield Acquire(request.lock, request.refuse)


def _undo_order(view: View) -> Iterator[Undo]:
    """*Undo order*: "a step's undo waits until every step that used its output, directly or not, is settled and, where
    it owes an undo, undone; independent branches run in parallel".

    It waits for its inputs and for all parts of its own answer, too: they travel with the command; and for its
    declaration, without which nobody knows that it owes an undo.
    """
    history = view.history
    clear = _clear(view)
    for unit in view.units:
        if (
            unit not in clear
            or unit[0] not in view.plan.steps
            or unit not in view.owing
            or not view.unseen_events.isdisjoint(unit[1])
        ):
            continue
        if unit in history.outputs and unit not in view.whole:
            continue
        outputs = tuple([event.id for event in view.outputs(unit)])
        yield Undo(unit[0], unit[1], outputs, "done" if unit in view.finished else "unknown", retry=history.retry_of(unit))


def _clear(view: View) -> set[Unit]:
    """The units whose answers nothing stands on any more. From the last users back to the first steps, each looked at
    once; except where causes go round in a circle, which only a forger can bring about."""
    users = {unit: view.users_of(unit) for unit in view.history.outputs}
    makers: dict[Unit, list[Unit]] = {}
    left: dict[Unit, int] = {}
    for unit, found in users.items():
        makers_too = [user for user in found if user in users]
        left[unit] = len(makers_too)
        for user in makers_too:
            makers.setdefault(user, []).append(unit)
    todo = [unit for unit, count in left.items() if not count]
    clear = {unit for unit in view.units if unit not in users}  # nothing came of them
    while todo:
        unit = todo.pop()
        del left[unit]
        if view.is_free(unit) and all(user in clear and view.is_gone(user) for user in users[unit]):
            clear.add(unit)
        for maker in makers.get(unit, ()):
            left[maker] -= 1
            if not left[maker]:
                todo.append(maker)
    return clear.union(unit for unit in left if _is_clear_but_for_its_circle(view, unit, users))


def _is_clear_but_for_its_circle(view: View, unit: Unit, users: Mapping[Unit, set[Unit]]) -> bool:
    """Units in one circle of causes do not wait for each other; for all else they do."""
    below = _below(unit, users)
    return all(view.is_free(each) for each in {unit, *below}) and all(
        view.is_gone(user) or unit in _below(user, users) for user in below
    )


def _below(unit: Unit, users: Mapping[Unit, set[Unit]]) -> set[Unit]:
    found: set[Unit] = set()
    todo = [unit]
    while todo:
        new = users.get(todo.pop(), set[Unit]()) - found
        found |= new
        todo.extend(new)
    return found


def _failed_undos(view: View) -> Iterator[Park]:
    """*A failed undo* parks the saga: "the undos of its causal ancestors wait, others go on"; they wait by *undo order*.

    Said once of each, also where a later try succeeds: "undone beats undo-failed" is for the saga's state.
    """
    for unit, failed in sorted(view.history.undo_failed.items(), key=lambda each: each[0]):
        yield Park(unit[0], unit[1], failed.code, failed.reason, retry=failed.retry)


def _compensated(view: View) -> Iterator[End]:
    """*Compensated*: "all causes named by anybody have been seen (the start event, all parts of each emission,
    declarations), no debt is open, every done or failed step with effects has a confirmed undo. An operator's `skip` ends
    *abandoned*, not compensated"."""
    history = view.history
    if view.owing <= history.undone | history.skipped and not view.debts and not unseen(view.plan, history):
        yield End("compensated" if view.owing <= history.undone else "abandoned")


def _completed(view: View, *, held_up: bool = False) -> Iterator[End]:
    """*Completed*: "``completes`` seen, all causes seen, and the only open debts are arms of joins whose missing types
    nothing running can still produce (least fixpoint from the running debts)".

    An open debt that is no arm of an unfilled join is running. If there is one, the saga runs on, whatever it produces.
    If there is none, the fixpoint starts from the empty set and stays there: a waiting join produces only when all that
    it misses can be produced, so none ever does, and every arm waits in vain. They are let go.
    """
    if held_up or view.plan.completes not in view.history.types or unseen(view.plan, view.history):
        return
    if all(debt.waiting for debt in view.debts):
        yield End("completed", view.let_go)
