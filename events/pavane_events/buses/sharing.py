"""How the lanes of a group are shared among its members: one pure rule, so every process comes to the same answer."""

from collections.abc import Mapping, Sequence


def share(partitions: int, members: Sequence[int], holders: Mapping[int, int]) -> dict[int, int]:
    """By partition, the member that is to hold it: even to one lane, and moving no lane that need not move.

    ``holders`` says who holds what now; holders that are no members count as gone. The same arguments give the same
    answer everywhere, and an answer that is carried out is its own answer: no lane wanders when nobody comes or goes.
    """
    if not members:
        return {}
    held: dict[int, list[int]] = {member: [] for member in sorted(members)}
    for partition in range(partitions):
        holder = holders.get(partition)
        if holder in held:
            held[holder].append(partition)
    quotas = _quotas(partitions, held)
    answer = {partition: member for member, mine in held.items() for partition in mine[: quotas[member]]}
    free = (partition for partition in range(partitions) if partition not in answer)
    for member in held:
        for _ in range(quotas[member] - len(held[member])):
            answer[next(free)] = member
    return answer


def _quotas(partitions: int, held: Mapping[int, Sequence[int]]) -> dict[int, int]:
    """How many lanes each member gets; where it cannot be even, those who hold most already keep one more."""
    each, over = divmod(partitions, len(held))
    by_most_held = sorted(held, key=lambda member: (-len(held[member]), member))
    return {member: each + (place < over) for place, member in enumerate(by_most_held)}
