"""Patience: with an outage without end, with a request that alone is not taken until it has been so a number of times."""

import time

from pavane_tracing.patience import Patience


def test_an_outage_ends_no_patience_and_no_pause_grows_in_it() -> None:
    patience = Patience()
    assert all(patience.put_off(7, 1.0) for _ in range(10_000))
    assert patience.due <= time.monotonic() + 1.0


def test_one_that_is_not_taken_while_others_are_has_an_end_also_after_an_outage() -> None:
    patience = Patience()
    assert all(patience.put_off(7, 1.0) for _ in range(100))
    tries = 0
    while patience.put_off(8 + tries, 1.0):
        tries += 1
    assert 5 <= tries <= 20
