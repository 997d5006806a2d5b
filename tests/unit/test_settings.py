"""Settings come from the environment, typos are errors, and all of them are reported at once."""

import pytest

from pavane.settings import load_settings
from pavane_events.errors import ConfigurationError


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PAVANE_BUS", "PAVANE_PARTITIONS", "PAVANE_LOG"):
        monkeypatch.delenv(name, raising=False)


def test_variables_and_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAVANE_PARTITIONS", "8")
    settings = load_settings(bus="memory://", partitions=None)
    assert (settings.bus, settings.partitions, settings.synchronous) == ("memory://", 8, "NORMAL")


def test_a_typo_is_an_error_that_names_the_right_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAVANE_PARTITION", "8")
    with pytest.raises(ConfigurationError, match="did you mean PAVANE_PARTITIONS"):
        load_settings()


def test_every_problem_is_listed_and_no_value_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAVANE_PARTITIONS", "none-of-these")
    monkeypatch.setenv("PAVANE_LOG", "loud")
    monkeypatch.setenv("PAVANE_NOSUCH", "1")
    with pytest.raises(ConfigurationError) as raised:
        load_settings()
    where = {problem.where for problem in raised.value.problems}
    assert where == {"PAVANE_PARTITIONS", "PAVANE_LOG", "PAVANE_NOSUCH"}
    assert "none-of-these" not in str(raised.value)
