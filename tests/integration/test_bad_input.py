"""Bad input gets a clear error and nothing is lost: where each kind ends up, and that the agents go on."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import Field

from pavane import Agent, Event, Saga
from pavane_events.buses.address import open_bus
from pavane_events.envelope import Envelope
from pavane_events.errors import RecordTooLarge
from pavane_events.ids import uuid7
from pavane_events.record import Message
from pavane_saga import desk
from support.stage import Stage, stage, until

INTAKE = "b.intake"


class Asked(Event, type="b.asked"):
    n: int
    name: str = "x"


class Half(Event, type="b.half"):
    n: int = Field(ge=0)


class Answered(Event, type="b.answered"):
    n: int


class World:
    """A saga of two steps; the first leaves an effect."""

    def __init__(self) -> None:
        self.standing: set[int] = set()
        self.first, self.second = Agent("first"), Agent("second")
        self.saga = Saga("b", starts=Asked, completes=Answered, intake=INTAKE)

        @self.first.step
        async def begin(asked: Asked) -> Half:
            self.standing.add(asked.n)
            return Half(n=asked.n)

        @begin.compensate
        async def take_back(asked: Asked, done: Half | None) -> None:
            self.standing.discard(asked.n)

        @self.second.step(effects=False)
        async def end(half: Half) -> Answered:
            return Answered(n=half.n)


@pytest.fixture(params=["memory", "sqlite"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'bus.db'}"


def perform(address: str, scenario: Callable[[Stage, World], Awaitable[None]]) -> None:
    """The scenario on running agents, which afterwards still decide a good one."""

    @asynccontextmanager
    async def running(world: World) -> AsyncGenerator[Stage]:
        async with (
            await open_bus(address, partitions=2) as bus,
            stage([world.first, world.second], [world.saga], bus=bus) as found,
        ):
            assert await found.ended(await found.publish({"n": 1}, name="before")) == "completed"
            yield found

    async def bounded() -> None:
        world = World()
        async with asyncio.timeout(120), running(world) as found:
            await scenario(found, world)
            assert await found.ended(await found.publish({"n": 2}, name="after")) == "completed"
            assert {1, 2} <= world.standing

    asyncio.run(bounded())


async def one_letter(running: Stage, agent: str) -> dict[str, str]:
    async def letters() -> list[dict[str, str]]:
        return await running.dead(agent)

    found = await until(letters)
    assert len(found) == 1
    return found[0]


def half(saga: str, **changes: object) -> Envelope:
    """An event as the first agent would have written it."""
    envelope = Envelope(id=uuid7(), source="/foreign", type="b.half", data=b'{"n":7}', saga=saga)
    return replace(envelope, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "codes"),
    [
        (b"\xff\xfe\x00", ["json_invalid"]),
        (b"[1, 2]", ["model_type", "model_attributes_type"]),
        (b'{"n": "seven", "nmae": 1}', ["int_parsing", "extra_forbidden"]),
        (b"{}", ["missing"]),
    ],
)
def test_what_is_invalid_in_the_intake_ends_in_the_coordinators_dead_letters_with_every_problem(
    address: str, value: bytes, codes: list[str]
) -> None:
    async def scenario(running: Stage, world: World) -> None:
        await running.send(Message(INTAKE, value, key=b"any"))
        letter = await one_letter(running, "pavane.coordinator")
        problems = json.loads(letter["error_problems"])
        assert {each["code"] for each in problems} & set(codes)
        assert len(problems) == (2 if len(codes) == 2 and codes[0] == "int_parsing" else 1)
        (record,) = await running.records("pavane.coordinator.dead-letters")
        assert (record.value, record.key) == (value, b"any")

    perform(address, scenario)


def test_a_null_value_in_the_intake_is_a_dead_letter(address: str) -> None:
    async def scenario(running: Stage, world: World) -> None:
        await running.send(Message(INTAKE, None, key=b"any"))
        assert (await one_letter(running, "pavane.coordinator"))["error_code"] == "value.null"

    perform(address, scenario)


@pytest.mark.parametrize("missing", ["ce_id", "ce_source", "ce_type", "ce_specversion"])
def test_a_missing_header_in_the_intake_is_a_dead_letter_that_names_it(address: str, missing: str) -> None:
    async def scenario(running: Stage, world: World) -> None:
        message = Envelope(id="1", source="/x", type="b.asked", data=b'{"n":1}').to_message(INTAKE, key="k")
        headers = tuple(header for header in message.headers if header[0] != missing)
        await running.send(Message(INTAKE, message.value, message.key, headers))
        letter = await one_letter(running, "pavane.coordinator")
        assert [each["where"] for each in json.loads(letter["error_problems"])] == [missing]

    perform(address, scenario)


def test_an_unknown_event_type_in_the_intake_is_a_dead_letter(address: str) -> None:
    async def scenario(running: Stage, world: World) -> None:
        await running.send(Envelope(id="1", source="/x", type="b.nobody", data=b"{}").to_message(INTAKE, key="k"))
        assert (await one_letter(running, "pavane.coordinator"))["error_code"] == "intake.type"

    perform(address, scenario)


def test_a_future_contract_version_in_the_intake_is_a_dead_letter(address: str) -> None:
    async def scenario(running: Stage, world: World) -> None:
        future = Envelope(id="1", source="/x", type="b.asked", data=b'{"n":1}', dataschema="urn:pavane:b.asked:2")
        await running.send(future.to_message(INTAKE, key="k"))
        assert (await one_letter(running, "pavane.coordinator"))["error_code"] == "contract.future-version"

    perform(address, scenario)


def without_value(message: Message) -> Message:
    return Message(message.topic, None, message.key, message.headers)


def with_doubled_headers(message: Message) -> Message:
    return Message(message.topic, message.value, message.key, message.headers * 2)


def without_headers(message: Message) -> Message:
    return Message(message.topic, message.value, message.key)


def under_another_key(message: Message) -> Message:
    return Message(message.topic, message.value, b"other", message.headers)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (without_value, "value.null"),
        (with_doubled_headers, "header.doubled"),
        (without_headers, "undecodable"),
        (under_another_key, "key.mismatch"),
    ],
)
def test_a_record_on_an_event_topic_that_is_no_event_is_a_dead_letter_of_whoever_listens(
    address: str, change: Callable[[Message], Message], code: str
) -> None:
    async def scenario(running: Stage, world: World) -> None:
        await running.send(change(half(uuid7()).to_message()))
        letter = await one_letter(running, "second")
        codes = {each["code"] for each in json.loads(letter["error_problems"])}
        assert letter["error_code"] == code or code in codes

    perform(address, scenario)


def test_an_event_in_the_wrong_partition_or_on_the_wrong_topic_is_a_dead_letter(address: str) -> None:
    async def scenario(running: Stage, world: World) -> None:
        saga = uuid7()
        right = half(saga).to_message()
        await running.send(half(saga, type="b.other").to_message("b.half"))
        assert (await one_letter(running, "second"))["error_code"] == "topic.mismatch"
        for partition in range(2):
            await running.send(Message(right.topic, right.value, right.key, right.headers, partition=partition))

        async def misplaced() -> list[dict[str, str]]:
            return [each for each in await running.dead("second") if each["error_code"] == "partition.misplaced"]

        assert len(await until(misplaced)) == 1

    perform(address, scenario)


@pytest.mark.parametrize(
    ("data", "code", "schema"),
    [
        (b'{"n": -1}', "contract", None),
        (b'{"n": "seven"}', "contract", None),
        (b"\xff\xff", "contract", None),
        (b'{"n": 7}', "contract", "urn:pavane:b.half:9"),
    ],
)
def test_an_event_that_breaks_its_contract_fails_its_saga_which_is_undone(
    address: str, data: bytes, code: str, schema: str | None
) -> None:
    async def scenario(running: Stage, world: World) -> None:
        saga = uuid7()
        start = Envelope(id=uuid7(), source="/sagas/b", type="b.asked", data=b'{"n":70}', saga=saga, subject="s")
        await running.send(start.to_message())
        await running.send(half(saga, data=data, dataschema=schema).to_message())
        assert await running.ended(saga) == "compensated"
        letters = [each for each in await running.dead("second") if each["error_step"] == "second/end"]
        assert [each["error_code"] for each in letters] == [code]
        assert 70 not in world.standing

    perform(address, scenario)


def test_two_megabytes_of_json_are_refused_when_published_and_nothing_of_their_batch_is(address: str) -> None:
    async def scenario(running: Stage, world: World) -> None:
        good = Envelope(id="1", source="/x", type="b.asked", data=b'{"n":3}').to_message(INTAKE, key="k")
        large = Envelope(id="2", source="/x", type="b.asked", data=b'{"n":4,"name":"' + b"x" * 2_000_000 + b'"}')
        before = len(await running.records(INTAKE))
        with pytest.raises(RecordTooLarge):
            await running.send(good, large.to_message(INTAKE, key="k"))
        assert len(await running.records(INTAKE)) == before

    perform(address, scenario)


def test_an_event_of_an_unknown_saga_fails_that_saga_once_its_start_event_did_not_come(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "UNKNOWN_AFTER_S", 0.2)

    async def scenario(running: Stage, world: World) -> None:
        saga = uuid7()
        await running.send(half(saga).to_message())
        assert await running.ended(saga) == "compensated"
        (end,) = await running.events("pavane.ends", saga)
        assert json.loads(end.data)["code"] == "unknown"

    perform(address, scenario)


def test_what_comes_too_late_for_an_ended_saga_changes_nothing(address: str) -> None:
    async def scenario(running: Stage, world: World) -> None:
        saga = await running.publish({"n": 5}, name="late")
        assert await running.ended(saga) == "completed"
        await running.send(half(saga, id="late").to_message())
        assert await running.ended(await running.publish({"n": 6}, name="next")) == "completed"
        assert [each for each in await running.verdicts() if each == saga] == [saga]

    perform(address, scenario)


def test_the_same_application_twice_starts_one_saga(address: str) -> None:
    async def scenario(running: Stage, world: World) -> None:
        saga = await running.publish({"n": 8}, name="twice")
        again = await running.publish({"n": 8}, name="twice")
        assert saga == again
        assert await running.ended(saga) == "completed"
        anywhere = Envelope(id="twice", source="/test", type="b.asked", data=b'{"n":8}')
        await running.send(*(anywhere.to_message(INTAKE, key=str(number)) for number in range(4)))
        assert await running.ended(await running.publish({"n": 9}, name="last")) == "completed"
        assert len(await running.events("b.asked", saga)) == 1

    perform(address, scenario)


def test_plain_json_without_a_name_starts_a_saga_of_its_own_each_time_and_with_a_name_only_one(address: str) -> None:
    async def scenario(running: Stage, world: World) -> None:
        plain = Message(INTAKE, b'{"n":21}')
        named = Message(INTAKE, b'{"n":22}', headers=(("idempotency-key", b"same"),))
        await running.send(plain, plain, named, named, named)

        async def all_ended() -> bool:
            started = [json.loads(each.data)["n"] for each in await running.events("b.asked")]
            return sorted(each for each in started if each > 20) == [21, 21, 22] and len(await running.verdicts()) == 4

        await until(all_ended)

    perform(address, scenario)
