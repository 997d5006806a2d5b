"""Graph: the choreography drawn from the declarations: who hears what, who says what, and where a saga ends. Pure."""

import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence

from pavane_saga.facts import StepPlan
from pavane_saga.manifest import SagaPlan

_UNDO = "↩"
_PIVOT = "◆"
_NEVER = 999
"""How far away a step is that no saga comes to."""


def agents_of(steps: Iterable[StepPlan], sagas: Iterable[SagaPlan]) -> Mapping[str, Sequence[StepPlan]]:
    """Steps by agent, in the order in which a saga first comes to them."""
    known = list(steps)
    distances = _distances(known, [kind for saga in sagas for kind in (saga.starts, *saga.answers)])
    by_agent: dict[str, list[StepPlan]] = {}
    for step in sorted(known, key=lambda each: (_distance(each, distances), each.observer, each.name)):
        by_agent.setdefault(step.name.partition("/")[0], []).append(step)
    return by_agent


def undo_paths(steps: Sequence[StepPlan], saga: SagaPlan) -> list[tuple[str | None, str]]:
    """Which undo waits for which, where a saga fails when everything was done: pairs of steps, the earlier undo first.

    A step is undone once every step that built on its events, directly or by way of steps that have no undo, is undone;
    None stands before those that nothing is built on: they are undone first.
    """
    reached = [
        step
        for step in steps
        if not step.observer and _distance(step, _distances(steps, [saga.starts, *saga.answers])) < _NEVER
    ]
    paths: list[tuple[str | None, str]] = []
    for step in reached:
        if step.effects:
            users = _undone_users(reached, step)
            paths += [(user, step.name) for user in users] or [(None, step.name)]
    return paths


def undo_order(steps: Sequence[StepPlan], saga: SagaPlan) -> list[list[str]]:
    """The same in waves: what is undone first, side by side, then what waits for it. Steps in a circle come last."""
    waits: dict[str, set[str]] = {}
    for before, step in undo_paths(steps, saga):
        waits.setdefault(step, set()).update([before] if before is not None else [])
    waves: list[list[str]] = []
    while waits:
        wave = sorted(step for step, before in waits.items() if before.isdisjoint(waits.keys() - {step})) or sorted(waits)
        waves.append(wave)
        for step in wave:
            del waits[step]
    return waves


def _undone_users(steps: Sequence[StepPlan], maker: StepPlan) -> list[str]:
    """The steps with an undo that build on a step's events, the nearest on every way."""
    found: dict[str, None] = {}
    seen = {maker.name}
    todo = [maker]
    while todo:
        said = set(todo.pop().produces)
        for step in steps:
            if step.name not in seen and any(kind in said for alternatives in step.consumes for kind in alternatives):
                seen.add(step.name)
                if step.effects:
                    found[step.name] = None
                else:
                    todo.append(step)
    return list(found)


def to_mermaid(steps: Sequence[StepPlan], sagas: Sequence[SagaPlan], *, undo: bool = False) -> str:
    """A Mermaid flowchart: a box per agent with its steps, an arrow per event, a hexagon per end.

    ``↩`` marks a step that is undone when its saga fails, ``◆`` the pivot; a dashed arrow leads to an observer.
    ``undo``: thick arrows lead from where a saga has failed back from undo to undo. The same declarations give the same
    text, so it may be kept in a README and compared.
    """
    agents = agents_of(steps, sagas)
    named = _Ids()
    lines = ["flowchart LR", *(f'    {named("intake", saga.intake)}[/"{saga.intake}"/]' for saga in sagas)]
    for agent, mine in agents.items():
        lines.append(f'    subgraph {named("agent", agent)}["{agent}"]')
        lines += [f"        {named('step', step.name)}{_box(step)}" for step in mine]
        lines.append("    end")
    ordered = [step for mine in agents.values() for step in mine]
    ends = {kind: saga for saga in sagas for kind in (saga.completes, *saga.fails)}
    lines += [f'    {named("end", kind)}{{{{"{kind}"}}}}' for kind in ends]
    for saga in sagas:
        lines += _arrows(named, named("intake", saga.intake), saga.starts, ordered)
    for step in ordered:
        for kind in step.produces:
            if kind in ends:
                lines.append(f"    {named('step', step.name)} --> {named('end', kind)}")
            source = named("end", kind) if kind in ends else named("step", step.name)
            lines += _arrows(named, source, kind, ordered, bare=kind in ends)
    for kind in _outside(ordered, sagas):
        lines += [f'    {named("event", kind)}(["{kind}"])', *_arrows(named, named("event", kind), kind, ordered, bare=True)]
    for saga in sagas if undo else ():
        failed = named("failed", saga.name)
        lines.append(f'    {failed}(("{saga.name} failed"))')
        for before, undone in undo_paths(ordered, saga):
            source = named("step", before) if before is not None else failed
            lines.append(f"    {source} ==>|{_UNDO}| {named('step', undone)}")
    lines += ["    classDef good stroke:#2a7,stroke-width:2px", "    classDef bad stroke:#c33,stroke-width:2px"]
    for saga in sagas:
        lines.append(f"    class {named('end', saga.completes)} good")
        lines += [f"    class {named('end', kind)} bad" for kind in saga.fails]
        lines += [f"    class {named('failed', saga.name)} bad"] if undo else []
    return "\n".join(lines) + "\n"


