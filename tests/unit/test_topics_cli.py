"""``pavane topics``: on a file agents make their topics themselves; a plan for brokers asks no broker."""

from pathlib import Path
from typing import cast

import pytest

from unit.cli_shell import Shell

TOY = ("unit.cli_toy:AGENTS", "unit.cli_toy:orders")
KAFKA = "kafka://nobody.invalid:9092"


@pytest.fixture
def pavane(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Shell:
    monkeypatch.chdir(tmp_path)
    return Shell(monkeypatch, capsys)


def planned(pavane: Shell, *arguments: str) -> dict[str, dict[str, object]]:
    document = pavane("topics", "plan", *TOY, "--bus", KAFKA, "--json", *arguments).document
    return {str(topic["name"]): topic for topic in cast("list[dict[str, object]]", document["topics"])}


def test_a_plan_names_every_topic_of_agents_and_sagas(pavane: Shell) -> None:
    topics = planned(pavane)
    assert {
        "toy.orders",
        "toy.order-placed",
        "toy.paid",
        "toy.refused",
        "payment.commands",
        "payment.dead-letters",
        "payment.state",
        "pavane.facts",
        "pavane.ends",
        "pavane.agents",
        "pavane.saga-ended",
        "pavane.coordinator.state",
        "pavane.coordinator.dead-letters",
    } <= set(topics)
    assert topics["payment.state"]["kind"] == "state"
    assert topics["pavane.agents"]["kind"] == "table"


def test_topics_bear_the_prefix_of_their_deployment_on_the_brokers(pavane: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAVANE_KAFKA_PREFIX", "staging.")
    assert planned(pavane)["toy.paid"]["topic"] == "staging.toy.paid"
    said = pavane("topics", "plan", *TOY, "--bus", KAFKA)
    assert said.code == 0
    assert all(line.startswith("staging.") for line in said.out.splitlines()[1:])


def test_a_plan_in_words_says_once_what_all_topics_have_in_common(pavane: Shell) -> None:
    said = pavane("topics", "plan", *TOY, "--bus", KAFKA)
    assert "30 days" in said.out
    assert "for ever" in said.out
    assert "LogAppendTime" not in said.out
    assert "all of them: " in said.err
    assert "message.timestamp.type=LogAppendTime" in said.err


def test_a_saga_that_may_outlive_its_records_is_refused(pavane: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAVANE_KAFKA_RETENTION_DAYS", "0.001")
    said = pavane("topics", "plan", *TOY, "--bus", KAFKA)
    assert said.code == 2
    assert "saga order" in said.err
    assert "PAVANE_KAFKA_RETENTION_DAYS" in said.err


def test_on_a_file_a_plan_has_names_and_no_settings(pavane: Shell) -> None:
    said = pavane("topics", "plan", *TOY)
    assert said.code == 0
    assert said.out.splitlines()[0].split() == ["TOPIC", "KIND"]
    assert "payment.state" not in said.out
    assert "agents make them themselves" in said.err


def test_on_a_file_topics_are_made_once(pavane: Shell) -> None:
    first = pavane("topics", "apply", *TOY)
    assert first.code == 0
    assert "created toy.paid\n" in first.out
    assert "agents make them" in first.err
    again = pavane("topics", "apply", *TOY, "--json")
    assert again.document == {"created": [], "altered": {}, "dry_run": False}


def test_on_a_file_a_dry_run_makes_not_even_the_file(pavane: Shell, tmp_path: Path) -> None:
    said = pavane("topics", "apply", *TOY, "--dry-run")
    assert said.code == 0
    assert "would create toy.paid\n" in said.out
    assert not (tmp_path / "pavane.db").exists()


def test_on_a_file_a_dry_run_adds_no_topic(pavane: Shell) -> None:
    pavane("topics", "apply", "unit.cli_toy:payment")
    pavane("topics", "apply", *TOY, "--dry-run")
    assert pavane("topics", "diff", *TOY).code == 1


def test_on_a_file_missing_topics_are_a_difference(pavane: Shell) -> None:
    pavane("topics", "apply", "unit.cli_toy:payment")
    said = pavane("topics", "diff", *TOY)
    assert said.code == 1
    assert "+ toy.orders\n" in said.out
    assert "payment.commands" not in said.out
    pavane("topics", "apply", *TOY)
    assert pavane("topics", "diff", *TOY, "--json") == (0, '{"missing": []}\n', "")


def test_a_target_that_leads_nowhere_is_invalid_input(pavane: Shell) -> None:
    assert pavane("topics", "plan", "unit.cli_toy:nothing").code == 2


def test_an_address_that_is_wrong_is_told_before_any_broker_is_asked(pavane: Shell) -> None:
    said = pavane("topics", "diff", *TOY, "--bus", "kafka://broker")
    assert said.code == 2
    assert "did you mean broker:9092" in said.err
