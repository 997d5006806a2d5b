"""What open sagas may still ask of a step: whether it may go, and that nothing may go of which nobody has heard."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from pavane import Agent
from pavane.plan import plan_of
from pavane_events.bus import Bus
from pavane_events.buses.address import open_bus
from pavane_events.errors import ConfigurationError
from pavane_events.record import Message
from pavane_saga.manifest import Manifest
from pavane_saga.owed import list_owed
from pavane_saga.wire import FACTS, fact_envelope
from unit import cli_toy
from unit.cli_shell import Shell

MAY_GO = "nothing is owed: it may go\n"


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A bus on which one order is placed and paid, and not packed."""
    url = f"sqlite:///{tmp_path / 'bus.db'}"

    async def begin() -> None:
        async with await open_bus(url) as bus:
            await cli_toy.perform_partly(bus, "order-1")

    asyncio.run(begin())
    return url


@pytest.fixture
def pavane(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url: str) -> Shell:
    monkeypatch.setenv("PAVANE_BUS", url)
    return Shell(monkeypatch, capsys)


async def declare(bus: Bus, manifest: Manifest) -> None:
    """As a lane of its agent does at its first commit."""
    fact = fact_envelope(manifest.declared(()), saga=None, source=f"/agents/{manifest.agent}", time_s=0)
    await bus.publish([fact.to_message(FACTS, partition=bus.partitions - 1)])


def test_what_owes_an_answer_must_stay(pavane: Shell) -> None:
    said = pavane("sagas", "owed", "packing")
    assert (said.code, said.err) == (1, "1 owed: it must stay\n")
    assert pavane("sagas", "owed", "packing/pack").code == 1


@pytest.mark.parametrize(
    ("mistyped", "hint"),
    [
        ("packng", "did you mean packing?"),
        ("packing/pac", "did you mean packing/pack?"),
        ("pack", "did you mean packing/pack?"),
        ("nobody", "there are packing, packing/pack, payment, payment/charge, shipping, shipping/ship"),
        ("", "there are packing,"),
        ("packing/", "did you mean packing"),
    ],
)
def test_what_nobody_has_declared_may_not_go(pavane: Shell, mistyped: str, hint: str) -> None:
    said = pavane("sagas", "owed", mistyped)
    assert (said.code, said.out) == (2, "")
    assert "nobody has declared it" in said.err
    assert hint in " ".join(said.err.split())
    assert pavane("sagas", "owed", mistyped, "--json").code == 2


def test_where_nobody_has_declared_anything_it_is_said(pavane: Shell, tmp_path: Path) -> None:
    async def make() -> None:
        async with await open_bus(f"sqlite:///{tmp_path / 'empty.db'}"):
            pass

    asyncio.run(make())
    said = pavane("sagas", "owed", "packing", "--bus", f"sqlite:///{tmp_path / 'empty.db'}")
    assert said.code == 2
    assert "no agent has started on this bus" in said.err


def test_a_step_that_is_gone_from_its_manifest_is_known_by_what_a_lane_declared(pavane: Shell, url: str) -> None:
    async def deploy() -> None:
        manifest = plan_of(cli_toy.shipping).manifest
        gone = replace(manifest, version="shipping@earlier", steps=(replace(manifest.steps[0], name="shipping/insure"),))
        other = Manifest("letters", "letters@earlier", (replace(manifest.steps[0], name="letters/write", observer=True),))
        async with await open_bus(url) as bus:
            await bus.publish([Message(FACTS, b"no fact", partition=0)])
            for each in (gone, other, manifest):
                await declare(bus, each)

    assert pavane("sagas", "owed", "shipping/insure").code == 2
    asyncio.run(deploy())
    for name in ("shipping/insure", "letters", "letters/write"):
        said = pavane("sagas", "owed", name)
        assert (said.code, said.err) == (0, MAY_GO)


def test_a_renamed_step_is_found_by_both_names(pavane: Shell, url: str) -> None:
    agent = Agent("packing")

    @agent.step(formerly="pack", effects=False)
    async def wrap(order: cli_toy.OrderPlaced) -> cli_toy.Packed:
        return cli_toy.Packed(order_id=order.order_id)

    async def deploy() -> None:
        async with await open_bus(url) as bus:
            await bus.publish([plan_of(agent).manifest.to_message()])

    assert pavane("sagas", "owed", "packing/wrap").code == 2
    asyncio.run(deploy())
    by_old, by_new = (pavane("sagas", "owed", name, "--json") for name in ("packing/pack", "packing/wrap"))
    assert by_old.code == by_new.code == 1
    assert by_old.documents == by_new.documents
    assert [each["step"] for each in by_new.documents] == ["packing/pack"]


def test_the_error_is_the_librarys_too(url: str) -> None:
    async def ask() -> None:
        async with await open_bus(url) as bus:
            with pytest.raises(ConfigurationError, match="packing/pac: nobody has declared it"):
                await list_owed(bus, "packing/pac")

    asyncio.run(ask())
