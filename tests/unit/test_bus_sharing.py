"""Lanes are shared evenly, completely, the same by everybody, and no lane moves without need."""

from hypothesis import given
from hypothesis import strategies as st

from pavane_events.buses.sharing import share

PARTITIONS = st.integers(1, 24)
MEMBERS = st.lists(st.integers(1, 30), min_size=1, max_size=9, unique=True)
HOLDERS = st.dictionaries(st.integers(0, 23), st.integers(1, 30))


@given(PARTITIONS, MEMBERS, HOLDERS)
def test_every_lane_has_one_member_and_shares_differ_by_one_at_most(
    partitions: int, members: list[int], holders: dict[int, int]
) -> None:
    answer = share(partitions, members, holders)
    assert set(answer) == set(range(partitions))
    sizes = [list(answer.values()).count(member) for member in members]
    assert sum(sizes) == partitions
    assert max(sizes) - min(sizes) <= 1


@given(PARTITIONS, MEMBERS, HOLDERS)
def test_an_answer_that_was_carried_out_is_its_own_answer_in_any_order_of_members(
    partitions: int, members: list[int], holders: dict[int, int]
) -> None:
    answer = share(partitions, members, holders)
    assert share(partitions, members[::-1], holders) == answer
    assert share(partitions, members, answer) == answer


@given(PARTITIONS, MEMBERS, st.integers(31, 40))
def test_a_member_that_joins_takes_its_share_and_no_other_lane_moves(
    partitions: int, members: list[int], joining: int
) -> None:
    before = share(partitions, members, {})
    after = share(partitions, [*members, joining], before)
    assert all(after[partition] in (member, joining) for partition, member in before.items())


@given(PARTITIONS, MEMBERS)
def test_a_member_that_leaves_costs_the_others_no_lane(partitions: int, members: list[int]) -> None:
    before = share(partitions, members, {})
    after = share(partitions, members[1:], before)
    kept = {partition: member for partition, member in before.items() if member != members[0]}
    assert kept.items() <= after.items() or not members[1:]


def test_without_members_nobody_holds_anything() -> None:
    assert share(4, [], {0: 1}) == {}
