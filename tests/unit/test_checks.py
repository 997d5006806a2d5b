"""Checks: each finding has its code, says where, and names the fix."""

import ast
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import BaseModel, Field

from pavane_events.contracts import read_by, said_by
from pavane_events.event import Event
from pavane_saga.checks import Contract, check_choreography
from pavane_saga.facts import StepPlan
from pavane_saga.finding import Finding
from pavane_saga.manifest import Manifest, SagaPlan

CHARGE = StepPlan("payment/charge", (("placed",),), ("paid",), effects=True)
PACK = StepPlan("packing/pack", (("placed",),), ("packed",), effects=True)
SHIP = StepPlan("shipping/ship", (("paid",), ("packed",)), ("shipped", "refused"), effects=False)
TELL = StepPlan("letters/tell", (("refused",), ("pavane.saga-ended",)), (), effects=False, observer=True)
SAGA = SagaPlan("order", "placed", "shipped", ("refused",), "orders", 300.0)


def manifests(*steps: StepPlan) -> list[Manifest]:
    by_agent: dict[str, list[StepPlan]] = {}
    for step in steps:
        by_agent.setdefault(step.name.partition("/")[0], []).append(step)
    return [Manifest(agent, f"{agent}@1", tuple(mine)) for agent, mine in by_agent.items()]


def found(*steps: StepPlan, sagas: tuple[SagaPlan, ...] = (SAGA,)) -> dict[str, Finding]:
    findings = check_choreography(manifests(*steps), sagas)
    assert len({finding.code for finding in findings}) == len(findings), findings
    return {finding.code: finding for finding in findings}


def test_a_sound_choreography_has_no_findings() -> None:
    assert check_choreography(manifests(CHARGE, PACK, SHIP, TELL), [SAGA]) == []


def test_two_agents_of_one_name_are_an_error() -> None:
    findings = check_choreography([*manifests(CHARGE, PACK, SHIP, TELL), *manifests(CHARGE)], [SAGA])
    assert [(each.code, each.severity, each.where) for each in findings] == [("agent.doubled", "error", "payment")]


def test_a_step_name_that_is_given_twice_is_an_error() -> None:
    assert found(CHARGE, CHARGE, PACK, SHIP)["step.doubled"].where == "payment/charge"


def test_two_sagas_of_one_name_start_or_intake_are_errors() -> None:
    codes = found(CHARGE, PACK, SHIP, sagas=(SAGA, SAGA))
    assert {code for code, finding in codes.items() if finding.severity == "error"} == {
        "saga.doubled",
        "saga.start-doubled",
        "saga.intake-doubled",
    }


def test_a_step_that_hears_a_failure_must_be_an_observer() -> None:
    finding = found(CHARGE, PACK, SHIP, replace(TELL, consumes=(("refused",),), observer=False))["fails.heard"]
    assert (finding.severity, finding.where) == ("error", "letters/tell")
    assert "make it @agent.observe" in finding.message


def test_a_step_that_hears_the_end_must_be_an_observer() -> None:
    late = StepPlan("letters/tell", (("pavane.saga-ended",),), (), effects=False)
    assert found(CHARGE, PACK, SHIP, late)["ended.heard"].severity == "error"


def test_a_start_event_comes_from_the_intake_only() -> None:
    again = StepPlan("shop/reorder", (("shipped",),), ("placed",), effects=False)
    assert "publish to the intake orders instead" in found(CHARGE, PACK, SHIP, again)["start.produced"].message


def test_an_event_that_nobody_hears_is_a_warning() -> None:
    finding = found(replace(CHARGE, produces=("paid", "receipt")), PACK, SHIP)["event.unheard"]
    assert (finding.severity, finding.where) == ("warning", "receipt")


def test_an_event_that_nobody_says_is_a_warning_while_the_saga_can_complete_without_it() -> None:
    finding = found(CHARGE, replace(PACK, consumes=(("placed", "moved"),)), SHIP)["event.unproduced"]
    assert (finding.severity, finding.where) == ("warning", "moved")


