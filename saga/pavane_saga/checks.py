"""Checks: what is wrong with a choreography before anything runs. Pure: manifests, plans, contracts in, findings out."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pavane_events.contracts import contradictions
from pavane_events.narrowing import narrowings
from pavane_saga.facts import StepPlan
from pavane_saga.finding import Finding
from pavane_saga.forward_checks import check_forward
from pavane_saga.manifest import Manifest, SagaPlan
from pavane_saga.saga import SagaEnded
from pavane_saga.ways import ancestors, can_run, heard_by, missing, reached

MAY_BE_ELSEWHERE = frozenset(
    {
        "answer.unheard",
        "completes.unreachable",
        "event.unheard",
        "event.unproduced",
        "fails.unheard",
        "fails.unproduced",
        "fails.unreachable",
        "retriable.before-pivot",
        "start.unheard",
        "step.off-the-way",
        "undo.off-the-way",
    }
)
"""Codes of what an agent that is not among those named may settle, as by saying the event or by hearing it."""


@dataclass(frozen=True, slots=True)
class Contract:
    """A class through which a step (or a saga's start) makes or reads an event, with its JSON Schema."""

    type: str
    version: int
    name: str
    where: str
    role: Literal["produces", "consumes"]
    schema: Mapping[str, object]


def check_choreography(
    agents: Sequence[Manifest], sagas: Sequence[SagaPlan], contracts: Sequence[Contract] = ()
) -> list[Finding]:
    """Everything that is wrong between these agents and sagas, errors first.

    What none of them produces or hears may be somebody else's: name the whole deployment to be told the truth.
    """
    steps = [step for manifest in agents for step in manifest.steps if not step.retiring]
    found = [
        *_doubled_names(agents, sagas),
        *_doubled_starts(sagas),
        *_heard_ends(steps, sagas),
        *_produced_starts(steps, sagas),
        *_loose_events(steps, sagas),
        *(finding for saga in sagas for finding in _unreachable(steps, saga)),
        *_off_the_way(steps, sagas),
        *check_forward(steps, sagas),
        *_circles(steps),
        *_versions(contracts),
        *_contradictions(contracts),
        *_narrower(contracts),
    ]
    return sorted(found, key=lambda finding: finding.severity)


def _doubled_names(agents: Sequence[Manifest], sagas: Sequence[SagaPlan]) -> Iterator[Finding]:
    for name in _doubled(manifest.agent for manifest in agents):
        message = "two agents have this name: they would share lanes and take each other's events; rename one"
        yield Finding("agent.doubled", "error", name, message)
    for manifest in agents:
        for name in _doubled(step.name for step in manifest.steps):
            yield Finding("step.doubled", "error", name, "two steps have this name: give name= to one of them")
    for name in _doubled(saga.name for saga in sagas):
        yield Finding("saga.doubled", "error", name, "two sagas have this name: rename one")


def _doubled_starts(sagas: Sequence[SagaPlan]) -> Iterator[Finding]:
    for kind in _doubled(saga.starts for saga in sagas):
        names = ", ".join(saga.name for saga in sagas if saga.starts == kind)
        message = f"{names} start with the same event, and an event belongs to one saga: give each a start of its own"
        yield Finding("saga.start-doubled", "error", kind, message)
    for topic in _doubled(saga.intake for saga in sagas):
        names = ", ".join(saga.name for saga in sagas if saga.intake == topic)
        message = f"{names} take in from the same topic, and a record starts one saga: give each an intake of its own"
        yield Finding("saga.intake-doubled", "error", topic, message)


def _heard_ends(steps: Sequence[StepPlan], sagas: Sequence[SagaPlan]) -> Iterator[Finding]:
    fails = {kind for saga in sagas for kind in saga.fails}
    for step in steps:
        for kind in sorted(heard_by(step)):
            if step.observer:
                continue
            if kind in fails:
                message = f"it listens to {kind}, which fails its saga, so it would be undone at once: make it @agent.observe"
                yield Finding("fails.heard", "error", step.name, message)
            elif kind == SagaEnded.event_type:
                message = f"it listens to {kind}, which comes when the saga is over: make it @agent.observe"
                yield Finding("ended.heard", "error", step.name, message)


def _produced_starts(steps: Sequence[StepPlan], sagas: Sequence[SagaPlan]) -> Iterator[Finding]:
    intakes = {saga.starts: saga.intake for saga in sagas}
    for step in steps:
        for kind in step.produces:
            if kind in intakes:
                message = f"it produces {kind}, which starts a saga: publish to the intake {intakes[kind]} instead"
                yield Finding("start.produced", "error", step.name, message)


def _loose_events(steps: Sequence[StepPlan], sagas: Sequence[SagaPlan]) -> Iterator[Finding]:
    """Events that nobody hears, or that somebody waits for and nobody says."""
    starts = {saga.starts for saga in sagas}
    ends = {kind for saga in sagas for kind in (saga.completes, *saga.fails)}
    said = {kind: step.name for step in steps for kind in step.produces}
    heard = {kind: step.name for step in steps for kind in heard_by(step)}
    for kind in sorted(said.keys() - heard.keys() - ends):
        message = f"{said[kind]} says it and nobody hears it: let a step or an observer listen, or do not say it"
        yield Finding("event.unheard", "warning", kind, message)
    answers = {kind for saga in sagas for kind in saga.answers}
    for kind in sorted(heard.keys() - said.keys() - starts - answers):
        if not kind.startswith("pavane."):
            message = f"{heard[kind]} waits for it and nobody here says it: name its producer too, or correct the type"
            yield Finding("event.unproduced", "warning", kind, message)
    for kind in sorted(starts - heard.keys()):
        yield Finding("start.unheard", "warning", kind, "it starts a saga and no step hears it: nothing would happen")
    for saga in sagas:
        for kind in sorted(set(saga.fails) - said.keys()):
            message = f"it fails {saga.name} and nobody here says it: name its producer too, or leave it out of fails="
            yield Finding("fails.unproduced", "warning", kind, message)
    if SagaEnded.event_type not in heard:
        for kind in sorted({kind for saga in sagas for kind in saga.fails} - heard.keys()):
            message = f"it fails its saga and nobody is told: observe it, or {SagaEnded.event_type}, with @agent.observe"
            yield Finding("fails.unheard", "warning", kind, message)


def _unreachable(steps: Sequence[StepPlan], saga: SagaPlan) -> Iterator[Finding]:
    """Which ends cannot come about: a step answers once every parameter has an event that can come about.

    Where it is ``completes``, that alone is told.
    """
    known = reached(steps, (saga.starts, *saga.answers))
    stuck = [step for step in steps if step.produces and not step.observer and not can_run(step, known)]
    if saga.completes in known:
        for kind in sorted(set(saga.fails) - known):
            waits = [f"{step.name} waits for {missing(step, known)}" for step in stuck if kind in step.produces]
            if waits:
                message = (
                    f"it fails {saga.name}, and who says it is never called ({'; '.join(waits)}): name who says that, or"
                    " correct the types"
                )
                yield Finding("fails.unreachable", "warning", kind, message)
        return
    waits = [f"{step.name} waits for {missing(step, known)}" for step in stuck]
    makers = any(saga.completes in step.produces for step in steps)
    why = "; ".join(waits[:3]) if makers and waits else f"nobody says it: let a step return {saga.completes}"
    message = f"{saga.name} can never complete: from {saga.starts} nothing leads to {saga.completes} ({why})"
    yield Finding("completes.unreachable", "error", saga.completes, message)


def _off_the_way(steps: Sequence[StepPlan], sagas: Sequence[SagaPlan]) -> Iterator[Finding]:
    """Steps with an undo on which neither a saga's end builds nor its pivot; and such as change nothing, and fail nothing.

    A ``retriable`` step is no such step: it is there for what it does.
    """
    on_the_way: set[str] = set()
    to_a_failure: set[str] = set()
    for saga in sagas:
        on_the_way |= ancestors(steps, saga.completes)
        to_a_failure = to_a_failure.union(*(ancestors(steps, kind) for kind in saga.fails))
        for step in steps:
            if step.pivot and can_run(step, reached(steps, (saga.starts, *saga.answers))):
                on_the_way |= {step.name}.union(*(ancestors(steps, kind) for kind in heard_by(step)))
    for saga in sagas:
        known = reached(steps, (saga.starts, *saga.answers))
        for step in steps if saga.completes in known else ():
            if step.observer or not can_run(step, known) or step.name in on_the_way:
                continue
            message = (
                f"nothing that leads to {saga.completes} builds on it: {saga.name} completes only after it has"
                " answered, and its failure undoes everything; make it an observer, or let a later step take its event"
            )
            if step.effects:
                yield Finding("undo.off-the-way", "warning", step.name, message)
            elif not step.retriable and step.name not in to_a_failure:
                yield Finding("step.off-the-way", "warning", step.name, message)


def _circles(steps: Sequence[StepPlan]) -> Iterator[Finding]:
    """Steps whose answer leads back to them: each circle is told once, at the step of it whose name comes first."""
    told: set[str] = set()
    for step in sorted(steps, key=lambda each: each.name):
        circle = _way_back(steps, step)
        if circle and told.isdisjoint(circle):
            told.update(circle)
            way = " -> ".join([*circle, step.name])
            message = (
                f"its answer comes back to it ({way}) and nothing here bounds how often: let one of them answer with another"
                " event in the end, say by a field that counts"
            )
            yield Finding("cycle.unbounded", "warning", step.name, message)


def _way_back(steps: Sequence[StepPlan], start: StepPlan) -> list[str]:
    """The shortest way by which a step's answer leads back to it, as names of steps; empty where none does."""
    ways: list[list[StepPlan]] = [[start]]
    seen = {start.name}
    while ways:
        way = ways.pop(0)
        for step in steps:
            if step.observer or heard_by(step).isdisjoint(way[-1].produces):
                continue
            if step.name == start.name:
                return [each.name for each in way]
            if step.name not in seen:
                seen.add(step.name)
                ways.append([*way, step])
    return []


def _versions(contracts: Sequence[Contract]) -> Iterator[Finding]:
    for producer, consumer in _pairs(contracts):
        if consumer.version < producer.version:
            message = (
                f"it reads {consumer.type} as version {consumer.version} and {producer.where} says version"
                f" {producer.version}, which it refuses: upgrade consumers before producers"
            )
            yield Finding("contract.future-version", "error", consumer.where, message)
        elif consumer.version > producer.version:
            message = (
                f"it reads {consumer.type} as version {consumer.version} and {producer.where} says version"
                f" {producer.version}: see that {consumer.name} takes both, then upgrade the producer"
            )
            yield Finding("contract.version", "warning", consumer.where, message)


def _contradictions(contracts: Sequence[Contract]) -> Iterator[Finding]:
    for producer, consumer in _pairs(contracts):
        if consumer.version == producer.version:
            for field, why in contradictions(producer.schema, consumer.schema):
                message = (
                    f"its {consumer.name} can never fit what {producer.where} says as {producer.name}: {field} {why};"
                    " correct the view, or make it another version"
                )
                yield Finding("contract.contradiction", "warning", f"{consumer.where}, {consumer.type} {field}", message)


def _narrower(contracts: Sequence[Contract]) -> Iterator[Finding]:
    for producer, consumer in _pairs(contracts):
        if consumer.version == producer.version:
            for field, why in narrowings(producer.schema, consumer.schema):
                message = (
                    f"its {consumer.name} takes less than {producer.where} may say as {producer.name}: {field} {why}; an event"
                    " that does not fit fails the step: widen the view, or narrow the contract"
                )
                yield Finding("contract.narrower", "warning", f"{consumer.where}, {consumer.type} {field}", message)


def _pairs(contracts: Sequence[Contract]) -> Iterator[tuple[Contract, Contract]]:
    """Every consumer with every producer of its type."""
    for consumer in contracts:
        if consumer.role == "consumes":
            for producer in contracts:
                if producer.role == "produces" and producer.type == consumer.type:
                    yield producer, consumer


def _doubled(names: Iterable[str]) -> list[str]:
    return sorted(name for name, count in Counter(names).items() if count > 1)
