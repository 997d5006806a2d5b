"""``pavane run`` and ``pavane tail --follow``: real processes, ready, stopped by signals."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pavane import Agent
from pavane.cli.check import check_start, findings_of
from pavane.cli.run import Watched
from pavane.cli.targets import load_targets
from pavane_events.bus import TopicSpec
from pavane_events.buses.memory import MemoryBus
from pavane_events.errors import DeclarationError
from unit.cli_shell import Shell
from unit.cli_toy import OrderPlaced

TESTS = Path(__file__).parents[1]
namesake = Agent("payment")


@namesake.step(effects=False)
async def look(order: OrderPlaced) -> None:
    """Another agent of a name that is taken."""


@pytest.fixture
def bus(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'bus.db'}"


@contextmanager
def started(*arguments: str) -> "Generator[subprocess.Popen[str]]":
    """A ``pavane`` of its own, killed if the test leaves it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pavane", *arguments],
        cwd=TESTS,
        env={name: value for name, value in os.environ.items() if not name.startswith("PAVANE_")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line_of(process: "subprocess.Popen[str]") -> str:
    assert process.stderr is not None
    return process.stderr.readline()


def until_ready(process: "subprocess.Popen[str]") -> list[str]:
    """What it says until it is ready, that included."""
    said = [line_of(process)]
    while not said[-1].startswith("ready: "):
        assert said[-1], f"it ended: {said}"
        said.append(line_of(process))
    return said


def test_what_a_step_gives_to_the_loop_s_threads_keeps_its_context(bus: str) -> None:
    with started("run", "unit.cli_threads:agent", "--bus", bus) as process:
        assert until_ready(process)[-1].startswith("ready: threaded")
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=20)
    assert (process.returncode, out) == (0, "kept\n")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_it_says_when_it_is_ready_and_stops_gracefully(bus: str, number: signal.Signals, code: int) -> None:
    with started("run", "unit.cli_toy:AGENTS", "unit.cli_toy:orders", "--bus", bus) as process:
        assert until_ready(process)[-1] == f"ready: payment, packing, shipping, saga order on {bus} (4 lanes)\n"
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (code, "")
    assert err == "stopping: running work may finish; once more ends at once\n"


def test_warnings_are_logged_once_at_the_start_with_code_place_and_fix(bus: str) -> None:
    with started("run", "unit.cli_toy:AGENTS", "unit.cli_toy:orders", "--bus", bus) as process:
        *logged, _ = until_ready(process)
    (warning,) = map(json.loads, logged)
    assert (warning["level"], warning["code"], warning["where"]) == ("warning", "fails.unheard", "toy.refused")
    assert warning["source"].startswith("unit/cli_toy.py:")
    assert "observe it" in warning["event"]


def test_what_others_may_settle_is_no_warning_at_the_start_of_some(caplog: pytest.LogCaptureFixture) -> None:
    some = load_targets(["unit.cli_toy:shipping", "unit.cli_toy:orders"])
    assert {"event.unproduced", "fails.unheard"} <= {each.code for each in findings_of(some)}
    check_start(some)
    assert caplog.records == []


def test_a_second_signal_ends_it_at_once(bus: str, tmp_path: Path) -> None:
    (tmp_path / "stubborn.py").write_text(
        "import asyncio\n"
        "from pavane import Agent\n"
        "from unit.cli_toy import OrderPlaced\n"
        "agent = Agent('stubborn')\n"
        "@agent.step(effects=False)\n"
        "async def hang(order: OrderPlaced) -> None: ...\n"
        "@agent.lifespan\n"
        "async def life():\n"
        "    yield\n"
        "    await asyncio.sleep(600)\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        with started("run", "stubborn:agent", "--bus", bus) as process:
            assert line_of(process).startswith("ready: stubborn on ")
            process.send_signal(signal.SIGTERM)
            assert line_of(process).startswith("stopping")
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=10) == 128 + signal.SIGTERM


def test_what_was_published_before_is_done_by_whoever_runs_next(
    bus: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pavane = Shell(monkeypatch, capsys)
    monkeypatch.setenv("PAVANE_BUS", bus)
    data = ("--data", '{"order_id": "A-1", "amount": 20}', "--id-field", "order_id")
    for _ in range(2):
        assert pavane("publish", "toy.orders", *data, "--app", "unit.cli_toy:orders").code == 0
    with started("run", "unit.cli_toy:EVERYTHING", "--bus", bus) as process:
        until_ready(process)
        with started("tail", "pavane.saga-ended", "--follow", "--json", "--bus", bus) as watching:
            assert watching.stdout is not None
            assert '"verdict": "completed"' in watching.stdout.readline()
            watching.send_signal(signal.SIGINT)
            _, err = watching.communicate(timeout=20)
            assert (watching.returncode, err) == (130, "")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    (saga,) = pavane("sagas", "list", "--json").documents
    assert (saga["subject"], saga["state"]) == ("A-1", "completed")


def test_an_agent_that_cannot_start_says_why_in_one_message(tmp_path: Path, bus: str) -> None:
    (tmp_path / "careless.py").write_text(
        "from pavane import Agent\n"
        "from unit.cli_toy import OrderPlaced, Paid\n"
        "agent = Agent('careless')\n"
        "@agent.step\n"
        "async def act(order: OrderPlaced) -> Paid: ...\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        with started("run", "careless:agent", "--bus", bus) as process:
            _, err = process.communicate(timeout=20)
    assert process.returncode == 2
    assert "careless/act: it may change something and nothing undoes it: add @act.compensate" in err
    assert "Traceback" not in err


def test_a_directory_that_does_not_exist_is_an_unavailable_bus(tmp_path: Path) -> None:
    with started("run", "unit.cli_toy:AGENTS", "--bus", f"sqlite:///{tmp_path / 'nowhere' / 'bus.db'}") as process:
        _, err = process.communicate(timeout=20)
    assert process.returncode == 3
    assert err.count("\n") == 1


def test_some_agents_of_a_saga_may_run_alone_but_two_of_one_name_may_not() -> None:
    check_start(load_targets(["unit.cli_toy:shipping", "unit.cli_toy:orders"]))
    with pytest.raises(DeclarationError, match="two agents have this name"):
        check_start(load_targets(["unit.cli_toy:payment", "unit.test_cli_run:namesake"]))


def test_a_watched_bus_says_once_that_all_have_joined() -> None:
    said: list[str] = []

    async def join() -> None:
        async with MemoryBus(2) as bus:
            await bus.create_topics([TopicSpec("in")])
            watched = Watched(bus, 2, lambda: said.append("ready"))
            await watched.lanes("one", ["in"])
            assert said == []
            await watched.lanes("two", ["in"])
            await watched.lanes("two", ["in"])

    asyncio.run(join())
    assert said == ["ready"]
