"""Virtual time: it goes on for as long as anybody waits."""

import asyncio

import pytest

from pavane.simulation.virtual_time import VirtualLoop

YEAR_S = 365 * 86_400.0


@pytest.mark.parametrize("begins_s", [0.0, 2.0**24, YEAR_S, 2.0**26 + 0.63, 100 * YEAR_S])
def test_a_timer_that_is_due_fires_however_long_the_clock_has_run(begins_s: float) -> None:
    """After half a year a second is told to four billionths of one, and a timer that was due was never: the loop spun."""
    turns = 0

    class Counted(VirtualLoop):
        def time(self) -> float:
            nonlocal turns
            turns += 1
            assert turns < 100_000, "the loop spins"
            return super().time()

    async def scenario() -> float:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(begins_s)
        for pause_s in (0.01, 0.02, 0.1, 1 / 3, 86_400.0):
            for _ in range(50):
                await asyncio.sleep(pause_s)
        return loop.time()

    with asyncio.Runner(loop_factory=Counted) as runner:
        passed_s = runner.run(scenario()) - begins_s
    assert passed_s == pytest.approx(50 * (0.13 + 1 / 3 + 86_400.0), abs=0.01)
