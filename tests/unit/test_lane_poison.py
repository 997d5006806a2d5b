"""No record, no event and no mistake in a step stops a lane: each ends where it can be seen, and the next saga completes."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from pydantic import Field, field_validator

from pavane import Agent, Context, Event, Rejected, Retry, Saga, SagaEnded
from pavane_events.bus import MAX_RECORD_BYTES
from pavane_events.buses.memory import MemoryBus
from pavane_events.envelope import STRUCTURED, Envelope
from pavane_events.ids import uuid7
from pavane_events.record import Message, Record
from pavane_saga.facts import Fact, Settled, UndoFailed
from pavane_saga.wire import UNDO
from support.stage import Stage, stage, until

FAST = Retry(attempts=2, first_s=0)


class Asked(Event, type="p.asked"):
    n: int = 0


class Half(Event, type="p.half"):
    n: int = 0
    anything: Any = None


class Answered(Event, type="p.answered"):
    n: int = 0


class Refused(Event, type="p.refused"):
    n: int = 0


class Other(Half, type="p.other"):
    pass


class PickyHalf(Half):
    @field_validator("n")
    @classmethod
    def look_up(cls, n: int) -> int:
        return {0: 0, 1: 1}[n]


Answer = Callable[[Asked, Context], Awaitable[Half]]

SAGA = Saga("p", starts=Asked, completes=Answered, fails=Refused, intake="p.intake")


def first(answer: Answer, undone: list[int] | None = None) -> Agent:
    """An agent that answers as told where ``n`` is 666, and properly everywhere else."""
    agent = Agent("first")

    @agent.step(retry=FAST)
    async def begin(asked: Asked, ctx: Context) -> Half:
        return await answer(asked, ctx) if asked.n == 666 else Half(n=asked.n)

    @begin.compensate(retry=FAST)
    async def take_back(asked: Asked, done: Half | None) -> None:
        if undone is not None:
            undone.append(asked.n)

    return agent


def second(view: type[Half] = Half) -> Agent:
    agent = Agent("second")

    def end(half: Half) -> Answered | Refused:
        return Refused() if half.n == 13 else Answered(n=half.n)

    end.__annotations__["half"] = view
    agent.step(effects=False, retry=FAST)(end)
    return agent


async def never(asked: Asked, ctx: Context) -> Half:
    raise AssertionError("nobody asks")


def perform(
    agents: Sequence[Agent], scenario: Callable[[Stage], Awaitable[None]], saga: Saga = SAGA, bus: MemoryBus | None = None
) -> None:
    """The scenario on running agents, which afterwards still complete a saga."""

    async def bounded() -> None:
        async with asyncio.timeout(120), stage(agents, [saga], bus=bus) as running:
            assert await running.ended(await running.publish({"n": 1}, name="before")) == "completed"
            await scenario(running)
            assert await running.ended(await running.publish({"n": 1}, name="after")) == "completed"

    asyncio.run(bounded())


async def code_of(running: Stage, saga: str) -> str:
    """Why the saga failed, once it is undone."""
    assert await running.ended(saga) == "compensated"
    (settled,) = [fact for fact in await running.facts(saga) if isinstance(fact, Settled) and fact.how == "failed"]
    return settled.code


async def dead_codes(running: Stage, agent: str) -> list[str]:
    async def letters() -> list[dict[str, str]]:
        return await running.dead(agent)

    return [letter["error_code"] for letter in await until(letters)]


# --- mistakes in steps -----------------------------------------------------------------------------------------------


async def gives_what_is_no_json(asked: Asked, ctx: Context) -> Half:
    return Half(anything=object())


async def gives_too_much(asked: Asked, ctx: Context) -> Half:
    return Half(anything="x" * MAX_RECORD_BYTES)


async def gives_another_event(asked: Asked, ctx: Context) -> Half:
    return Other()


async def gives_nothing(asked: Asked, ctx: Context) -> Half:
    return None  # type: ignore[return-value]


async def lets_a_cancellation_escape(asked: Asked, ctx: Context) -> Half:
    hanging = asyncio.ensure_future(asyncio.Event().wait())
    hanging.cancel()
    await hanging
    return Half()


async def explains_itself_at_length(asked: Asked, ctx: Context) -> Half:
    raise Rejected("because " * MAX_RECORD_BYTES)


async def explains_itself_in_no_language(asked: Asked, ctx: Context) -> Half:
    raise Rejected("\ud800")


@pytest.mark.parametrize(
    ("answer", "code", "letters"),
    [
        (gives_what_is_no_json, "output.no-json", 1),
        (gives_too_much, "output.too-large", 1),
        (gives_another_event, "output.wrong-type", 1),
        (gives_nothing, "output.wrong-type", 1),
        (lets_a_cancellation_escape, "attempts.exhausted", 1),
        (explains_itself_at_length, "rejected", 0),
        (explains_itself_in_no_language, "rejected", 0),
    ],
)
def test_a_mistake_in_a_step_fails_its_saga_and_no_other(answer: Answer, code: str, letters: int) -> None:
    undone: list[int] = []

    async def scenario(running: Stage) -> None:
        assert await code_of(running, await running.publish({"n": 666})) == code
        assert [letter["error_code"] for letter in await running.dead("first")] == [code] * letters
        assert undone == [666]

    perform([first(answer, undone), second()], scenario)


def test_a_validator_that_breaks_is_a_broken_contract() -> None:
    undone: list[int] = []

    async def scenario(running: Stage) -> None:
        assert await code_of(running, await running.publish({"n": 2})) == "contract"
        assert undone == [2]

    perform([first(never, undone), second(PickyHalf)], scenario)


def test_inputs_and_outputs_that_no_undo_could_carry_together_are_refused_before_they_are_published() -> None:
    class Long(Event, type="p.long"):
        n: int = 0
        text: str = ""

    agent, undone = Agent("first"), list[bool]()

    @agent.step
    async def begin(asked: Long) -> Half:
        return Half(n=asked.n, anything=asked.text)

    @begin.compensate
    async def take_back(asked: Long, done: Half | None) -> None:
        undone.append(done is None)

    saga = Saga("p", starts=Long, completes=Answered, fails=Refused, intake="p.intake")

    async def scenario(running: Stage) -> None:
        fits = await running.publish({"n": 13, "text": "x" * 400_000})
        assert await running.ended(fits) == "compensated"
        assert await code_of(running, await running.publish({"text": "x" * 600_000})) == "output.too-large"
        assert undone == [False, True]

    perform([agent, second()], scenario, saga)


# --- records from elsewhere ------------------------------------------------------------------------------------------


async def begun(running: Stage, n: int = 0) -> str:
    """A saga whose first step is done and whose second never comes."""
    saga = uuid7()
    start = Envelope(id=uuid7(), source="/foreign", type="p.asked", data=json.dumps({"n": n}).encode(), saga=saga)
    await running.send(start.to_message())
    return saga


def foreign(saga: str, data: bytes = b'{"n":7}', **changes: Any) -> Envelope:
    return Envelope(id=uuid7(), source="/foreign", type="p.half", data=data, saga=saga, **changes)


def structured(members: dict[str, object], saga: str) -> Message:
    likely: dict[str, object] = {
        "specversion": "1.0",
        "id": uuid7(),
        "source": "/x",
        "type": "p.half",
        "sagaid": saga,
        "data": {},
    }
    value = json.dumps({**likely, **members}).encode()
    return Message("p.half", value, saga.encode(), (("content-type", STRUCTURED.encode()),))


@pytest.mark.parametrize(
    "members",
    [{"sagaid": "\ud800"}, {"id": "\udfff"}, {"data": {"n": "\ud800"}}, {"causes": '["\ud800"]'}, {"sagaid": "a/b"}],
)
def test_text_that_is_no_text_goes_to_the_dead_letters_of_all_who_read_it(members: dict[str, object]) -> None:
    async def scenario(running: Stage) -> None:
        await running.send(structured(members, uuid7()))
        assert len(await dead_codes(running, "second")) == 1
        assert len(await dead_codes(running, "pavane.coordinator")) == 1

    perform([first(never), second()], scenario)


@pytest.mark.parametrize(
    "fact",
    [
        b"\xff",
        b"[]",
        b'{"fact": "nobody knows"}',
        b'{"fact": "undone", "step": "\\ud800", "causes": ["x"]}',
        b'{"fact": "settled", "step": "first/begin", "causes": "x", "how": "done"}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_fact_goes_to_the_coordinators_dead_letters(fact: bytes) -> None:
    async def scenario(running: Stage) -> None:
        envelope = Envelope(id=uuid7(), source="/x", type="pavane.fact.undone", data=fact, saga=uuid7())
        await running.send(envelope.to_message("pavane.facts"))
        assert await dead_codes(running, "pavane.coordinator") == ["fact"]

    perform([first(never), second()], scenario)


@pytest.mark.parametrize("data", [b"\xff\xfe", b"", b"no JSON", b"[" * 500 + b"]" * 500, b'{"n":' + b"9" * 5000 + b"}"])
def test_an_event_that_is_no_json_fails_its_saga_and_a_new_coordinator_can_still_read_of_it(data: bytes) -> None:
    async def scenario() -> None:
        bus = MemoryBus(partitions=1)
        undone: list[int] = []
        agents = [first(never, undone), second()]
        async with asyncio.timeout(120):
            async with stage(agents, [SAGA], bus=bus) as running:
                await running.ended(await running.publish({"n": 1}, name="before"))
            async with stage([agents[1]], [SAGA], bus=bus) as running:  # the first agent is away: nothing can end
                saga = await begun(running, 5)
                await running.send(foreign(saga, data).to_message())

                async def settled() -> list[Fact]:
                    return await running.facts(saga)

                await until(settled)
            async with stage(agents, [SAGA], bus=bus) as running:
                assert await running.ended(saga) == "compensated"
                assert await running.ended(await running.publish({"n": 1}, name="after")) == "completed"
            assert undone == [], "it left before that event came, and its mark says so: nothing of it can have begun"
        await bus.close()

    asyncio.run(scenario())


def test_a_version_with_thousands_of_digits_is_a_future_version() -> None:
    async def scenario(running: Stage) -> None:
        saga = await begun(running)
        await running.send(foreign(saga, dataschema="urn:pavane:p.half:" + "9" * 2000).to_message())
        assert "contract" in await dead_codes(running, "second")

    perform([first(never), second()], scenario)


def test_an_event_on_the_wrong_topic_is_owed_no_answer() -> None:
    async def scenario(running: Stage) -> None:
        saga = await running.publish({"n": 2})
        wrong = Envelope(id=uuid7(), source="/x", type="p.half", data=b"{}", saga=saga).to_message("p.asked")
        await running.send(wrong)
        assert await dead_codes(running, "pavane.coordinator") == ["topic.mismatch"]
        assert await running.ended(saga) == "completed"

    perform([first(never), second()], scenario)


def test_an_application_that_would_not_fit_as_a_start_event_is_refused_with_its_size() -> None:
    class Padded(Event, type="p.padded"):
        n: int = 0
        lines: list[Asked] = Field(default_factory=list[Asked])

    agent = Agent("first")

    @agent.step(effects=False)
    async def begin(padded: Padded) -> Half:
        return Half(n=padded.n)

    saga = Saga("p", starts=Padded, completes=Answered, fails=Refused, intake="p.intake")

    async def scenario(running: Stage) -> None:
        grows = b'{"lines":[' + b",".join([b"{}"] * 300_000) + b"]}"
        just_fits = b'{"lines":[' + b" " * (MAX_RECORD_BYTES - 100) + b"]}"
        large = b'{"n":1,"lines":[' + b",".join([b'{"n":123456789}'] * 60_000) + b"]}"
        await running.send(Message("p.intake", grows), Message("p.intake", large), Message("p.intake", just_fits))

        async def both() -> bool:
            return [each["error_code"] for each in await running.dead("pavane.coordinator")] == ["value.too-large"] * 2

        await until(both)

    perform([agent, second()], scenario, saga, MemoryBus(partitions=1))


# --- undos -----------------------------------------------------------------------------------------------------------


GONE = {"specversion": "1.0", "id": "1", "source": "/x", "type": "p.gone"}


async def undo_of(running: Stage, command: object, raw: bytes | None = None) -> list[tuple[str, str]]:
    """What the first agent says to that command."""
    saga = uuid7()
    data = raw if raw is not None else json.dumps(command).encode()
    envelope = Envelope(id=uuid7(), source="/x", type=UNDO, data=data, saga=saga)
    await running.send(envelope.to_message("first.commands"))
    await dead_codes(running, "first")
    return [(fact.step, fact.code) for fact in await running.facts(saga) if isinstance(fact, UndoFailed)]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"step": "first/gone"}, "undo.no-step"),
        ({"inputs": []}, "undo.undecodable"),
        ({"inputs": ["junk"]}, "undo.undecodable"),
        ({"inputs": [{"id": "1"}]}, "undo.undecodable"),
        (
            {"outcome": "done", "outputs": [GONE]},
            "undo.undecodable",
        ),
        ({"outputs": 7}, "undo.undecodable"),
    ],
)
def test_an_undo_that_cannot_be_done_is_an_undo_that_failed(changes: dict[str, object], code: str) -> None:
    asked = json.loads(Envelope(id="1", source="/x", type="p.asked", data=b"{}").to_structured())
    command = {"step": "first/begin", "causes": ["1"], "inputs": [asked], "outputs": [], "outcome": "unknown", **changes}

    async def scenario(running: Stage) -> None:
        assert await undo_of(running, command) == [(command["step"], code)]

    perform([first(never), second()], scenario)


@pytest.mark.parametrize("raw", [b"\xff", b"[]", b"{}", b'{"step": 1}', b'{"step":"\\ud800","causes":[]}', b"[" * 100_000])
def test_a_command_that_does_not_even_say_what_to_undo_is_a_dead_letter(raw: bytes) -> None:
    async def scenario(running: Stage) -> None:
        assert await undo_of(running, None, raw) == []

    perform([first(never), second()], scenario)


# --- observers and breakers ------------------------------------------------------------------------------------------


def test_an_observer_may_join_what_failed_a_saga_with_its_end() -> None:
    watcher, heard = Agent("watcher"), list[tuple[int, str]]()

    @watcher.observe
    async def mourn(refused: Refused, ended: SagaEnded) -> None:
        heard.append((refused.n, ended.verdict))

    async def scenario(running: Stage) -> None:
        assert await running.ended(await running.publish({"n": 13})) == "compensated"

        async def called() -> list[tuple[int, str]]:
            return heard

        assert await until(called) == [(0, "compensated")]

    perform([first(never), second(), watcher], scenario)


def test_a_breaker_that_opens_says_so_although_nothing_else_is_done() -> None:
    async def through_a_breaker(asked: Asked, ctx: Context) -> Half:
        async with ctx.breaker("bank"):
            raise ConnectionError

    agent = first(through_a_breaker)
    agent.breaker("bank", failures=1, reset=timedelta(hours=1))

    async def scenario(running: Stage) -> None:
        await running.publish({"n": 666})

        async def transitions() -> list[Record]:
            return await running.records("pavane.breakers")

        (opened,) = await until(transitions)
        assert b'"after": "open"' in (opened.value or b"")

    perform([agent, second()], scenario)
