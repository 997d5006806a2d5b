"""Targets: what is named on the command line is found, or it is said why not."""

from pathlib import Path

import pytest

from pavane.cli.targets import load_event, load_targets
from pavane_events.errors import ConfigurationError, DeclarationError
from unit import cli_toy


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def problem_of(name: str) -> str:
    with pytest.raises(ConfigurationError) as raised:
        load_targets([name])
    (problem,) = raised.value.problems
    assert problem.where == name
    return problem.message


def test_an_agent_a_saga_and_a_tuple_of_both_are_found_each_once() -> None:
    found = load_targets(["unit.cli_toy:payment", "unit.cli_toy:orders", "unit.cli_toy:EVERYTHING"])
    assert found.agents == (cli_toy.payment, cli_toy.packing, cli_toy.shipping)
    assert found.sagas == (cli_toy.orders,)


def test_a_module_of_the_working_directory_is_found(here: Path) -> None:
    (here / "found_here.py").write_text("from pavane import Agent\nagent = Agent('here')\n")
    assert [agent.name for agent in load_targets(["found_here:agent"]).agents] == ["here"]


def test_all_that_leads_nowhere_is_said_at_once() -> None:
    with pytest.raises(ConfigurationError) as raised:
        load_targets(["nowhere:agent", "unit.cli_toy:shiping", "unit.cli_toy:payment"])
    assert [problem.code for problem in raised.value.problems] == ["target.module", "target.attribute"]


def test_a_module_that_does_not_exist_is_named() -> None:
    assert "there is no module 'unit.ballet'" in problem_of("unit.ballet:agent")


def test_a_module_that_a_module_lacks_is_told_apart(here: Path) -> None:
    (here / "lacking.py").write_text("import not_installed_here\n")
    assert "it needs the module 'not_installed_here', which is not installed" in problem_of("lacking:agent")


def test_a_module_that_fails_says_where(here: Path) -> None:
    (here / "failing.py").write_text("x = 1\ny = x / 0\n")
    assert problem_of("failing:agent").startswith("its import fails: ZeroDivisionError: division by zero (")
    assert "failing.py:2)" in problem_of("failing:agent")


def test_a_module_that_ends_the_process_is_named(here: Path) -> None:
    (here / "leaving.py").write_text("import sys\nsys.exit(0)\n")
    assert problem_of("leaving:agent").startswith("its import ends the process: sys.exit(0); keep that under if __name__ ==")


def test_a_declaration_that_cannot_work_keeps_its_own_problems(here: Path) -> None:
    (here / "declaring.py").write_text("from pavane import Agent\nagent = Agent('Not So')\n")
    with pytest.raises(DeclarationError, match="lower-case words"):
        load_targets(["declaring:agent"])


def test_an_attribute_that_is_missing_is_guessed() -> None:
    assert problem_of("unit.cli_toy:shiping") == "unit.cli_toy has no 'shiping'; did you mean unit.cli_toy:shipping?"


def test_a_module_alone_is_answered_with_what_may_be_meant() -> None:
    assert problem_of("unit.cli_toy") == "name what is meant in it, as in unit.cli_toy:payment"


def test_what_is_no_agent_says_what_it_is() -> None:
    assert problem_of("unit.cli_toy:perform").startswith("it is a function, no agent and no saga; did you mean")
    assert problem_of("unit.cli_toy:OrderPlaced").startswith("it is the class OrderPlaced")
    assert problem_of("unit.cli_toy:asyncio").startswith("it is a module")


def test_a_list_may_hold_agents_and_sagas_only(here: Path) -> None:
    (here / "listing.py").write_text("wrong = [1]\nempty = []\n")
    assert "it holds an int" in problem_of("listing:wrong")
    assert "it is empty" in problem_of("listing:empty")


@pytest.mark.parametrize("name", ["", ":agent", "a-b:agent", "some/path.py:agent"])
def test_what_is_no_module_and_attribute_is_answered_with_an_example(name: str) -> None:
    assert "as in pavane_credit.score:agent" in problem_of(name)


def test_an_event_is_found_by_its_class() -> None:
    assert load_event("unit.cli_toy:Paid") is cli_toy.Paid


@pytest.mark.parametrize("name", ["unit.cli_toy:payment", "unit.cli_toy:Event", "unit.cli_toy:Nobody"])
def test_what_is_no_event_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError):
        load_event(name)
