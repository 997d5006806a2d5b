"""``pavane answer``: what is held against its class before it is sent, and what is said where no class is at hand."""

import asyncio
from pathlib import Path

import pytest

from pavane import Agent, Event, Saga
from pavane.plan import plan_of
from pavane_events.bus import TopicSpec
from pavane_events.buses.address import open_bus
from pavane_events.envelope import Envelope, parse
from pavane_saga.intake import admit
from pavane_saga.manifest import SagaPlan
from pavane_saga.wire import AGENTS, FACTS
from unit.cli_shell import Shell


class Asked(Event, type="desk.asked"):
    n: int


class Said(Event, type="desk.said"):
    yes: bool


class Closed(Event, type="desk.closed"):
    n: int


desk = Agent("desk")


@desk.step(external=True, effects=False)
async def close(asked: Asked, said: Said) -> Closed:
    return Closed(n=asked.n)


case = Saga("case", starts=Asked, completes=Closed, answers=[Said], intake="desk.cases")
APP = ("--app", f"{__name__}:case")
GOOD, BAD = '{"yes": true}', '{"yes": 7, "x": 1}'
REMARK = "the answer is not validated here (name --app): the coordinator refuses one that does not fit\n"


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A bus on which one saga waits for an answer from outside."""
    url = f"sqlite:///{tmp_path / 'bus.db'}"

    async def begin() -> None:
        start = Envelope(id="start", source="/sagas/case", type=Asked.event_type, data=Asked(n=1).to_json(), saga="case-1")
        async with await open_bus(url) as bus:
            names = (AGENTS, FACTS, case.intake, Asked.event_type)
            await bus.create_topics([TopicSpec(name, compacted=name == AGENTS) for name in names])
            known = (plan_of(desk).manifest.to_message(), SagaPlan.of(case).to_message())
            await bus.publish([*known, start.to_message()])

    asyncio.run(begin())
    return url


@pytest.fixture
def pavane(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url: str) -> Shell:
    monkeypatch.setenv("PAVANE_BUS", url)
    return Shell(monkeypatch, capsys)


def sent(url: str) -> list[bytes]:
    async def read() -> list[bytes]:
        async with await open_bus(url) as bus:
            return [parse(record).data async for record in bus.read(case.intake)]

    return asyncio.run(read())


def test_an_answer_that_fits_is_sent_and_it_is_said_what_it_fits(pavane: Shell, url: str) -> None:
    said = pavane("answer", "case-1", "--data", GOOD, *APP)
    assert (said.code, said.out) == (0, "answered desk/close in saga case-1 with desk.said, valid by Said\n")
    assert "validated" not in said.err
    assert len(sent(url)) == 1
    document = pavane("answer", "case-1", "--data", GOOD, *APP, "--json").document
    assert (document["sent"], document["validated_by"]) == (True, "Said")


def admit_all(url: str) -> None:
    """As the coordinator does: what was sent becomes an event of the saga, once."""

    async def work() -> None:
        async with await open_bus(url) as bus:
            admitted: dict[str, Envelope] = {}
            async for record in bus.read(case.intake):
                event = admit(record, case, bus.partitions, 0.0).event
                admitted[event.id] = event
            await bus.create_topics([TopicSpec(Said.event_type)])
            await bus.publish([event.to_message() for event in admitted.values()])

    asyncio.run(work())


def test_an_answer_with_a_name_is_sent_twice_without_harm_also_when_it_counts_already(pavane: Shell, url: str) -> None:
    again = ("answer", "case-1", "--data", GOOD, "--id", "one", "--who", "ann")
    assert pavane(*again).out == pavane(*again).out, "nobody has read it yet"
    admit_all(url)
    said = pavane(*again)
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("answered already: desk/close in saga case-1 with desk.said, 20")
    document = pavane(*again, *APP, "--type", "desk.said", "--json").document
    assert (document["sent"], document["validated_by"], document["step"]) == (False, "Said", "desk/close")
    assert isinstance(document["counted_at_ms"], int)
    assert len(sent(url)) == 2


def test_another_answer_of_that_name_is_refused_and_one_without_a_name_or_by_another_is_none(pavane: Shell, url: str) -> None:
    named = ("answer", "case-1", "--id", "one")
    pavane(*named, "--who", "ann", "--data", GOOD)
    admit_all(url)
    for more in ((), APP):
        said = pavane(*named, "--who", "ann", "--data", '{"yes": false}', *more)
        assert said.code == 2
        assert "the answer one counts already, and said something else" in said.err
    for other in ((*named, "--who", "bob"), ("answer", "case-1"), ("answer", "case-1", "--id", "two")):
        said = pavane(*other, "--data", GOOD)
        assert said.code == 2
        assert "waits for nothing" in said.err


def test_an_answer_that_does_not_fit_is_not_sent(pavane: Shell, url: str) -> None:
    said = pavane("answer", "case-1", "--data", BAD, *APP)
    assert (said.code, sent(url)) == (2, [])
    assert "data.yes" in said.err


def test_without_a_class_it_is_said_that_the_answer_was_not_validated(pavane: Shell, url: str) -> None:
    said = pavane("answer", "case-1", "--data", BAD)
    assert said.code == 0
    assert said.out == "answered desk/close in saga case-1 with desk.said, not validated here (name --app)\n"
    assert said.err.startswith(REMARK)
    assert len(sent(url)) == 1


def test_a_dry_run_and_a_program_are_told_so_too(pavane: Shell, url: str) -> None:
    said = pavane("answer", "case-1", "--data", BAD, "--dry-run")
    assert said.out == "would answer desk/close in saga case-1 with desk.said, not validated here (name --app)\n"
    assert said.err == REMARK
    said = pavane("answer", "case-1", "--data", BAD, "--dry-run", "--json")
    assert (said.document["validated_by"], said.err) == (None, REMARK)
    assert sent(url) == []
