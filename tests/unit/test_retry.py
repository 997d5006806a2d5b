"""Retries: pauses grow up to a limit, spread a little, and a policy that makes no sense is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pavane import Rejected, Retry
from pavane_events.errors import PavaneError

RETRIES = st.builds(
    Retry,
    attempts=st.integers(1, 10_000),
    first_s=st.floats(0, 1e6),
    factor=st.floats(1, 1e100),
    most_s=st.floats(0, 1e6),
    jitter=st.floats(0, 0.99),
)


def test_pauses_double_up_to_the_longest_where_nothing_spreads_them() -> None:
    retry = Retry(attempts=9, first_s=0.5, most_s=3, jitter=0)
    assert [retry.pause_s(attempt, 0.5) for attempt in range(1, 6)] == [0.5, 1, 2, 3, 3]


def test_chance_spreads_a_pause_evenly_about_its_length() -> None:
    retry = Retry(first_s=10, jitter=0.2)
    assert [retry.pause_s(1, chance) for chance in (0, 0.25, 0.5, 0.75)] == pytest.approx([8, 9, 10, 11])


@given(RETRIES, st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_no_pause_is_negative_or_much_longer_than_the_longest(retry: Retry, attempt: int, chance: float) -> None:
    assert 0 <= retry.pause_s(attempt, chance) <= retry.most_s * (1 + retry.jitter)


@given(RETRIES, st.integers(1, 100))
def test_pauses_never_get_shorter(retry: Retry, attempt: int) -> None:
    assert retry.pause_s(attempt, 0.5) <= retry.pause_s(attempt + 1, 0.5)


@pytest.mark.parametrize(
    "wrong", [{"attempts": 0}, {"first_s": -1}, {"most_s": -1}, {"factor": 0.5}, {"jitter": 1}, {"jitter": -0.1}]
)
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="Retry needs"):
        Retry(**wrong)  # type: ignore[arg-type]


def test_a_rejection_has_a_reason_and_a_stable_code() -> None:
    rejected = Rejected("no money")
    assert (rejected.reason, rejected.code, str(rejected)) == ("no money", "rejected", "no money")
    assert isinstance(rejected, PavaneError)
