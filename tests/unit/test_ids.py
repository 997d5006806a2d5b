"""Identities: new ones sort by time, derived ones are the same everywhere and differ where anything differs."""

import uuid

from hypothesis import given
from hypothesis import strategies as st

from pavane_events.ids import NAMESPACE, derived, idempotency_key, output_id, uuid7

PARTS = st.lists(st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=20), min_size=1, max_size=5)
CAUSES = st.lists(st.uuids().map(str), min_size=1, max_size=16)


@given(st.integers(0, 2**48 - 1))
def test_a_new_id_is_a_uuid_of_version_7_with_its_time_in_front(unix_ms: int) -> None:
    made = uuid.UUID(uuid7(unix_ms))
    assert made.variant == uuid.RFC_4122
    assert made.version == 7
    assert made.int >> 80 == unix_ms


def test_new_ids_sort_by_the_time_they_were_made_and_are_new() -> None:
    ids = [uuid7(unix_ms) for unix_ms in range(1_700_000_000_000, 1_700_000_000_200)]
    assert ids == sorted(ids)
    assert len({uuid7(5) for _ in range(1000)}) == 1000


@given(PARTS)
def test_a_derived_id_is_the_uuid5_of_its_parts(parts: list[str]) -> None:
    assert derived(*parts) == str(uuid.uuid5(NAMESPACE, "\x1f".join(parts)))


@given(PARTS, PARTS)
def test_other_parts_give_another_id_however_they_are_cut(one: list[str], other: list[str]) -> None:
    assert (derived(*one) == derived(*other)) == (one == other)


@given(CAUSES.flatmap(lambda causes: st.tuples(st.just(causes), st.permutations(causes))))
def test_the_order_of_causes_does_not_matter(orders: tuple[list[str], list[str]]) -> None:
    one, other = orders
    assert output_id("s", "a/b", one, 1) == output_id("s", "a/b", other, 1)
    assert idempotency_key("d", "s", "a/b", one) == idempotency_key("d", "s", "a/b", other)


def test_every_part_of_what_an_effect_is_makes_another_key() -> None:
    keys = {
        idempotency_key(deployment, saga, step, causes)
        for deployment in ("d", "e")
        for saga in ("s", "t")
        for step in ("a/b", "a/c")
        for causes in (["1"], ["1", "2"])
    }
    assert len(keys) == 16
    assert output_id("s", "a/b", ["1"], 1) != output_id("s", "a/b", ["1"], 2)