def test_a_saga_that_can_never_complete_is_an_error_that_names_who_waits_for_what() -> None:
    finding = found(CHARGE, SHIP)["completes.unreachable"]
    assert (finding.severity, finding.where) == ("error", "shipped")
    assert "shipping/ship waits for packed" in finding.message


def test_two_joins_that_wait_for_each_other_are_found() -> None:
    left = StepPlan("a/left", (("placed",), ("right",)), ("left",), effects=False)
    right = StepPlan("b/right", (("left",),), ("right", "shipped"), effects=False)
    codes = found(left, right, sagas=(replace(SAGA, fails=()),))
    assert "a/left waits for right; b/right waits for left" in codes["completes.unreachable"].message


def test_an_end_that_nobody_says_is_named() -> None:
    finding = found(CHARGE, PACK, replace(SHIP, produces=("refused",)))["completes.unreachable"]
    assert "nobody says it: let a step return shipped" in finding.message


def test_a_failure_that_nobody_says_is_a_warning() -> None:
    finding = found(CHARGE, PACK, replace(SHIP, produces=("shipped",)))["fails.unproduced"]
    assert (finding.severity, finding.where) == ("warning", "refused")


def test_a_start_that_nobody_hears_is_a_warning() -> None:
    codes = check_choreography(manifests(replace(SHIP, consumes=(("paid",),))), [SAGA])
    assert "start.unheard" in {finding.code for finding in codes}


def test_an_undo_off_the_way_to_the_end_is_a_warning() -> None:
    gift = StepPlan("gifts/wrap", (("placed",),), (), effects=True)
    finding = found(CHARGE, PACK, SHIP, gift)["undo.off-the-way"]
    assert (finding.severity, finding.where) == ("warning", "gifts/wrap")


def test_a_step_without_effects_off_the_way_to_any_end_is_a_warning() -> None:
    count = StepPlan("stock/count", (("placed",),), (), effects=False)
    finding = found(CHARGE, PACK, SHIP, TELL, count)["step.off-the-way"]
    assert (finding.severity, finding.where) == ("warning", "stock/count")
    assert "order completes only after it has answered" in finding.message


def test_a_step_that_may_fail_its_saga_is_there_for_that_and_a_retriable_one_for_what_it_does() -> None:
    refuse = StepPlan("fraud/look", (("placed",),), ("refused",), effects=False)
    send = StepPlan("letters/send", (("bought",),), (), effects=False, retriable=True)
    assert found(CHARGE, PACK, SHIP, TELL, refuse) == {}
    assert found(CHARGE, PACK, PAY, SEND, TELL, send) == {}


def test_a_failure_that_only_a_step_says_that_is_never_called_is_a_warning() -> None:
    refuse = StepPlan("fraud/look", (("looked-up",),), ("suspected",), effects=False)
    codes = found(CHARGE, PACK, SHIP, TELL, refuse, sagas=(replace(SAGA, fails=("refused", "suspected")),))
    finding = codes["fails.unreachable"]
    assert (finding.severity, finding.where) == ("warning", "suspected")
    assert "fraud/look waits for looked-up" in finding.message
    assert "fails.unreachable" not in found(PACK, SHIP, TELL)


PAY = replace(SHIP, name="till/pay", produces=("bought", "refused"), effects=True, pivot=True)
SEND = StepPlan("shipping/send", (("bought",),), ("shipped",), effects=False, retriable=True)


def test_a_sound_pivot_has_no_findings() -> None:
    assert check_choreography(manifests(CHARGE, PACK, PAY, SEND, TELL), [SAGA]) == []


def test_two_pivots_are_an_error() -> None:
    finding = found(CHARGE, PACK, PAY, replace(SEND, retriable=False, pivot=True), TELL)["pivot.doubled"]
    assert (finding.severity, finding.where) == ("error", "shipping/send")


def test_a_failure_after_the_pivot_is_an_error() -> None:
    late = replace(SEND, produces=("shipped", "refused"))
    assert found(CHARGE, PACK, PAY, late, TELL)["fails.after-pivot"].where == "shipping/send"


def test_an_undo_after_the_pivot_is_a_warning() -> None:
    undone = replace(SEND, effects=True, retriable=False)
    assert found(CHARGE, PACK, PAY, undone, TELL)["undo.after-pivot"].where == "shipping/send"


