"""``pavane check`` and ``pavane graph``: a choreography looked at before anything runs."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import cast

import pytest

from pavane_events.buses.kafka.options import KafkaOptions
from pavane_events.buses.kafka.provision import Compared
from pavane_events.topics import FoundTopic, WantedTopic, differences
from unit.cli_shell import Said, Shell

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


def findings(said: Said) -> list[dict[str, object]]:
    return cast("list[dict[str, object]]", said.document["findings"])


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
    (finding,) = findings(said)
    assert finding["code"] == "step.unannotated"
    assert finding["source"] == "importless.py:4"


EVENTS = "from pavane import Agent, Event, Saga\nfrom unit.cli_toy import OrderPlaced, Paid, Packed, Shipped, Refused\n"


WRONG = {
    ("undo.done-optional", 7): (
        "agent = Agent('a')\n@agent.step\nasync def act(o: OrderPlaced) -> Paid: ...\n\n"
        "@act.compensate\nasync def undo(o: OrderPlaced, done: Paid) -> None: ..."
    ),
    ("event.version", 3): "class Odd(Event, type='toy.odd', version=0): ...",
    ("agent.name", 4): "\nagent = Agent('Upper')",
    ("saga.intake", 4): "\norder = Saga('o', starts=OrderPlaced, completes=Paid, intake='')",
}


@pytest.mark.parametrize(("code", "line"), WRONG)
def test_what_fails_at_import_is_found_where_it_is_declared(pavane: Shell, tmp_path: Path, code: str, line: int) -> None:
    module = f"wrong_{code.replace('.', '_').replace('-', '_')}"
    (tmp_path / f"{module}.py").write_text(EVENTS + WRONG[code, line])
    said = pavane("check", f"{module}:agent", "--json")
    (finding,) = findings(said)
    assert (said.code, finding["code"], finding["source"]) == (1, code, f"{module}.py:{line}")


def test_an_undo_that_insists_on_an_answer_is_told_what_to_write(pavane: Shell, tmp_path: Path) -> None:
    target = declare(
        tmp_path,
        "insistent",
        "@agent.step",
        "async def act(order: OrderPlaced) -> Paid: ...",
        "@act.compensate",
        "async def undo(order: OrderPlaced, done: Paid) -> None: ...",
    )
    assert pavane("check", target).out.startswith(
        "error  insistent/act.compensate(done): it must accept None, for a process can die between effect and answer:"
        " write done: Paid | None  [undo.done-optional]  insistent.py:"
    )


def test_agents_and_sagas_that_are_there_twice_are_found_at_both_places(pavane: Shell, tmp_path: Path) -> None:
    for name in ("first", "second"):
        saga = "order = Saga('twice', starts=OrderPlaced, completes=Paid, intake='toy.twice')"
        (tmp_path / f"doubled_{name}.py").write_text(EVENTS + f"agent = Agent('twin')\n{saga}\n")
    said = pavane(
        "check", *(f"doubled_{name}:{what}" for name in ("first", "second") for what in ("agent", "order")), "--json"
    )
    found = {str(each["code"]): each["source"] for each in findings(said)}
    assert found["agent.doubled"] == "doubled_first.py:3, doubled_second.py:3"
    sagas = "doubled_first.py:4, doubled_second.py:4"
    assert [found[f"saga.{which}"] for which in ("doubled", "start-doubled", "intake-doubled")] == [sagas] * 3


def test_partition_counts_that_differ_are_findings_of_the_topics_on_brokers(
    pavane: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    async def compare(
        servers: str, options: KafkaOptions, wanted: Collection[WantedTopic], partitions: int | None
    ) -> Compared:
        asked.append(servers)
        there = {topic.name: FoundTopic(topic.name, 3 if topic.name == "toy.paid" else 4, 1, {}) for topic in wanted}
        return Compared(4, differences(wanted, there, 4))

    monkeypatch.setattr("pavane_events.buses.kafka.provision.compare", compare)
    toy = ("unit.cli_toy:AGENTS", "unit.cli_toy:orders")
    assert "topic.partitions" not in pavane("check", *toy).out
    assert asked == []
    said = pavane("check", *toy, "--bus", "kafka://broker:9092")
    assert (said.code, asked) == (1, ["broker:9092"])
    (line,) = (line for line in said.out.splitlines() if line.startswith("error"))
    assert line.startswith(
        "error  toy.paid: it has 3 partitions and this deployment 4: where 4 is wrong, set PAVANE_PARTITIONS"
    )
    assert re.search(r"\[topic.partitions\]  .*cli_toy\.py:\d+$", line)


def test_in_a_file_there_is_nothing_to_compare(pavane: Shell, tmp_path: Path) -> None:
    said = pavane("--bus", "sqlite:///none.db", "check", "unit.cli_toy:AGENTS", "unit.cli_toy:orders")
    assert said.code == 0
    assert "have one partition count" in said.err
    assert not (tmp_path / "none.db").exists()


def test_a_warning_alone_does_not_fail(pavane: Shell) -> None:
    said = pavane("check", "unit.cli_toy:payment")
    assert said.code == 0
    assert "warning  toy.paid: payment/charge says it and nobody hears it" in said.out


def test_findings_as_json_have_code_severity_place_and_message(pavane: Shell) -> None:
    document = pavane("check", "unit.cli_toy:shipping", "unit.cli_toy:orders", "--json").document
    assert document["errors"] == 1
    listed = cast("list[dict[str, object]]", document["findings"])
    assert all(set(each) == {"code", "severity", "where", "message", "source"} for each in listed)


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
