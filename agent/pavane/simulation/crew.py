"""Crew: who plays the histories: this process, or several of their own."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from typing import Protocol

from pavane.memory import settle_memory
from pavane.simulation.player import Job, Outcome, Player, alone, shrunk
from pavane.simulation.verification import Verification

_CHUNK = 20
_AHEAD = 3


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


class Several:
    """Plays in so many processes, each with a verification of its own. Strings hash alike in all of them: what is a set
    in somebody's code has the same order in every one, and in the next run."""

    def __init__(self, name: str, processes: int, load: Loader) -> None:
        self._name, self._processes, self._load = name, processes, load

    def play(self, jobs: Iterable[Job]) -> Iterator[Outcome]:
        """As they come. Ends its processes with the iterator."""
        hashing = os.environ.get("PYTHONHASHSEED")
        os.environ["PYTHONHASHSEED"] = "0"
        context = multiprocessing.get_context("spawn")
        try:
            pool = context.Pool(self._processes, settle_in, (self._name, self._load))
        finally:
            if hashing is None:
                del os.environ["PYTHONHASHSEED"]
            else:
                os.environ["PYTHONHASHSEED"] = hashing
        with pool:
            todo = iter(jobs)
            under_way = [pool.apply_async(_play, (chunk,)) for chunk in islice(_chunks(todo), _AHEAD * self._processes)]
            while under_way:
                outcomes = under_way.pop(0).get()
                under_way += [pool.apply_async(_play, (chunk,)) for chunk in islice(_chunks(todo), 1)]
                yield from outcomes


def _chunks(jobs: Iterator[Job]) -> Iterator[list[Job]]:
    while chunk := list(islice(jobs, _CHUNK)):
        yield chunk


_player: Callable[[], Player] | None = None
_playing = ExitStack()
"""What holds for as long as the process plays. It must be kept: a context that is collected is left."""


def settle_in(name: str, load: Loader) -> None:
    """A process of several begins: it does nothing but play until it ends."""
    global _player
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever asked for the histories ends this process
    player = Player(load(name))
    _playing.enter_context(alone())
    settle_memory()
    _player = lambda: player  # noqa: E731


def _play(jobs: list[Job]) -> list[Outcome]:
    assert _player is not None
    return [_played(_player(), job) for job in jobs]


def _played(player: Player, job: Job) -> Outcome:
    outcome = player.play(job)
    return shrunk(player, outcome) if outcome.violations else outcome
