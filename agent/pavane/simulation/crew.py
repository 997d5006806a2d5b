"""Crew: who plays the histories: this process, or several of their own."""

import multiprocessing
import os
import pickle
import signal
import time
import traceback
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from ctypes import c_long
from itertools import islice
from multiprocessing.connection import Connection, wait
from typing import Final, Protocol

from pavane.memory import settle_memory
from pavane.simulation.player import Job, Outcome, Player, alone, shrunk
from pavane.simulation.report import replayed_by
from pavane.simulation.verification import Verification
from pavane.simulation.world import UnfitVerification
from pavane_events.errors import PavaneError

_CHUNK: Final = 20
_AHEAD: Final = 3
"""Chunks for each process that are taken from the jobs before the first of them was answered."""

_IN_HAND: Final = 2
"""Chunks that a process has at once: what it plays, and what it goes on with."""

_LOOKS_S: Final = 1.0
_LEAVES_S: Final = 2.0
_NOWHERE: Final = -1


class Alone:
    """Plays in this process."""

    def __init__(self, verification: Verification) -> None:
        self._player = Player(verification)

    def play(self, jobs: Iterable[Job]) -> Iterator[Outcome]:
        """One after another."""
        try:
            with alone():
                for job in jobs:
                    yield _played(self._player, job)
        finally:
            self._player.close()


class Loader(Protocol):
    """Finds a verification by its name, in a process that has nothing yet."""

    def __call__(self, name: str, /) -> Verification: ...


class PlayerLost(PavaneError):
    """A process that played has ended by itself: its memory ran out, a step called ``os._exit``, a library crashed. Play
    the history that is named again: that is done in one process, in which whatever it was can be looked for."""

    code = "verification.process"

    def __init__(self, exit_code: int | None, name: str, job: Job | None) -> None:
        self.exit_code, self.job = exit_code, job
        where = "before it had played anything"
        if job is not None:
            where = f"in this history: {job}\n{replayed_by(str(job), name)}"
        super().__init__(f"a process that played has ended {_how(exit_code)}, {where}")


def _how(exit_code: int | None) -> str:
    if exit_code is None or exit_code >= 0:
        return f"with code {exit_code}"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = f"signal {-exit_code}"
    return f"by {name}" + (" (has the machine enough memory?)" if name == "SIGKILL" else "")


class Several:
    """Plays in so many processes, each with a verification of its own. Strings hash alike in all of them: what is a set
    in somebody's code has the same order in every one, and in the next run."""

    def __init__(self, name: str, processes: int, load: Loader) -> None:
        self._name, self._processes, self._load = name, processes, load

    def play(self, jobs: Iterable[Job]) -> Iterator[Outcome]:
        """In the order of the jobs. Ends its processes with the iterator, :class:`PlayerLost` as soon as one of them ends."""
        hands: list[_Hand] = []
        try:
            with _hashing_alike():
                hands.extend(_Hand(self._name, self._load) for _ in range(self._processes))
            yield from _shared_out(jobs, hands)
        finally:
            _dismiss(hands)


def _shared_out(jobs: Iterable[Job], hands: "Sequence[_Hand]") -> Iterator[Outcome]:
    """What becomes of the jobs. So many chunks are taken from them as were handed out, whoever is slow."""
    chunks = enumerate(_chunks(iter(jobs)))
    waiting = deque(islice(chunks, _AHEAD * len(hands)))
    come: dict[int, list[Outcome]] = {}
    first = 0
    while waiting or any(hand.doing for hand in hands):
        _deal(waiting, hands)
        for hand in _heard(hands):
            number, outcomes = hand.take()
            come[number] = outcomes
        while first in come:
            outcomes = come.pop(first)
            first += 1
            waiting.extend(islice(chunks, 1))
            _deal(waiting, hands)
            yield from outcomes


def _deal(waiting: deque[tuple[int, list[Job]]], hands: "Sequence[_Hand]") -> None:
    """Everybody gets a chunk to play, and then one to go on with."""
    for much in range(_IN_HAND):
        for hand in hands:
            if waiting and len(hand.doing) == much:
                hand.give(*waiting.popleft())


