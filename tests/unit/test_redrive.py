"""Dead letters are tried again when the reason is gone, once, and who said so is on record."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest

from pavane import Agent, Context, Event, Rejected, Retry, Saga
from pavane.runner import run
from pavane_events.bus import Bus
from pavane_events.buses.address import open_bus
from pavane_events.dead_letter import Reason, dead_letter, dead_letters_topic
from pavane_events.envelope import NO_TRACE, Envelope, parse
from pavane_events.record import Message, Record
from pavane_saga.intake import saga_id_of
from pavane_saga.manifest import Directory
from pavane_saga.redrive import redrive_of
from pavane_saga.saga import SagaEnded
from pavane_saga.wire import ADMISSIONS, COORDINATOR
from pavane_tracing.continuity import check_continuity
from pavane_tracing.finding import assert_continuous
from pavane_tracing.span import SpanRow
from pavane_tracing.store import all_spans
from unit.cli_shell import Shell

ONCE = Retry(attempts=1)


class Asked(Event, type="post.asked"):
    name: str


class Answered(Event, type="post.answered"):
    name: str


class Noted(Event, type="post.noted"):
    text: str


class Post:
    """An observer and a step outside sagas that fail while the post office is closed."""

    def __init__(self) -> None:
        self.open = False
        self.sent: list[tuple[str, str]] = []
        clerk, postman = Agent("clerk"), Agent("postman")

        @clerk.step(effects=False, retry=ONCE)
        async def answer(asked: Asked) -> Answered:
            if asked.name == "nobody":
                raise OSError("unknown")
            return Answered(name=asked.name)

        @postman.observe(retry=ONCE)
        async def deliver(answered: Answered, ctx: Context) -> None:
            self._post(ctx, answered.name)

        @postman.step(effects=False, retry=ONCE)
        async def note(noted: Noted, ctx: Context) -> None:
            if noted.text == "secret":
                raise Rejected("not a word")
            self._post(ctx, noted.text)

        self.agents = [clerk, postman]
        self.saga = Saga("asking", starts=Asked, completes=Answered, intake="post.intake")

    async def delivered(self, count: int) -> None:
        async def so_many() -> bool:
            return len(self.sent) >= count

        await eventually(so_many)

    def _post(self, ctx: Context, what: str) -> None:
        if not self.open:
            raise OSError("the post office is closed")
        self.sent.append((what, ctx.idempotency_key))


async def eventually(holds: Callable[[], Coroutine[object, object, bool]]) -> None:
    async with asyncio.timeout(20):
        while not await holds():  # noqa: ASYNC110 - what is awaited is on a file
            await asyncio.sleep(0.02)


async def until(bus: Bus, topic: str, count: int) -> None:
    async def there() -> bool:
        return topic in await bus.topics() and len([record async for record in bus.read(topic)]) >= count

    await eventually(there)


class Deployment:
    """The post on a bus file, run for as long as something is awaited."""

    def __init__(self, path: Path) -> None:
        self.url = f"sqlite:///{path}"
        self.post = Post()

    def run(self, work: Callable[[Bus], Coroutine[object, object, None]]) -> None:
        async def scenario() -> None:
            async with await open_bus(self.url, partitions=2) as bus:
                stop = asyncio.Event()
                async with asyncio.TaskGroup() as group:
                    group.create_task(run(self.post.agents, [self.post.saga], bus, stop))
                    await work(bus)
                    stop.set()

        asyncio.run(scenario())


@pytest.fixture
def pavane(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(monkeypatch, capsys)


@pytest.fixture
def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    found = Deployment(tmp_path / "bus.db")
    monkeypatch.setenv("PAVANE_BUS", found.url)

    async def fail(bus: Bus) -> None:
        await until(bus, "pavane.facts", 4)  # both lanes of both agents have declared
        for name in ("ann", "nobody"):
            asked = Envelope(id=name, source="/t", type=Asked.event_type, data=Asked(name=name).to_json(), subject=name)
            await bus.publish([asked.to_message("post.intake", key=saga_id_of("/t", name))])
        noted = Envelope(id="n", source="/t", type=Noted.event_type, data=Noted(text="rain").to_json())
        await bus.publish([noted.to_message(key="rain")])
        await bus.publish([Message("post.intake", b'{"nom": "ben"}', b"ben", ())])
        await until(bus, dead_letters_topic("postman"), 2)
        await until(bus, dead_letters_topic("clerk"), 1)
        await until(bus, dead_letters_topic("pavane.coordinator"), 1)
        await until(bus, SagaEnded.event_type, 2)

    found.run(fail)
    found.post.open = True
    return found


def places(pavane: Shell, agent: str) -> list[str]:
    found = pavane("dead-letters", "list", agent, "--json").documents
    return [f"{each['partition']}@{each['offset']}" for each in found]


def test_an_observer_s_input_and_one_outside_sagas_are_tried_again_once(pavane: Shell, deployment: Deployment) -> None:
    letters = places(pavane, "postman")
    would = pavane("dead-letters", "redrive", "postman", *letters, "--why", "it is open", "--dry-run")
    assert would.out.count("would redrive") == 2
    done = pavane("dead-letters", "redrive", "postman", *letters, "--why", "it is open", "--who", "ann")
    assert done.out.count("redrove") == 2
    again = pavane("dead-letters", "redrive", "postman", *letters, "--why", "it is open")
    assert (again.code, again.out) == (0, "")
    assert "redriven before" in again.err

    deployment.run(lambda bus: deployment.post.delivered(2))
    assert sorted(what for what, _ in deployment.post.sent) == ["ann", "rain"]
    assert len(places(pavane, "postman")) == 2, "nothing failed again, and the letters are where they were"
    shown = pavane("sagas", "show", "ann").out
    assert "decided: redrive postman" in shown
    assert "it is open" in shown


def test_what_fails_again_is_a_dead_letter_again_and_can_be_redriven_again(pavane: Shell, deployment: Deployment) -> None:
    deployment.post.open = False
    letters = places(pavane, "postman")
    pavane("dead-letters", "redrive", "postman", *letters, "--why", "try it")
    deployment.run(lambda bus: until(bus, dead_letters_topic("postman"), 4))
    deployment.post.open = True
    new = [each for each in places(pavane, "postman") if each not in letters]
    assert pavane("dead-letters", "redrive", "postman", *new, "--why", "now").code == 0
    assert pavane("dead-letters", "redrive", "postman", *letters, "--why", "these, too", "--again").code == 0

    deployment.run(lambda bus: deployment.post.delivered(4))
    keys = {key for _, key in deployment.post.sent}
    assert len(keys) == 2, "the same effect has the same key, however often it is tried"


def test_a_step_that_has_turned_its_saga_back_is_not_redriven(pavane: Shell, deployment: Deployment) -> None:
    said = pavane("dead-letters", "redrive", "clerk", *places(pavane, "clerk"), "--why", "so")
    assert said.code == 2
    assert "clerk/answer is a step of saga" in said.err
    assert "which does not wait for it" in said.err
    assert "start it anew" in said.err


def test_what_an_intake_refused_goes_back_as_it_came(pavane: Shell, deployment: Deployment) -> None:
    letters = places(pavane, "pavane.coordinator")
    assert pavane("dead-letters", "redrive", "pavane.coordinator", *letters, "--why", "so").out == (
        f"redrove {letters[0]} to the intake\n"
    )
    deployment.run(lambda bus: until(bus, dead_letters_topic("pavane.coordinator"), 2))
    shown = pavane("dead-letters", "list", "pavane.coordinator", "--json").documents
    assert [each["value"] for each in shown] == [{"nom": "ben"}] * 2


def test_what_another_lane_took_in_and_nobody_knew_goes_on_to_the_lane_that_owns_its_saga() -> None:
    started = Envelope(id="s", source="/sagas/asking", type=Asked.event_type, data=b"{}", saga="the-saga").to_message(
        ADMISSIONS
    )
    record = Record(ADMISSIONS, 1, 7, started.key, started.value, started.headers, 0)
    letter = dead_letter(record, COORDINATOR, Reason(code="admission.unknown", step=COORDINATOR))
    lies = Record(letter.topic, 1, 3, letter.key, letter.value, letter.headers, 0)
    again = redrive_of(lies, COORDINATOR, Directory({}, {})).message(1, NO_TRACE, 0)
    assert (again.topic, again.key, again.value, again.partition) == (ADMISSIONS, b"the-saga", started.value, None)
    assert parse(Record(ADMISSIONS, 1, 8, again.key, again.value, again.headers, 0)).saga == "the-saga"


def test_a_letter_that_is_not_there_is_named(pavane: Shell, deployment: Deployment) -> None:
    said = pavane("dead-letters", "redrive", "postman", "0@99999", "--why", "so")
    assert said.code == 2
    assert "0@99999: there is none" in said.err
    assert pavane("dead-letters", "redrive", "nobody", "0@1", "--why", "so").code == 2
    assert pavane("dead-letters", "redrive", "postman", "0@1").code == 2


@pytest.mark.parametrize("policy", ["new_linked", "continue"])
def test_a_redrive_is_traced_back_to_the_span_that_gave_its_letter_up(
    pavane: Shell, deployment: Deployment, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    monkeypatch.setenv("PAVANE_TRACE_EDGES", f"redrive={policy}")
    pavane("dead-letters", "redrive", "postman", *places(pavane, "postman"), "--why", "it is open")
    found: list[SpanRow] = []

    async def delivered(bus: Bus) -> None:
        await deployment.post.delivered(2)

        async def all_kept() -> bool:
            found[:] = await all_spans(bus)
            return len([row for row in found if row.text("saga.step") == "postman/deliver" and row.kind == "CONSUMER"]) == 2

        await eventually(all_kept)

    deployment.run(delivered)
    steps = [row for row in found if row.text("saga.step") == "postman/deliver" and row.kind == "CONSUMER"]
    failed, again = sorted(steps, key=lambda row: row.start_ns)
    by_id = {row.span_id: row for row in found}
    sent = by_id[again.parent_span_id or ""]
    assert (sent.name, sent.service) == ("send postman.commands", "operator")
    told = {failed.span_id, failed.parent_span_id}
    if policy == "new_linked":
        assert (sent.parent_span_id, {link.span_id for link in sent.links}) == (None, told)
    else:
        assert (sent.parent_span_id, sent.trace_id) == (failed.span_id, failed.trace_id)
        assert {link.span_id for link in sent.links} == told - {failed.span_id}
    assert_continuous(check_continuity(found))
