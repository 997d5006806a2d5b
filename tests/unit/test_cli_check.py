"""``pavane check`` and ``pavane graph``: a choreography looked at before anything runs."""

import re
from pathlib import Path
from typing import cast

import pytest

from unit.cli_shell import Shell

CREDIT = ("pavane_credit.choreography:AGENTS", "pavane_credit.clerk:agent", "pavane_credit.choreography:SAGAS")


@pytest.fixture
def pavane(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Shell:
    monkeypatch.chdir(tmp_path)
    return Shell(monkeypatch, capsys)


def declare(directory: Path, name: str, *lines: str) -> str:
    (directory / f"{name}.py").write_text(
        "\n".join(["from pavane import Agent", "from unit.cli_toy import *", f"agent = Agent({name!r})", *lines])
    )
    return f"{name}:agent"


def test_the_credit_choreography_is_sound_and_says_where_it_refuses_on_purpose(pavane: Shell) -> None:
    said = pavane("check", *CREDIT)
    assert (said.code, said.err) == (0, "6 agents, 8 steps, 1 saga: 0 errors, 1 warning\n")
    (line,) = said.out.splitlines()
    assert line.startswith("warning  risk-assessment/assess, credit.score-computed confidence: its ConfidentScore takes less")
    assert "confidence may be 0 to 1, wanted is 0.7 to 1" in line
    assert re.search(r"\[contract.narrower\]  .*pavane_credit/risk\.py:\d+$", line)


def test_a_step_without_an_undo_is_an_error_with_its_three_ways_out(pavane: Shell, tmp_path: Path) -> None:
    target = declare(tmp_path, "undoless", "@agent.step", "async def act(order: OrderPlaced) -> Paid: ...")
    said = pavane("check", target)
    assert said.code == 1
    assert said.out.splitlines()[0] == (
        "error  undoless/act: it may change something and nothing undoes it: add @act.compensate, or say effects=False"
        " (it changes nothing), or retriable=True (it is only ever finished, never undone)  [step.no-undo]  undoless.py:4"
    )


def test_a_declaration_that_fails_at_import_is_a_finding(pavane: Shell, tmp_path: Path) -> None:
    target = declare(tmp_path, "importless", "@agent.step", "async def act(order) -> None: ...")
    said = pavane("check", target, "--json")
    assert said.code == 1
    assert "step.unannotated" in said.out


def test_a_warning_alone_does_not_fail(pavane: Shell) -> None:
    said = pavane("check", "unit.cli_toy:payment")
    assert said.code == 0
    assert "warning  toy.paid: payment/charge says it and nobody hears it" in said.out


def test_findings_as_json_have_code_severity_place_and_message(pavane: Shell) -> None:
    document = pavane("check", "unit.cli_toy:shipping", "unit.cli_toy:orders", "--json").document
    assert document["errors"] == 1
    findings = cast("list[dict[str, object]]", document["findings"])
    assert all(set(each) == {"code", "severity", "where", "message", "source"} for each in findings)


def test_schemas_are_compared_and_written(pavane: Shell, tmp_path: Path) -> None:
    toy = ("check", "unit.cli_toy:EVERYTHING", "--schemas", "contracts")
    missing = pavane(*toy)
    assert (missing.code, missing.out.count("[schema.missing]")) == (1, 5)
    assert pavane(*toy, "--write").out.count("wrote contracts/") == 5
    assert pavane(*toy).code == 0
    (tmp_path / "contracts" / "toy.paid.v1.json").write_text("{}")
    changed = pavane(*toy)
    assert changed.code == 1
    assert "urn:pavane:toy.paid:1 is not what its class says: raise its version=" in changed.out


def test_to_write_schemas_one_must_say_where(pavane: Shell) -> None:
    assert pavane("check", *CREDIT, "--write").code == 2


def test_a_target_that_leads_nowhere_is_invalid_input(pavane: Shell) -> None:
    assert pavane("check", "unit.cli_toy:nobody").code == 2
    assert pavane("graph", "nowhere:agent").code == 2


def test_the_choreography_is_drawn_as_mermaid_or_as_text(pavane: Shell) -> None:
    mermaid = pavane("graph", *CREDIT)
    assert mermaid.out.startswith("flowchart LR\n")
    assert "-->|credit.score-computed| step_risk_assessment_assess" in mermaid.out
    text = pavane("graph", *CREDIT, "--format", "text")
    assert "saga credit-decision: credit.applications (intake) -> credit.application-submitted\n" in text.out
