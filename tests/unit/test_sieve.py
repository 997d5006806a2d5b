"""What a sieve says of keys: never that one is not there that is, and seldom the other way round."""

from hypothesis import given
from hypothesis import strategies as st

from pavane_events.buses.sieve import Sieve


@given(st.lists(st.binary(max_size=40), max_size=200))
def test_it_may_have_every_key_it_was_given(keys: list[bytes]) -> None:
    sieve = Sieve(10)
    for key in keys:
        sieve.add(key)
        assert sieve.may_have(key)
    assert all(sieve.may_have(key) for key in keys)


def test_it_is_seldom_wrong_about_others_and_knows_when_it_would_be() -> None:
    sieve = Sieve(100_000)
    for number in range(100_000):
        sieve.add(b"o/%032d" % number)
    assert not sieve.is_full
    wrong = sum(sieve.may_have(b"x/%032d" % number) for number in range(10_000))
    assert wrong < 500
    for number in range(100_000, 150_000):
        sieve.add(b"o/%032d" % number)
    assert sieve.is_full


def test_an_empty_one_has_nothing() -> None:
    assert not any(Sieve(0).may_have(b"%d" % number) for number in range(1_000))