def test_a_lock_after_the_pivot_is_a_warning() -> None:
    assert found(CHARGE, PACK, PAY, replace(SEND, locks=True), TELL)["lock.after-pivot"].where == "shipping/send"


def test_a_step_beside_the_pivot_that_nothing_undoes_is_a_warning() -> None:
    beside = replace(PACK, effects=False, retriable=True)
    assert found(CHARGE, beside, PAY, SEND, TELL)["retriable.before-pivot"].where == "packing/pack"


def test_an_undo_on_the_way_to_the_pivot_is_on_the_way() -> None:
    no_way = replace(SEND, consumes=(("placed",),), retriable=False)
    assert "undo.off-the-way" not in found(CHARGE, PACK, PAY, no_way, TELL)


def test_a_failure_that_nobody_hears_is_a_warning() -> None:
    assert found(CHARGE, PACK, SHIP)["fails.unheard"].where == "refused"
    assert "fails.unheard" not in found(CHARGE, PACK, SHIP, replace(TELL, consumes=(("pavane.saga-ended",),)))


ASKING = replace(SAGA, answers=("allowed",))
ALLOW = StepPlan("desk/allow", (("packed",), ("allowed",)), ("shipped", "refused"), effects=False, within_s=60, external=True)


def test_a_sound_step_that_is_answered_from_outside_has_no_findings() -> None:
    assert check_choreography(manifests(PACK, ALLOW, TELL), [ASKING]) == []


def test_an_answer_that_no_saga_takes_in_is_an_error() -> None:
    findings = check_choreography(manifests(PACK, ALLOW, TELL), [SAGA])
    assert {"external.unanswered", "completes.unreachable"} <= {each.code for each in findings}


def test_an_answer_that_nobody_waits_for_or_that_a_step_gives_is_told() -> None:
    assert found(CHARGE, PACK, SHIP, TELL, sagas=(ASKING,))["answer.unheard"].where == "allowed"
    assert found(replace(PACK, produces=("packed", "allowed")), ALLOW, TELL, sagas=(ASKING,))["answer.produced"].where == (
        "packing/pack"
    )


def test_a_step_that_waits_for_an_answer_says_so_and_not_for_longer_than_its_saga() -> None:
    assert found(PACK, replace(ALLOW, external=False), TELL, sagas=(ASKING,))["answer.not-external"].where == "allowed"
    assert found(PACK, replace(ALLOW, within_s=301), TELL, sagas=(ASKING,))["external.deadline"].where == "desk/allow"


@pytest.mark.parametrize("order", [1, -1])
def test_every_step_that_waits_for_an_answer_says_so_whoever_else_does(order: int) -> None:
    silent = StepPlan("desk/note", (("packed",), ("allowed",)), ("shipped",), effects=False)
    finding = found(PACK, *(ALLOW, silent)[::order], TELL, sagas=(ASKING,))["answer.not-external"]
    assert (finding.where, finding.message.split()[0]) == ("allowed", "desk/note")


def test_errors_come_before_warnings() -> None:
    findings = check_choreography(manifests(replace(CHARGE, produces=("paid", "receipt")), SHIP), [SAGA])
    severities = [finding.severity for finding in findings]
    assert severities == sorted(severities)


class Paid(Event, type="paid", version=1):
    amount: int = Field(ge=1)
    currency: str
    note: str | None = None
    kind: str = Field(json_schema_extra={"enum": ["card", "cash"]})


def contract(kind: type[Event], role: str, version: int = 1) -> Contract:
    where = "payment/charge" if role == "produces" else "shipping/ship"
    if role == "produces":
        return Contract(kind.event_type, version, kind.__name__, where, "produces", said_by(kind))
    return Contract(kind.event_type, version, kind.__name__, where, "consumes", read_by(kind))


def between(consumer: type[Event], producer: type[Event] | None = None, *, version: int = 1) -> list[Finding]:
    contracts = [contract(producer or Paid, "produces"), contract(consumer, "consumes", version)]
    return check_choreography(manifests(CHARGE, PACK, SHIP, TELL), [SAGA], contracts)


