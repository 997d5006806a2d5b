"""The door to the brokers: who is asked, what counts as a refusal, and how often it is knocked at."""

import asyncio
import ssl
from collections.abc import Callable, Coroutine, Sequence
from typing import cast

import pytest
from aiokafka.errors import AuthenticationFailedError

from pavane.simulation.virtual_time import VirtualLoop
from pavane_events.buses.kafka import client, connecting
from pavane_events.buses.kafka.connecting import REFUSALS, Door
from pavane_events.buses.kafka.options import KafkaOptions
from pavane_events.buses.kafka.requests import Client
from pavane_events.errors import BusUnavailable, ConfigurationError

REFUSED, AWAY = AuthenticationFailedError("wrong password"), ConnectionRefusedError("nobody is there")
NO_TLS = ssl.SSLError("wrong version")
NO_TLS.reason = "WRONG_VERSION_NUMBER"
OPEN = None
DAY_S = 86_400.0


class Brokers:
    """Servers that answer each knock as they are told to by its number from 0; the times of the knocks are kept."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answers: Callable[[int], Sequence[Exception | None]]) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self.knocks: list[float] = []
        self.contexts: list[object] = []
        monkeypatch.setattr(connecting, "create_conn", self.connect)

    async def connect(self, host: str, port: int, *, ssl_context: ssl.SSLContext | None, **others: object) -> "Brokers":
        self.contexts.append(ssl_context)
        if not self.asked:
            self.knocks.append(asyncio.get_running_loop().time())
        said = self.answers(len(self.knocks) - 1)
        self.asked.append(host)
        error = said[int(host.removeprefix("broker"))]
        if error is None or len(self.asked) == len(said):
            self.asked = []
        if error is not None:
            raise error
        return self

    async def close(self) -> None: ...


class Missing:
    """A client that has failed to connect once more whenever it is asked."""

    def __init__(self) -> None:
        self._missed = 0

    @property
    def missed(self) -> int:
        self._missed += 1
        return self._missed


def door(count: int = 1, options: KafkaOptions | None = None) -> Door:
    return Door(",".join(f"broker{number}:9092" for number in range(count)), options or KafkaOptions())


def virtually(work: Coroutine[object, object, None]) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(work)


async def watch_for(watched: Door, seconds: float) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds):
            await watched.watch([cast("Client", Missing())])


def test_one_server_that_refuses_does_not_keep_the_others_from_being_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for others in ([REFUSED, AWAY, OPEN], [NO_TLS, OPEN, OPEN]):
        Brokers(monkeypatch, lambda number, others=others: others)  # type: ignore[misc]
        virtually(door(3).knock())


@pytest.mark.parametrize("answers", [[REFUSED, AWAY], [AWAY, REFUSED]])
def test_where_none_lets_us_in_a_refusal_says_more_than_silence(
    monkeypatch: pytest.MonkeyPatch, answers: list[Exception]
) -> None:
    Brokers(monkeypatch, lambda number: answers)
    with pytest.raises(ConfigurationError, match="refuses"):
        virtually(door(2).knock())
    Brokers(monkeypatch, lambda number: [AWAY, AWAY])
    with pytest.raises(BusUnavailable):
        virtually(door(2).knock())


def test_refusals_on_end_close_the_door(monkeypatch: pytest.MonkeyPatch) -> None:
    brokers = Brokers(monkeypatch, lambda number: [REFUSED])
    with pytest.raises(ConfigurationError, match="refuses"):
        virtually(door().watch([cast("Client", Missing())]))
    assert len(brokers.knocks) == REFUSALS


def test_refusals_that_lie_far_apart_do_not_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between them nobody is there, so that nothing tells that the one before was a passing one."""
    brokers = Brokers(monkeypatch, lambda number: [AWAY if number % 10 else REFUSED])
    virtually(watch_for(door(), DAY_S))
    assert len(brokers.knocks) > 10 * REFUSALS


def test_where_nobody_is_there_it_knocks_ever_more_seldom_and_soon_again_once_somebody_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    brokers = Brokers(monkeypatch, lambda number: [AWAY if number < 8 else OPEN])
    virtually(watch_for(door(), 200.0))
    pauses = [round(after - before) for before, after in zip(brokers.knocks, brokers.knocks[1:], strict=False)]
    assert pauses[:9] == [2, 4, 8, 16, 30, 30, 30, 30, 1]


def test_it_knocks_with_what_the_clients_have_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[ssl.SSLContext] = []
    told: list[tuple[str, ssl.SSLContext | None]] = []
    before = client.ssl_context

    def counted(options: KafkaOptions) -> ssl.SSLContext:
        made.append(before(options))
        return made[-1]

    class Told:
        def __init__(self, *, ssl_context: ssl.SSLContext | None, client_id: str, **others: object) -> None:
            told.append((client_id, ssl_context))

        async def begin(self, connection: object) -> None: ...

    monkeypatch.setattr(client, "ssl_context", counted)
    monkeypatch.setattr(connecting, "Client", Told)
    brokers = Brokers(monkeypatch, lambda number: [OPEN])

    async def scenario() -> None:
        watched = door(options=KafkaOptions(security="SSL"))
        for name in ("me", "me-writes"):
            await watched.connect(name)
        await watch_for(watched, 10.0)

    virtually(scenario())
    assert told == [("me", made[0]), ("me-writes", made[0])]
    assert len(made) == 1
    assert set(brokers.contexts) == {made[0]}
    assert len(brokers.contexts) > 2