def _heard(hands: "Sequence[_Hand]") -> "Iterator[_Hand]":
    """Those who have something to say, when there are some, or when it is time to see who is there."""
    wait([each for hand in hands for each in (hand.connection, hand.process.sentinel)], _LOOKS_S)
    for hand in hands:
        if hand.connection.poll():
            yield hand
        elif not hand.process.is_alive():
            raise hand.lost()


def _dismiss(hands: "Sequence[_Hand]") -> None:
    """They leave when they have played what they are at; who does not is ended."""
    for hand in hands:
        hand.connection.close()
    until_s = time.monotonic() + _LEAVES_S
    for hand in hands:
        hand.process.join(max(0.0, until_s - time.monotonic()))
    for hand in hands:
        if hand.process.is_alive():
            hand.process.kill()
            hand.process.join()
        hand.process.close()


class _Hand:
    """A process that plays, and what it was given and has not answered, by number."""

    def __init__(self, name: str, load: Loader) -> None:
        context = multiprocessing.get_context("spawn")
        self.doing: deque[tuple[int, list[Job]]] = deque()
        self._name = name
        self._place = context.RawValue(c_long, _NOWHERE)
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(name, load, theirs, self._place), daemon=True)
        with theirs:
            self.process.start()

    def give(self, number: int, jobs: list[Job]) -> None:
        """It plays them after what it has."""
        self.doing.append((number, jobs))
        try:
            self.connection.send(jobs)
        except OSError:
            raise self.lost() from None

    def take(self) -> tuple[int, list[Outcome]]:
        """What came of the first that it was given. Raises what it raises."""
        try:
            said: list[Outcome] | Exception = self.connection.recv()
        except (EOFError, OSError):
            raise self.lost() from None
        if isinstance(said, Exception):
            raise said
        number, _ = self.doing.popleft()
        return number, said

    def lost(self) -> PlayerLost:
        """It is no more."""
        self.process.join(_LEAVES_S)
        place: int = self._place.value
        job = self.doing[0][1][place] if place != _NOWHERE and self.doing else None
        return PlayerLost(self.process.exitcode, self._name, job)


@contextmanager
def _hashing_alike() -> Generator[None]:
    """Processes that begin meanwhile have the same hashes."""
    hashing = os.environ.get("PYTHONHASHSEED")
    os.environ["PYTHONHASHSEED"] = "0"
    try:
        yield
    finally:
        if hashing is None:
            del os.environ["PYTHONHASHSEED"]
        else:
            os.environ["PYTHONHASHSEED"] = hashing


def _chunks(jobs: Iterator[Job]) -> Iterator[list[Job]]:
    while chunk := list(islice(jobs, _CHUNK)):
        yield chunk


def _work(name: str, load: Loader, connection: Connection, place: c_long) -> None:
    """What a process of several does, until nobody listens any more."""
    with connection, suppress(OSError):
        try:
            player = settle_in(name, load)
        except BaseException as error:
            connection.send(_portable(error))
            return
        try:
            for jobs in _given(connection):
                connection.send(_all_of(player, jobs, place))
        finally:
            with suppress(Exception):  # nobody listens
                player.close()


def _given(connection: Connection) -> Iterator[list[Job]]:
    with suppress(EOFError, OSError):
        while True:
            yield connection.recv()


_playing = ExitStack()
"""What holds for as long as the process plays. It must be kept: a context that is collected is left."""


def settle_in(name: str, load: Loader) -> Player:
    """A process of several begins: it does nothing but play until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever asked for the histories ends this process
    player = Player(load(name))
    _playing.enter_context(alone())
    settle_memory()
    return player


def _all_of(player: Player, jobs: list[Job], place: c_long) -> list[Outcome] | Exception:
    """What became of them, or what went wrong with the playing."""
    outcomes: list[Outcome] = []
    try:
        for number, job in enumerate(jobs):
            place.value = number  # it is read where this process has ended
            outcomes.append(_played(player, job))
    except BaseException as error:
        return _portable(error)
    return outcomes


def _portable(error: BaseException) -> Exception:
    """An error as it can be sent."""
    if not isinstance(error, Exception):
        return UnfitVerification.raised("what was played", error)
    if not isinstance(error, PavaneError):
        error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return UnfitVerification.raised("what was played", error)
    return error


def _played(player: Player, job: Job) -> Outcome:
    outcome = player.play(job)
    return shrunk(player, outcome) if outcome.violations else outcome