def test_a_consumer_that_is_behind_its_producer_is_an_error() -> None:
    (finding,) = check_choreography(
        manifests(CHARGE, PACK, SHIP, TELL), [SAGA], [contract(Paid, "produces", 2), contract(Paid, "consumes", 1)]
    )
    assert (finding.code, finding.severity, finding.where) == ("contract.future-version", "error", "shipping/ship")


def test_a_consumer_that_is_ahead_of_its_producer_is_a_warning() -> None:
    (finding,) = between(Paid, version=2)
    assert (finding.code, finding.severity) == ("contract.version", "warning")


class Narrower(Paid):
    amount: int = Field(ge=100)
    kind: str = Field(json_schema_extra={"enum": ["card"]})


class Wider(Event, type="paid", version=1):
    amount: float


class Needy(Paid):
    customer: str


class Textual(Event, type="paid", version=1):
    amount: str


class Negative(Event, type="paid", version=1):
    amount: int = Field(lt=1)


class Bartered(Event, type="paid", version=1):
    kind: str = Field(json_schema_extra={"enum": ["goods"]})


class Noted(Event, type="paid", version=1):
    note: str


@pytest.mark.parametrize("view", [Paid, Narrower, Wider, Noted])
def test_a_narrower_or_wider_view_contradicts_nothing(view: type[Event]) -> None:
    assert [each for each in between(view) if each.code != "contract.narrower"] == []


@pytest.mark.parametrize(
    ("view", "field", "why"),
    [
        (Needy, "customer", "is required and is never said"),
        (Textual, "amount", "is of type integer, wanted is string"),
        (Negative, "amount", "lies from 1 to inf, wanted is -inf to 0"),
        (Bartered, "kind", "is one of ['card', 'cash'], wanted is one of ['goods']"),
    ],
)
def test_a_view_that_no_event_can_fit_is_a_warning_that_names_the_field(view: type[Event], field: str, why: str) -> None:
    (finding,) = between(view)
    assert (finding.code, finding.severity) == ("contract.contradiction", "warning")
    assert f"{field} {why}" in finding.message


class Measured(Event, type="measured", version=1):
    level: float = Field(ge=0, le=1)
    note: str | None = None
    kind: str = Field(json_schema_extra={"enum": ["a", "b"]})
    tags: tuple[str, ...] = ()
    by: Paid


class Sure(Event, type="measured", version=1):
    level: float = Field(ge=0.7, le=1)


class Noteworthy(Event, type="measured", version=1):
    note: str


class OfOneKind(Event, type="measured", version=1):
    kind: str = Field(json_schema_extra={"enum": ["a"]})


class Tagged(Event, type="measured", version=1):
    tags: tuple[str, ...] = Field(min_length=1)


class Whole(Event, type="measured", version=1):
    level: int


class Dear(Event, type="paid", version=1):
    amount: int = Field(ge=100)


class ByTheRich(Event, type="measured", version=1):
    by: Dear


class Shortly(Event, type="measured", version=1):
    tags: tuple[Annotated[str, Field(max_length=3)], ...]


class Open(Event, type="measured", version=1):
    level: float | None
    kind: str
    by: Wider


@pytest.mark.parametrize(
    ("view", "field", "why"),
    [
        (Sure, "level", "may be 0 to 1, wanted is 0.7 to 1"),
        (Noteworthy, "note", "may be null"),
        (OfOneKind, "kind", "may be ['b'], wanted is one of ['a']"),
        (Tagged, "tags", "may be shorter: wanted has at least 1 items"),
        (Whole, "level", "may be any number, wanted is an integer"),
        (ByTheRich, "by.amount", "may be 1 or more, wanted is 100 or more"),
        (Shortly, "tags[]", "may be longer: wanted has at most 3 characters"),
    ],
)
def test_a_view_that_takes_less_than_may_come_is_a_warning_that_names_the_field(
    view: type[Event], field: str, why: str
) -> None:
    (finding,) = between(view, Measured)
    assert (finding.code, finding.severity) == ("contract.narrower", "warning")
    assert f"{field} {why}" in finding.message


def test_a_view_that_takes_more_is_no_finding() -> None:
    assert between(Open, Measured) == []


