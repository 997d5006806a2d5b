"""The example sagas: declared without a fault, true on a bus file, and right under whatever goes wrong."""

import asyncio
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from examples import checkout, trip

from pavane import Agent, Saga
from pavane.testing import HistoryPlayed, SagaPlayed, Verification, verify
from pavane_events.buses.sqlite import SqliteBus
from support.stage import stage

ROOT = Path(__file__).parents[2]
EXAMPLES = {"trip": trip.verification, "checkout": checkout.verification}


@pytest.mark.parametrize("example", ["trip", "checkout"])
def test_check_finds_nothing(example: str) -> None:
    targets = (f"examples.{example}:AGENTS", f"examples.{example}:{example}")
    done = subprocess.run(
        [sys.executable, "-m", "pavane", "check", *targets], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout
    assert "0 errors, 0 warnings" in done.stderr


@pytest.mark.parametrize("example", EXAMPLES)
def test_it_holds_under_every_single_fault_and_many_pairs(example: str) -> None:
    report = verify(EXAMPLES[example], histories=1_700)
    assert report.stages["singles"][1] == 0
    assert report.stages["pairs"][0] > 100


def played(tmp_path: Path, agents: tuple[Agent, ...], saga: Saga, verification: Verification) -> Mapping[str, str]:
    """How each scenario ends on a bus file, and its store afterwards held against what must hold."""

    async def scenario() -> Mapping[str, str]:
        found: dict[str, str] = {}
        async with await SqliteBus.open(tmp_path / "bus.db", 2) as bus, stage(agents, [saga], bus=bus) as running:
            for name, starts in verification.scenarios.items():
                ids = [await running.publish(start.model_dump(mode="json")) for start in starts]
                verdicts = [await running.ended(each) for each in ids]
                found[name] = " ".join(sorted(verdicts))
                if verification.invariant is not None:
                    sagas = [
                        SagaPlayed(each, start, verdict, ())
                        for each, start, verdict in zip(ids, starts, verdicts, strict=True)
                    ]
                    verification.invariant(HistoryPlayed(sagas))
                if verification.reset is not None:
                    verification.reset()
        return found

    return asyncio.run(scenario())


def test_trips_are_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert played(tmp_path, trip.AGENTS, trip.trip, trip.verification) == {
        "a trip": "completed",
        "no flight": "compensated",
        "no room": "compensated",
        "no money": "compensated",
        "two at once": "compensated completed",
    }


def test_orders_are_paid_and_shipped_or_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert played(tmp_path, checkout.AGENTS, checkout.checkout, checkout.verification) == {
        "in stock": "completed",
        "sold out": "compensated",
        "paid late": "compensated",
        "two for the last": "compensated completed",
    }
