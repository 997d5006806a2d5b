"""Settings of the credit agents: what is wrong is said at once, by variable, and not before somebody asks."""

import subprocess
import sys

import pytest

from pavane_credit.applications import read_applications
from pavane_credit.where import Where, read_where
from pavane_events.errors import ConfigurationError


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Where.model_fields:
        monkeypatch.delenv(f"CREDIT_{name.upper()}", raising=False)


def test_they_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDIT_LINE_DM", "12")
    monkeypatch.setenv("CREDIT_CRASH", "kill")
    assert read_where() == Where(line_dm=12, crash="kill")


def test_without_any_there_are_no_faults() -> None:
    assert read_where().faults == "none"


def test_everything_that_is_wrong_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDIT_LINE_DM", "much")
    monkeypatch.setenv("CREDIT_CRASH", "kil")
    monkeypatch.setenv("CREDIT_LEDGER", "x")
    with pytest.raises(ConfigurationError) as raised:
        read_where()
    assert {problem.where for problem in raised.value.problems} == {"CREDIT_LINE_DM", "CREDIT_CRASH", "CREDIT_LEDGER"}
    assert "did you mean CREDIT_LEDGERS?" in str(raised.value)
    assert "much" not in str(raised.value)


def test_a_line_cannot_be_negative(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDIT_LINE_DM", "-1")
    with pytest.raises(ConfigurationError, match="CREDIT_LINE_DM"):
        read_where()


def test_the_choreography_can_be_looked_at_under_wrong_settings() -> None:
    look = "import pavane_credit.choreography as c; print(len(c.AGENTS))"
    environment = {"CREDIT_LINE_DM": "much", "PATH": ""}
    shown = subprocess.run([sys.executable, "-c", look], env=environment, capture_output=True, text=True, check=False)
    assert (shown.returncode, shown.stdout.strip()) == (0, "5"), shown.stderr


def test_the_default_line_has_room_for_every_packaged_application() -> None:
    assert sum(each.event.amount_dm for each in read_applications()) == 3_271_258 <= Where().line_dm