class Part(BaseModel):
    price: int
    parts: "list[Part]" = []
    by_name: "dict[str, Part]" = {}


class DearPart(BaseModel):
    price: int = Field(ge=1)
    parts: "list[DearPart]" = []


class Built(Event, type="built", version=1):
    root: Part


class DearlyBuilt(Event, type="built", version=1):
    root: DearPart


class Nested(Event, type="nested", version=1):
    depth: int
    within: "Nested | None" = None


class DeeplyNested(Event, type="nested", version=1):
    depth: int = Field(ge=1)
    within: "DeeplyNested | None" = None


class Labelled(Event, type="nested", version=1):
    label: str
    within: "Labelled | None" = None


def test_models_that_hold_others_of_their_kind_are_held_against_each_other() -> None:
    assert between(Built, Built) == []
    assert between(Nested, Nested) == []
    for view, producer, field in ((DearlyBuilt, Built, "root.price"), (DeeplyNested, Nested, "depth")):
        (finding,) = between(view, producer)
        assert (finding.code, finding.where.split()[-1]) == ("contract.narrower", field)
    (finding,) = between(Labelled, Nested)
    assert (finding.code, finding.where.split()[-1]) == ("contract.contradiction", "label")


class Curt(Event, type="measured", version=1, extra="forbid"):
    level: float


def test_a_view_that_forbids_what_is_said_contradicts() -> None:
    assert {each.where.split()[-1] for each in between(Curt, Measured)} == {"note", "kind", "tags", "by"}
    assert {each.code for each in between(Curt, Measured)} == {"contract.contradiction"}


def round_about(name: str, hears: str, says: str) -> StepPlan:
    return StepPlan(name, ((hears,),), (says,), effects=False)


ANSWER = round_about("b/answer", "asked", "answered")


def circles(*steps: StepPlan) -> list[Finding]:
    findings = check_choreography(manifests(CHARGE, PACK, SHIP, *steps), [SAGA])
    return [finding for finding in findings if finding.code == "cycle.unbounded"]


def test_steps_that_lead_back_to_themselves_are_told_once_with_the_way() -> None:
    finding = circles(round_about("a/ask", "paid", "asked"), ANSWER, round_about("a/again", "answered", "asked"))[0]
    assert (finding.severity, finding.where) == ("warning", "a/again")
    assert "(a/again -> b/answer -> a/again)" in finding.message


def test_a_step_that_hears_what_it_says_is_a_circle_and_an_observer_is_none() -> None:
    observer = replace(round_about("b/echo", "echoed", "echoed"), observer=True)
    assert [each.where for each in circles(round_about("a/echo", "echoed", "echoed"), observer)] == ["a/echo"]


def test_a_sound_choreography_goes_round_nowhere() -> None:
    assert circles() == []


SOURCES = (
    "saga/pavane_saga/checks.py",
    "saga/pavane_saga/forward_checks.py",
    "saga/pavane_saga/saga.py",
    "agent/pavane/agent.py",
    "agent/pavane/signature.py",
    "agent/pavane/step.py",
    "events/pavane_events/event.py",
    "events/pavane_events/topics.py",
)
"""Where findings are made, and what is a finding where it is raised at import or is found on brokers."""

MADE_UP = {"schema.missing", "schema.different", "step.parameter-type", "step.return-type"}
"""Codes that are put together."""

OTHERS = {"contract.more", "contract.validator", "topic.kind", "topic.name"}
"""Codes of data that does not fit, and of names that brokers do not take."""


def codes_in(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("Finding", "Problem"):
            code = node.args[0 if node.func.id == "Finding" else 1]
            if isinstance(code, ast.Constant):
                yield str(code.value)


def test_the_page_lists_every_code() -> None:
    root = Path(__file__).parents[2]
    page = (root / "docs/reference/checks.md").read_text(encoding="utf-8")
    codes = {code for name in SOURCES for code in codes_in((root / name).read_text(encoding="utf-8"))}
    assert len(codes) > 70
    listed = re.findall(r"^\| `([a-z.-]+)` \|", page, re.MULTILINE)
    assert sorted(listed) == sorted((codes | MADE_UP) - OTHERS)
