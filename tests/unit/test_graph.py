"""Graph: the choreography drawn from declarations."""

from pavane_saga.facts import StepPlan
from pavane_saga.graph import agents_of, to_mermaid, to_text, undo_order, undo_paths
from pavane_saga.manifest import SagaPlan

STEPS = [
    StepPlan("risk/assess", (("score",), ("income", "pledge")), ("ready", "refused"), effects=True, within_s=60.0),
    StepPlan("scoring/compute", (("placed",),), ("score",), effects=True),
    StepPlan("income/verify", (("placed",),), ("income",), effects=False),
    StepPlan("letters/tell", (("refused",),), (), effects=False, observer=True),
]
SAGA = SagaPlan("credit", "placed", "ready", ("refused",), "orders", 300.0)


def test_the_picture_has_a_box_per_agent_an_arrow_per_event_and_a_hexagon_per_end() -> None:
    assert to_mermaid(STEPS, [SAGA]).splitlines() == [
        "flowchart LR",
        '    intake_orders[/"orders"/]',
        '    subgraph agent_income["income"]',
        '        step_income_verify["verify"]',
        "    end",
        '    subgraph agent_scoring["scoring"]',
        '        step_scoring_compute["compute ↩"]',
        "    end",
        '    subgraph agent_risk["risk"]',
        '        step_risk_assess["assess ⋈ ↩"]',
        "    end",
        '    subgraph agent_letters["letters"]',
        '        step_letters_tell(["tell"])',
        "    end",
        '    end_ready{{"ready"}}',
        '    end_refused{{"refused"}}',
        "    intake_orders -->|placed| step_income_verify",
        "    intake_orders -->|placed| step_scoring_compute",
        "    step_income_verify -->|income| step_risk_assess",
        "    step_scoring_compute -->|score| step_risk_assess",
        "    step_risk_assess --> end_ready",
        "    step_risk_assess --> end_refused",
        "    end_refused -.-> step_letters_tell",
        '    event_pledge(["pledge"])',
        "    event_pledge --> step_risk_assess",
        "    classDef good stroke:#2a7,stroke-width:2px",
        "    classDef bad stroke:#c33,stroke-width:2px",
        "    class end_ready good",
        "    class end_refused bad",
    ]


def test_the_same_declarations_in_another_order_give_the_same_picture() -> None:
    assert to_mermaid(STEPS[::-1], [SAGA]) == to_mermaid(STEPS, [SAGA])


def test_agents_stand_in_the_order_in_which_a_saga_comes_to_them() -> None:
    assert list(agents_of(STEPS, [SAGA])) == ["income", "scoring", "risk", "letters"]


def test_names_that_mermaid_would_confuse_are_kept_apart() -> None:
    steps = [StepPlan(f"agent/{name}", (("placed",),), (), effects=False) for name in ("a-b", "a.b", "a_b")]
    boxes = [line for line in to_mermaid(steps, [SAGA]).splitlines() if '["a' in line]
    assert len({line.split("[")[0].strip() for line in boxes[1:]}) == 3


def test_the_text_says_what_every_step_waits_for_and_gives() -> None:
    text = to_text(STEPS, [SAGA])
    assert "saga credit: orders (intake) -> placed\n" in text
    assert "fails with      refused, or after 300 s\n" in text
    assert (
        "agent risk\n"
        "    assess  [↩ undone]\n"
        "        waits for  score\n"
        "        and        income or pledge\n"
        "        gives      ready\n"
        "                   refused\n"
        "        within     60 s\n"
    ) in text
    assert "    tell  [observer]\n        waits for  refused\n" in text


def test_agents_without_a_saga_are_drawn_too() -> None:
    assert "step_scoring_compute" in to_mermaid(STEPS, [])
    assert to_text(STEPS, []).startswith("agent income\n")


def test_the_way_back_leads_from_the_last_user_to_the_first_maker() -> None:
    assert sorted(undo_paths(STEPS, SAGA), key=str) == [("risk/assess", "scoring/compute"), (None, "risk/assess")]
    assert undo_order(STEPS, SAGA) == [["risk/assess"], ["scoring/compute"]]


def test_a_step_without_an_undo_hands_the_wait_on() -> None:
    through = [
        StepPlan("a/first", (("placed",),), ("one",), effects=True),
        StepPlan("b/second", (("one",),), ("two",), effects=False),
        StepPlan("c/third", (("two",),), ("three",), effects=True),
        StepPlan("d/beside", (("one",),), (), effects=True),
        StepPlan("e/elsewhere", (("never",),), (), effects=True),
    ]
    assert undo_order(through, SAGA) == [["c/third", "d/beside"], ["a/first"]]


def test_steps_in_a_circle_are_undone_together() -> None:
    circle = [
        StepPlan("a/ping", (("placed", "pong"),), ("ping",), effects=True),
        StepPlan("b/pong", (("ping",),), ("pong",), effects=True),
    ]
    assert undo_order(circle, SAGA) == [["a/ping", "b/pong"]]


def test_the_way_back_is_drawn_with_thick_arrows_and_told_in_waves() -> None:
    picture = to_mermaid(STEPS, [SAGA], undo=True).splitlines()
    assert [line.strip() for line in picture if "==>" in line or "((" in line] == [
        'failed_credit(("credit failed"))',
        "step_risk_assess ==>|↩| step_scoring_compute",
        "failed_credit ==>|↩| step_risk_assess",
    ]
    assert "    class failed_credit bad" in picture
    assert to_text(STEPS, [SAGA], undo=True).splitlines()[3:5] == [
        "    undone first    risk/assess",
        "    then            scoring/compute",
    ]
