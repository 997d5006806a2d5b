"""The assignor: lanes are shared out by partition number, and no lane moves that need not move.

All topics of number p go together, also while members subscribe to different topics (a rolling upgrade): each gets
those it subscribes to. What a member holds travels in its subscription, so any member can lead.
"""

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import cast

from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

from pavane_events.buses.sharing import share

_VERSION = 0


class LaneAssignor(AbstractPartitionAssignor):
    """``held`` says which lanes this member holds, and since which generation; it is asked at every join."""

    name = "pavane-lanes"

    def __init__(self, partitions: int, held: Callable[[], tuple[int, Collection[int]]]) -> None:
        self._partitions = partitions
        self._held = held

    def metadata(self, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        """What this member subscribes to and holds."""
        generation, lanes = self._held()
        held = json.dumps({"generation": generation, "lanes": sorted(lanes)}).encode()
        return ConsumerProtocolMemberMetadata(_VERSION, sorted(topics), held)

    def assign(
        self, cluster: ClusterMetadata, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        """Share the lanes out among the members."""
        shares = share_lanes(self._partitions, {member: each.user_data for member, each in members.items()})
        return {
            member: ConsumerProtocolMemberAssignment(
                _VERSION, [(topic, shares[member]) for topic in sorted(each.subscription) if shares[member]], b""
            )
            for member, each in members.items()
        }

    def on_assignment(self, assignment: ConsumerProtocolMemberAssignment) -> None:
        """Nothing to remember: who holds what is asked anew."""


def share_lanes(partitions: int, claims: Mapping[str, bytes | None]) -> dict[str, list[int]]:
    """By member, its lanes, given what each says it holds. Of two who claim one lane the later generation is believed."""
    names = sorted(claims)
    holders: dict[int, tuple[int, int]] = {}
    for number, name in enumerate(names):
        generation, lanes = read_claim(claims[name])
        for lane in lanes:
            holders[lane] = max(holders.get(lane, (-1, -1)), (generation, number))
    answer: dict[str, list[int]] = {name: [] for name in names}
    shares = share(partitions, range(len(names)), {lane: number for lane, (_, number) in holders.items()})
    for lane, number in sorted(shares.items()):
        answer[names[number]].append(lane)
    return answer


def read_claim(claim: bytes | None) -> tuple[int, list[int]]:
    """Generation and lanes of a claim; none where it is not one of ours."""
    try:
        fields = cast("dict[str, object]", json.loads(claim or b"{}"))
        lanes = cast("list[object]", fields.get("lanes", []))
        return int(cast("int", fields.get("generation", -1))), [lane for lane in lanes if isinstance(lane, int)]
    except (ValueError, TypeError, AttributeError):
        return -1, []
