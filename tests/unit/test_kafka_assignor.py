"""Lanes are shared out by number: each to one member, evenly, none moved without need, whatever members subscribe to."""

import json

from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata
from hypothesis import given
from hypothesis import strategies as st

from pavane_events.buses.kafka.assignor import LaneAssignor, read_claim, share_lanes


def claim(generation: int, *lanes: int) -> bytes:
    return json.dumps({"generation": generation, "lanes": lanes}).encode()


names = st.sampled_from([f"member-{number}" for number in range(8)])
claims = st.dictionaries(
    names,
    st.one_of(
        st.none(),
        st.binary(max_size=6),
        st.tuples(st.integers(-1, 5), st.sets(st.integers(0, 11))).map(lambda said: claim(said[0], *said[1])),
    ),
    min_size=1,
)


@given(st.integers(1, 12), claims)
def test_every_lane_has_one_holder_and_shares_are_even(partitions: int, said: dict[str, bytes | None]) -> None:
    shares = share_lanes(partitions, said)
    assert sorted(lane for lanes in shares.values() for lane in lanes) == list(range(partitions))
    sizes = [len(lanes) for lanes in shares.values()]
    assert max(sizes) - min(sizes) <= 1


@given(st.integers(1, 12), claims)
def test_an_answer_that_was_carried_out_is_its_own_answer(partitions: int, said: dict[str, bytes | None]) -> None:
    shares = share_lanes(partitions, said)
    assert share_lanes(partitions, {name: claim(7, *lanes) for name, lanes in shares.items()}) == shares


def test_of_two_who_claim_a_lane_the_later_generation_is_believed() -> None:
    shares = share_lanes(2, {"late": claim(3, 0), "zombie": claim(2, 0, 1)})
    assert shares == {"late": [0], "zombie": [1]}


def test_a_member_that_leaves_moves_only_its_own_lanes() -> None:
    before = share_lanes(6, {"a": claim(1), "b": claim(1), "c": claim(1)})
    after = share_lanes(6, {name: claim(2, *before[name]) for name in ("a", "b")})
    assert set(before["a"]) <= set(after["a"])
    assert set(before["b"]) <= set(after["b"])


def test_what_is_no_claim_of_ours_claims_nothing() -> None:
    for odd in (
        None,
        b"",
        b"\xff",
        b"[]",
        b"7",
        b'{"lanes": 3}',
        b'{"generation": "x", "lanes": [1]}',
        b'{"lanes": ["1", 2.5]}',
    ):
        assert read_claim(odd)[1] == []


def test_each_member_gets_its_number_of_the_topics_it_subscribes_to() -> None:
    old = LaneAssignor(2, lambda: (1, [0]))
    new = LaneAssignor(2, lambda: (1, [1]))
    members: dict[str, ConsumerProtocolMemberMetadata] = {
        "old": old.metadata(["orders"]),
        "new": new.metadata(["orders", "payments"]),
    }
    answer = old.assign(ClusterMetadata(), members)
    assert {(each.topic, each.partition) for each in answer["old"].partitions()} == {("orders", 0)}
    assert {(each.topic, each.partition) for each in answer["new"].partitions()} == {("orders", 1), ("payments", 1)}
