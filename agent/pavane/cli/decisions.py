"""``pavane sagas retry|done|skip|abandon``: what a person decides about a saga that is parked."""

import getpass
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast
from urllib.parse import quote

import typer

from pavane.cli.documents import read_once
from pavane.cli.options import BusOption, JsonOption
from pavane.cli.output import moment, print_json, safe, say
from pavane.cli.sagas import SagaArgument, story_of
from pavane_events.bus import Bus
from pavane_events.errors import ConfigurationError, ContractViolation, Problem
from pavane_events.event import Event

if TYPE_CHECKING:
    from pavane.cli.targets import Targets
    from pavane_saga.commands import Command
    from pavane_saga.facts import Corrected, Decided, Verb
    from pavane_saga.operator import Prospect
    from pavane_saga.story import Story

StepArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[STEP]",
        help="Whose undo failed, or which failed past the pivot, if there are several, or were: payment/charge.",
        show_default=False,
    ),
]
WhyOption = Annotated[str, typer.Option("--why", help="The reason, for the record.", show_default=False)]
WhoOption = Annotated[
    str | None, typer.Option("--who", help="Who decides. (default: the user of this session)", show_default=False)
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would come of it, and decide nothing.")]


@dataclass(frozen=True, slots=True)
class Question:
    """One decision that is asked for."""

    saga: str
    verb: "Verb"
    step: str | None
    who: str
    why: str
    dry_run: bool
    corrected: "Corrected" = ()
    targets: "Targets | None" = None


def retry(
    saga: SagaArgument,
    why: WhyOption,
    step: StepArgument = None,
    who: WhoOption = None,
    corrected: Annotated[
        Path | None,
        typer.Option(
            "--with",
            metavar="FILE",
            help="JSON: corrected data by event type, for this try alone. Needs --app.",
            show_default=False,
        ),
    ] = None,
    targets: Annotated[
        list[str] | None,
        typer.Option("--app", metavar="TARGET", help="The agents whose classes corrected data must fit.", show_default=False),
    ] = None,
    dry_run: DryRunOption = False,
    bus: BusOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask again for an undo that failed, or for a step that failed past the pivot, as it was or with corrected data.

    Exits with 2 where nothing of the saga has failed for good, or corrected data does not fit; 3 where the bus is unavailable.
    """
    from pavane.cli.targets import load_targets

    if corrected is not None and not targets:
        raise typer.BadParameter("it needs --app, which says what the data must fit", param_hint="--with")
    found = load_targets(targets) if targets else None
    data = _corrected(corrected) if corrected is not None else ()
    _ask(Question(saga, "retry", step, name_of(who), why, dry_run, data, found), bus, as_json=as_json)


def done(
    saga: SagaArgument,
    why: WhyOption,
    step: StepArgument = None,
    by_hand: Annotated[bool, typer.Option("--by-hand", help="A person has seen to it. Required.")] = False,
    who: WhoOption = None,
    dry_run: DryRunOption = False,
    bus: BusOption = None,
    as_json: JsonOption = False,
) -> None:
    """State that a person has taken back what an undo could not, or has done what a step past the pivot could not.

    Exits with 2 where nothing of the saga has failed for good, 3 where the bus is unavailable.
    """
    if not by_hand:
        raise typer.BadParameter("say that you have seen to it yourself", param_hint="--by-hand")
    _ask(Question(saga, "done", step, name_of(who), why, dry_run), bus, as_json=as_json)


def skip(
    saga: SagaArgument,
    why: WhyOption,
    step: StepArgument = None,
    who: WhoOption = None,
    dry_run: DryRunOption = False,
    bus: BusOption = None,
    as_json: JsonOption = False,
) -> None:
    """Leave the effect of an undo that failed standing, and undo the rest: the saga ends abandoned, not compensated.

    Past the pivot: leave undone what failed, and go on. Exits with 2 where nothing of the saga has failed for good, 3 where
    the bus is unavailable.
    """
    _ask(Question(saga, "skip", step, name_of(who), why, dry_run), bus, as_json=as_json)


def abandon(
    saga: SagaArgument,
    why: WhyOption,
    who: WhoOption = None,
    dry_run: DryRunOption = False,
    bus: BusOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a saga that is turned back or parked as it is: no undo is asked for any more, and what stands stays.

    Exits with 2 where the saga is neither, 3 where the bus is unavailable.
    """
    _ask(Question(saga, "abandon", None, name_of(who), why, dry_run), bus, as_json=as_json)


COMMANDS: dict[str, Callable[..., None]] = {"retry": retry, "done": done, "skip": skip, "abandon": abandon}
"""By name, under ``pavane sagas``."""


def name_of(who: str | None) -> str:
    """Who it is, for the record: as said, else the user of this session."""
    if who is None:
        try:
            who = getpass.getuser()
        except (KeyError, OSError):
            who = ""
    if not who.strip():
        raise typer.BadParameter("say who decides", param_hint="--who")
    return who.strip()


def _ask(question: Question, bus: str | None, *, as_json: bool) -> None:
    from pavane.cli.session import with_bus
    from pavane_saga.operator import in_words, prospect, said_before

    if not question.why.strip():
        raise typer.BadParameter("say why: it goes on record", param_hint="--why")

    async def decide(opened: Bus) -> "tuple[Story, Sequence[Decided]]":
        return await _decide(opened, question)

    story, decided = with_bus(bus, decide)
    ahead = prospect(story, decided)
    before = () if decided else said_before(story, question.verb, question.step, question.corrected)
    if as_json:
        print_json(
            {
                "saga": story.summary.saga,
                "decided": [each.identity for each in decided] if not question.dry_run else [],
                "would_decide": [each.identity for each in decided] if question.dry_run else [],
                "said_before": [
                    {
                        "identity": each.identity,
                        "who": each.who,
                        "why": each.why,
                        "at_ms": each.at_ms,
                        "corrected": [kind for kind, _ in each.corrected],
                    }
                    for each in before
                ],
                "corrected": [kind for kind, _ in question.corrected],
                "next": [_described(each) for each in ahead.next],
                "later": [_described(each) for each in ahead.later],
                "end": ahead.end,
                "standing": [{"step": name, "causes": list(causes)} for name, causes in story.standing],
                "left_standing": [{"step": name, "causes": list(causes)} for name, causes in ahead.standing],
            }
        )
        return
    if not decided:
        _tell_before(story, before)
        return
    would = "would decide" if question.dry_run else "decided"
    for each in decided:
        print(f"{would}: {safe(in_words(each))}")
    _tell_ahead(ahead, question.verb)
    if not question.dry_run:
        say("the coordinator acts on it when it reads it: pavane sagas show " + story.summary.saga)


def _tell_ahead(ahead: "Prospect", verb: "Verb") -> None:
    """What is asked for next, which end is to come, and what stands then."""
    from pavane_saga.commands import End

    for command in ahead.next:
        print(f"  next: {safe(_described(command))}")
    if not ahead.next:
        print("  next: nothing at once")
    then = [_described(each) for each in ahead.later]
    if ahead.end is None:
        then.append(f"it waits for {', '.join(ahead.waits_for)}" if ahead.waits_for else "the saga goes on")
    elif not any(isinstance(each, End) for each in ahead.next):
        then.append(_described(End(ahead.end)))
    if then:
        print(f"  then, where all goes well: {safe('; '.join(then))}")
    if verb in ("skip", "abandon") and ahead.standing:
        print(f"  left standing: {safe(', '.join(sorted({step for step, _ in ahead.standing})))}")


def _tell_before(story: "Story", before: "Sequence[Decided]") -> None:
    """Who said it, and what came of it."""
    from pavane_saga.operator import in_words

    for each in before:
        print(safe(f"said already: {in_words(each)}, by {each.who}, {moment(each.at_ms)} ({each.why})"))
    ended = story.summary.ended_ms
    if ended is not None:
        print(f"the saga ended {story.summary.state}, {moment(ended)}: nothing to do")
    else:
        print("nothing has failed since: nothing to do" if before else "it is undone already: nothing to do")


async def _decide(bus: Bus, question: Question) -> "tuple[Story, Sequence[Decided]]":
    from pavane_saga.operator import decisions

    story = await story_of(bus, question.saga)
    decided = decisions(
        story,
        question.verb,
        question.step,
        who=question.who,
        why=question.why.strip(),
        at_ms=int(time.time() * 1000),
        corrected=question.corrected,
    )
    if question.targets is not None:
        _check(question.targets, decided)
    if decided and not question.dry_run:
        await _state(bus, story, decided)
    return story, decided


async def _state(bus: Bus, story: "Story", decided: "Sequence[Decided]") -> None:
    """Publish the facts, under a trace of their own that is linked to where the saga began."""
    from pavane.cli.speaking import speaking
    from pavane_saga.wire import FACTS, fact_envelope, fact_message
    from pavane_tracing.conventions import OPERATOR_SERVICE

    saga = story.summary.saga
    after = [event.trace for event in story.events[:1]]
    async with speaking(bus, OPERATOR_SERVICE) as outbox:
        for fact in decided:
            envelope = fact_envelope(fact, saga=saga, source=f"/operators/{quote(fact.who)}", time_s=fact.at_ms / 1000)
            size = len(envelope.data)
            trace = outbox.begin(FACTS, envelope.id, envelope.type, saga=saga, size=size, after=after)
            outbox.messages.append(fact_message(envelope, trace))


def _described(command: "Command") -> str:
    from pavane_saga.commands import Acquire, End, Grant, Halt, Refuse, Undo

    if isinstance(command, Undo):
        return f"undo {command.step}" + (f" (retry {command.retry})" if command.retry else "")
    if isinstance(command, End):
        return f"the saga ends {command.verdict}"
    if isinstance(command, Grant):
        return f"{command.step} may begin" + (f" (retry {command.retry})" if command.retry else "")
    if isinstance(command, Acquire | Refuse):
        return f"the lock {command.lock!r}"
    return "all agents are told" if isinstance(command, Halt) else f"parked: {command.step}"


def _corrected(path: Path) -> "Corrected":
    """What a file gives in place of what events said."""
    try:
        document = read_once(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read", [Problem(str(path), "file", error.strerror or "")]) from error
    except ValueError as error:
        raise ConfigurationError(f"{path} cannot be taken as JSON", [Problem(str(path), "file.json", str(error))]) from error
    if not isinstance(document, dict) or not document:
        message = 'one JSON object: the corrected data by event type, as {"shop.charged": {...}}'
        raise ConfigurationError(f"{path} does not say what to correct", [Problem(str(path), "file.object", message)])
    members = cast("dict[str, object]", document)
    return tuple(sorted((kind, json.dumps(data, separators=(",", ":"), ensure_ascii=False)) for kind, data in members.items()))


def _check(targets: "Targets", decided: "Sequence[Decided]") -> None:
    """Corrected data must fit the classes through which the step takes and gives these events."""
    steps = {step.wire_name: step for agent in targets.agents for step in agent.steps.values()}
    problems: list[Problem] = []
    for each in decided:
        step = steps.get(each.step)
        if step is None:
            problems.append(Problem(each.step, "step.unknown", "none of the agents that --app names has that step"))
            continue
        kinds: list[type[Event]] = [view for parameter in step.signature.parameters for view in parameter.views]
        kinds += step.signature.produces
        for kind, data in each.corrected:
            view = next((view for view in kinds if view.event_type == kind), None)
            if view is None:
                problems.append(Problem(kind, "corrected.unknown", f"{each.step} neither takes nor gives it"))
                continue
            try:
                view.from_json_strictly(data)
            except ContractViolation as error:
                problems += error.problems
    if problems:
        raise ContractViolation("nothing was decided: the corrected data does not fit", problems)
