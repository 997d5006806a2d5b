"""Signatures: who made a lane's last commit, kept as metadata with the offset of its changelog."""

from collections.abc import Mapping
from typing import NamedTuple


class Signature(NamedTuple):
    """The stamp of a commit, the transactional id that made it, and the member of the group that its maker was then.

    Empty where nobody has committed yet. Agents of an earlier version left out the member.
    """

    stamp: str = ""
    producer: str = ""
    member: str = ""

    @classmethod
    def parse(cls, metadata: str) -> "Signature":
        """What :meth:`text` wrote."""
        return cls(*metadata.split(" ")[:3])

    def text(self) -> str:
        """As it is kept; none of the three has a space in it."""
        return " ".join(self)

    def is_of_one(self, members: Mapping[str, str]) -> bool:
        """Whether its maker is one of these members of the group: by their ids, the ids of their clients.

        Brokers begin an id with the client's id, which is the transactional id, so it is known also where it was put out
        of the group meanwhile and has joined anew. That of a static member begins with its name instead, which a process
        shares with the dead one whose place it took, as it does the client id that brokers go on telling (KIP-345).
        Where the signature names no member, the client id is all there is to go by.
        """
        if not self.member:
            return self.producer in members.values()
        return self.member in members or any(each.startswith(f"{self.producer}-") for each in members)