def to_text(steps: Sequence[StepPlan], sagas: Sequence[SagaPlan], *, undo: bool = False) -> str:
    """The same to read: every saga with its ends, then every agent's steps with what they wait for and give.

    ``undo``: what is undone first, and what after that, with each saga.
    """
    lines: list[str] = []
    for saga in sagas:
        fails = ", ".join(saga.fails) or "nothing but a failed step"
        lines += [
            f"saga {saga.name}: {saga.intake} (intake) -> {saga.starts}",
            f"    completes with  {saga.completes}",
            f"    fails with      {fails}, or after {saga.deadline_s:g} s",
        ]
        for number, wave in enumerate(undo_order(list(steps), saga) if undo else ()):
            lines.append(f"    {'undone first' if number == 0 else 'then':<14}  {', '.join(wave)}")
    for agent, mine in agents_of(steps, sagas).items():
        lines.append(f"agent {agent}")
        for step in mine:
            marks = [
                mark
                for mark, there in (
                    ("observer", step.observer),
                    (f"{_PIVOT} pivot", step.pivot),
                    (f"{_UNDO} undone", step.effects),
                    ("answered from outside", step.external),
                )
                if there
            ]
            lines.append(f"    {_shown(step)}" + (f"  [{', '.join(marks)}]" if marks else ""))
            lines += _aligned(_reads(step))
    return "\n".join(lines) + "\n"


def _reads(step: StepPlan) -> Iterator[tuple[str, str]]:
    for number, alternatives in enumerate(step.consumes):
        yield ("waits for" if number == 0 else "and"), " or ".join(alternatives)
    for number, kind in enumerate(step.produces):
        yield ("gives" if number == 0 else ""), kind
    if step.within_s is not None:
        yield "within", f"{step.within_s:g} s"


def _aligned(pairs: Iterable[tuple[str, str]]) -> list[str]:
    return [f"        {label:<9}  {value}" for label, value in pairs]


def _shown(step: StepPlan) -> str:
    """What it is called, without its agent; and under which name sagas know it, where that is another."""
    name = step.name.partition("/")[2]
    return f"{step.title.partition('/')[2]} ({name})" if step.title else name


def _box(step: StepPlan) -> str:
    name = _shown(step)
    if step.observer:
        return f'(["{name}"])'
    join = " ⋈" if len(step.consumes) > 1 else ""
    pivot = f" {_PIVOT}" if step.pivot else ""
    return f'["{name}{join}{pivot}{f" {_UNDO}" if step.effects else ""}"]'


def _arrows(named: "_Ids", source: str, kind: str, steps: Iterable[StepPlan], *, bare: bool = False) -> Iterator[str]:
    for step in steps:
        if any(kind in alternatives for alternatives in step.consumes):
            arrow = "-.->" if step.observer else "-->"
            yield f"    {source} {arrow}{'' if bare else f'|{kind}|'} {named('step', step.name)}"


def _outside(steps: Sequence[StepPlan], sagas: Sequence[SagaPlan]) -> list[str]:
    """Event types that somebody hears and nobody here says."""
    said = {kind for step in steps for kind in step.produces} | {saga.starts for saga in sagas}
    heard = {kind for step in steps for alternatives in step.consumes for kind in alternatives}
    return sorted(heard - said)


def _distances(steps: Sequence[StepPlan], starts: Iterable[str]) -> Mapping[str, int]:
    """By event type, how many steps lie between a saga's start and it, at least."""
    distances = dict.fromkeys(starts, 0)
    todo = deque(distances)
    while todo:
        kind = todo.popleft()
        for step in steps:
            if any(kind in alternatives for alternatives in step.consumes):
                for each in step.produces:
                    if each not in distances:
                        distances[each] = distances[kind] + 1
                        todo.append(each)
    return distances


def _distance(step: StepPlan, distances: Mapping[str, int]) -> int:
    return max((min(distances.get(kind, _NEVER) for kind in kinds) for kinds in step.consumes), default=_NEVER)


class _Ids:
    """Names as Mermaid takes them: letters, digits, underscores. Different names get different ones."""

    def __init__(self) -> None:
        self._given: dict[tuple[str, str], str] = {}

    def __call__(self, kind: str, name: str) -> str:
        plain = re.sub(r"[^A-Za-z0-9]", "_", f"{kind}_{name}")
        given = self._given.get((kind, name))
        if given is None:
            taken = set(self._given.values())
            given = plain if plain not in taken else f"{plain}_{len(taken)}"
            self._given[kind, name] = given
        return given
