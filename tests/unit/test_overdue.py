"""What is overdue: only what has not come in time, and by whose fault."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pavane_events.bus import Bus, TopicSpec
from pavane_events.buses.address import open_bus
from pavane_events.envelope import Envelope
from pavane_saga.facts import Settled, UndoFailed, Undone
from pavane_saga.overdue import Overdue, list_overdue
from pavane_saga.wire import UndoCommand, commands_topic, fact_envelope, fact_message
from unit import cli_toy
from unit.cli_shell import Shell

MINUTE_MS = 60_000
SAGA = cli_toy.saga_of("order-1")


def overdue_after(path: Path, ms: int, more: Callable[[Bus], Awaitable[None]] | None = None) -> list[Overdue]:
    """Of an order that was placed and paid and never packed, so long after now."""

    async def look() -> list[Overdue]:
        async with await open_bus(f"sqlite:///{path / 'bus.db'}") as bus:
            await cli_toy.perform_partly(bus, "order-1")
            if more is not None:
                await more(bus)
            return await list_overdue(bus, int(time.time() * 1000) + ms)

    return asyncio.run(look())


def test_nothing_is_overdue_while_there_is_time(tmp_path: Path) -> None:
    assert overdue_after(tmp_path, 4 * MINUTE_MS) == []


def test_past_the_sagas_deadline_who_owes_what_is_named_and_who_only_waits_is_not(tmp_path: Path) -> None:
    (found,) = overdue_after(tmp_path, 6 * MINUTE_MS)
    assert (found.saga, found.state, found.step, found.missing) == (SAGA, "running", "packing/pack", ("toy.packed",))
    assert found.event == "toy.order-placed"
    assert found.due_ms - found.since_ms == pytest.approx(5 * MINUTE_MS, abs=5_000)


def test_an_undo_that_nobody_confirms_is_overdue_after_a_minute_and_one_that_failed_is_not(tmp_path: Path) -> None:
    async def fail(bus: Bus) -> None:
        await bus.create_topics([TopicSpec(commands_topic("payment"))])
        failed = fact_envelope(Settled("packing/pack", ("start",), "failed", began=False), saga=SAGA, source="/x", time_s=1)
        skipped = fact_envelope(Settled("shipping/ship", ("paid",), "skipped", began=False), saga=SAGA, source="/x", time_s=1)
        undo = UndoCommand(SAGA, "payment/charge", ("start",), (), (), "unknown").envelope(1.0)
        command = undo.to_message(commands_topic("payment"))
        await bus.publish([fact_message(failed, failed.trace), fact_message(skipped, skipped.trace), command])

    (found,) = overdue_after(tmp_path, 2 * MINUTE_MS, fail)
    assert (found.step, found.missing, found.state) == ("payment/charge", ("undone",), "compensating")

    for fact in (Undone("payment/charge", ("start",)), UndoFailed("payment/charge", ("start",), "bank-away")):
        path = tmp_path / type(fact).__name__
        path.mkdir()

        async def settle(bus: Bus, said: Undone | UndoFailed = fact) -> None:
            await fail(bus)
            envelope: Envelope = fact_envelope(said, saga=SAGA, source="/x", time_s=1)
            await bus.publish([fact_message(replace(envelope), envelope.trace)])

        assert overdue_after(path, 2 * MINUTE_MS, settle) == []


def test_the_command_lists_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert overdue_after(tmp_path, 0) == []
    monkeypatch.setenv("PAVANE_BUS", f"sqlite:///{tmp_path / 'bus.db'}")
    pavane = Shell(monkeypatch, capsys)
    assert pavane("sagas", "overdue").err == "nothing is overdue\n"
    now = time.time()
    monkeypatch.setattr("pavane.cli.sagas.time.time", lambda: now + 400)
    said = pavane("sagas", "overdue")
    assert said.code == 0
    assert said.err == "1 overdue\n"
    assert "packing/pack" in said.out
    assert "toy.packed" in said.out
    (found,) = json.loads(pavane("sagas", "overdue", "--json").out)
    assert (found["saga"], found["missing"]) == (SAGA, ["toy.packed"])
