"""What a coordinator keeps of its sagas in memory: so many, those that are heard of soon; of the others nothing is lost."""

from collections.abc import Iterator, Sequence

from pavane_events.buses.memory_log import KeyedState
from pavane_saga.dossier import Cabinet, Dossiers
from pavane_saga.facts import Answered

SHARE = 50


class Counted:
    """Lane state that counts how often a saga was read back."""

    def __init__(self) -> None:
        self.rows = KeyedState()
        self.read = 0

    def get(self, key: bytes) -> bytes | None:
        return self.rows.get(key)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        self.read += prefix.startswith(b"s/")
        return self.rows.scan(prefix)


def commit(dossiers: Dossiers, state: Counted) -> None:
    state.rows.apply(dossiers.changes)
    dossiers.committed()


def opened(state: Counted, count: int) -> Dossiers:
    """So many open sagas, each with a fact."""
    dossiers = Dossiers(state, Cabinet(SHARE), {})
    for number in range(count):
        dossier = dossiers.begin(f"saga-{number}", "name", 1)
        fact = Answered("type", f"event-{number}")
        dossiers.add(dossier, [fact])
        dossier.history = dossier.history.with_facts([fact])
        commit(dossiers, state)
    return dossiers


def heard(dossiers: Dossiers, state: Counted, numbers: Sequence[int]) -> int:
    """How many were read back when something was heard of these, one after the other."""
    before = state.read
    for number in numbers:
        found = dossiers.find(f"saga-{number}")
        assert found is not None
        assert found.history.knows("q:type")
        assert found.history.answered == {"type": f"event-{number}"}
        commit(dossiers, state)
    return state.read - before


def test_more_busy_sagas_than_there_is_room_for_do_not_push_each_other_out() -> None:
    """Had of in turns, most of them are found in memory: the one heard of just now comes last again."""
    state = Counted()
    dossiers = opened(state, 60)
    heard(dossiers, state, range(60))  # how soon something is heard of them again has to be learned
    for _ in range(5):
        assert heard(dossiers, state, range(60)) <= 20


def test_those_that_wait_make_room_for_those_that_run() -> None:
    """However many wait, and were there first."""
    state = Counted()
    dossiers = opened(state, 1_000)
    running = range(960, 1_000)
    for _ in range(3):
        heard(dossiers, state, running)
    assert heard(dossiers, state, running) == 0


def test_those_that_began_to_wait_just_now_make_room_for_those_that_run() -> None:
    """They were as busy, but nothing more is heard of them: who runs now is found in memory nevertheless."""
    state = Counted()
    dossiers = opened(state, SHARE)
    read = 0
    for first in range(SHARE, 50 * SHARE, 10):
        running = [f"saga-{number}" for number in range(first, first + 10)]
        for saga in running:
            dossiers.begin(saga, "name", 1)
        commit(dossiers, state)
        before = state.read
        for saga in running:
            found = dossiers.find(saga)
            assert found is not None
            dossiers.end(found, "completed", 1)
        commit(dossiers, state)
        read += state.read - before
    assert read < 100, "of 2,450"
