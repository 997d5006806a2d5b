"""Kinds: which sagas a coordinator knows, by their names and by the types of their events."""

import logging
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from typing import Final

from pavane_saga.dossier import Dossier
from pavane_saga.facts import Fact, Happened
from pavane_saga.history import History
from pavane_saga.saga import Saga

log: Final = logging.getLogger("pavane.coordinator")


class Kinds:
    """The sagas of one coordinator. Others there may be: those of a newer one, or of one that is no more."""

    def __init__(self, sagas: Mapping[str, Saga]) -> None:
        self._sagas = sagas
        self.starts = {saga.starts.event_type: saga.name for saga in sagas.values()}
        """The name of the saga that begins with an event of a type."""
        self._answers = {name: frozenset([kind.event_type for kind in saga.answers]) for name, saga in sagas.items()}
        self.answers = frozenset[str]().union(*self._answers.values())
        """The types that any of them takes in from outside."""
        self._types = {name: _types_of(saga) for name, saga in sagas.items()}

    def answers_to(self, name: str | None) -> frozenset[str]:
        """The types that the saga of that name takes in from outside."""
        return self._answers.get(name or "", frozenset())

    def start_among(self, facts: Iterable[Fact]) -> Happened | None:
        """The event among these with which one of them began."""
        for fact in facts:
            if isinstance(fact, Happened) and fact.step is None and fact.type in self.starts:
                return fact
        return None

    def likely(self, history: History) -> str:
        """Of a saga whose start event never came: by its events, which it may be."""
        return next(
            (name for name, types in self._types.items() if not types.isdisjoint(history.types)), next(iter(self._sagas))
        )

    def is_unknown(self, dossier: Dossier, said: Collection[str]) -> bool:
        """Whether it is of another saga: by its name, or by an event with which none of these begins. Then nothing is to be
        decided about it here. ``said``: the types that steps say, which begin no saga."""
        if dossier.name in self._sagas:
            return False
        if dossier.name is not None:
            unknown = {dossier.name}
        else:
            begun = {each.type for each in dossier.history.events.values() if each.step is None and not each.causes}
            unknown = begun.difference(said, *self._types.values())
        for each in unknown:
            _warn_of(each)
        return bool(unknown)


def _types_of(saga: Saga) -> frozenset[str]:
    """The types with which it starts and ends, and that it takes in from outside."""
    kinds = (saga.starts, saga.completes, *saga.fails, *saga.answers)
    return frozenset([kind.event_type for kind in kinds])


@lru_cache(maxsize=256)  # once for all lanes, and for all sagas
def _warn_of(name: str) -> None:
    log.warning("no saga here is called %s, or begins with it: what runs of it waits for a coordinator that knows it", name)
